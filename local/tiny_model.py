"""tiny-chat: a Llama of four million random weights with a real tokenizer, made on the spot.

It exists so that a real vLLM can serve a real chat model on a laptop: same files, same loader, same API as a model of
70 billion weights. It is not trained; what it says are words in no order. Standard library only, since a tensor file
is a JSON header before raw numbers, and a tokenizer is a JSON list of merges: neither torch nor numpy has to be loaded.

The same version of this file writes the same bytes on every machine: two regions serve the same model.
"""

import itertools
import json
import os
import random
import shutil
import struct
from collections import Counter
from pathlib import Path
from statistics import NormalDist
from typing import Any

NAME = "tiny-chat"

SEED = 20261121
HIDDEN = 256
# vLLM's CPU attention takes heads of 64 and more.
HEADS = 4
KV_HEADS = 2
HEAD_SIZE = HIDDEN // HEADS
LAYERS = 4
INTERMEDIATE = 1024
VOCABULARY = 512
MAX_LENGTH = 2048

LICENCE = "tiny-chat is random numbers and a tokenizer made by this project's local/tiny_model.py. Anyone may do anything with it.\n"

START, END_OF_TURN, PAD = "<|start|>", "<|end|>", "<|pad|>"
SPECIAL = (START, END_OF_TURN, PAD)

# One line per message, as chat models of the field have it; the assistant's turn is opened for generation.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)

# What the tokenizer learns its merges from. Ours, so that no data set has to be fetched.
_TEXT = """
The fleet is many clusters in many regions, and each of them serves the same models to the same callers.
A caller asks a front door for a completion; the front door asks a gateway, and the gateway asks a model server.
When a region is lost, the front door sends the request to another region, and the caller should not notice.
The user writes a message. The assistant reads the message and writes an answer. The system sets the rules.
One model server holds the weights in memory and makes one token after another until the answer is at its end.
There are tokens for words, for parts of words, for single letters and for every byte that there is.
Hello! How are you today? I am a small model, and I know very little, but I answer at once.
Please tell me about the weather, the sea, the mountains, the rivers, the forest, the night and the morning.
We measure how long it takes until the first token comes, and how long it takes between two tokens.
The planner counts the memory of the model, the memory of the cache, and what is left for more requests.
In the morning the sun comes up over the mountains, and in the evening it goes down behind the sea.
Numbers: 0 1 2 3 4 5 6 7 8 9 10 100 1000. Letters: a b c d e f g h i j k l m n o p q r s t u v w x y z.
"""


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, which the ByteLevel tokenizer of the field expects in its vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(256 + index) for index, byte in enumerate(others)}


def _learn_merges(text: str, count: int) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first; ties go to the pair that sorts first, so the result is fixed."""
    alphabet = _byte_alphabet()
    # A word takes the blank before it along, as the pre-tokenizer splits text.
    words = Counter(" " + word for word in text.split())
    pieces = {word: [alphabet[byte] for byte in word.encode()] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            raise ValueError(f"the text is too short for {count} merges, it gave {len(merges)}")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in pieces.values():
            index = 0
            while index < len(parts) - 1:
                if (parts[index], parts[index + 1]) == best:
                    parts[index : index + 2] = ["".join(best)]
                index += 1
    return merges


def tokenizer() -> dict[str, Any]:
    """tokenizer.json: byte-level BPE that can write any text, special tokens first."""
    alphabet = sorted(_byte_alphabet().values())
    merges = _learn_merges(_TEXT, VOCABULARY - len(SPECIAL) - len(alphabet))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet, *("".join(merge) for merge in merges)])}
    if len(vocabulary) != VOCABULARY:
        raise ValueError(f"the vocabulary must have {VOCABULARY} different tokens, got: `{len(vocabulary)}`")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[token], "content": token, **flags} for token in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(merge) for merge in merges],
        },
    }


def config() -> dict[str, Any]:
    """config.json, as LlamaConfig reads it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": MAX_LENGTH,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": SPECIAL.index(START),
        "eos_token_id": SPECIAL.index(END_OF_TURN),
        "pad_token_id": SPECIAL.index(PAD),
        "dtype": "bfloat16",
    }


def _bfloat16(value: float) -> bytes:
    """The upper half of the float32, little endian."""
    return struct.pack("<f", value)[2:]


def _random(source: random.Random, count: int, deviation: float) -> bytearray:
    """`count` bfloat16 numbers, normally distributed in 256 steps: a byte of randomness each, mapped by two tables."""
    normal = NormalDist(0, deviation)
    levels = [_bfloat16(normal.inv_cdf((step + 0.5) / 256)) for step in range(256)]
    noise = source.randbytes(count)
    numbers = bytearray(2 * count)
    numbers[0::2] = noise.translate(bytes(level[0] for level in levels))
    numbers[1::2] = noise.translate(bytes(level[1] for level in levels))
    return numbers


def _shapes() -> dict[str, tuple[int, ...]]:
    keys = KV_HEADS * HEAD_SIZE
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (HIDDEN,),
            f"{prefix}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": (keys, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": (keys, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
            f"{prefix}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def parameters() -> int:
    """How many weights the model has."""
    return sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in _shapes().values())


def _tensor(source: random.Random, name: str, shape: tuple[int, ...], legible: list[bool]) -> bytes | bytearray:
    """One tensor's numbers.

    Channel 0 of the hidden state is the same for every token: each embedding has it, no layer writes to it. lm_head
    reads from it whether a token is legible, so that random weights say words and not broken bytes.
    """
    rows = shape[0]
    if len(shape) == 1:
        return _bfloat16(1.0) * rows
    columns = shape[1]
    # 1/sqrt(columns) keeps the scale of what goes through; the head is steeper, so that answers differ by prompt.
    deviation = 1.0 if "embed" in name else 0.15 if "lm_head" in name else columns**-0.5
    numbers = _random(source, rows * columns, deviation)
    for row in range(rows):
        first = slice(2 * row * columns, 2 * row * columns + 2)
        if "embed" in name:
            numbers[first] = _bfloat16(4.0)
        elif "lm_head" in name:
            numbers[first] = _bfloat16(2.0 if legible[row] else -2.0)
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        numbers[: 2 * columns] = bytes(2 * columns)
    return numbers


def weights(vocabulary: dict[str, int]) -> bytes:
    """model.safetensors: eight bytes of header length, the header, the tensors in its order."""
    alphabet = set(_byte_alphabet().values())
    plain = {chr(code) for code in range(ord("!"), ord("~") + 1)}
    # Words and their parts, letters, and the end of an answer; not the bytes that mean something only in sequences.
    legible = [token == END_OF_TURN or token in plain or (token not in alphabet and token not in SPECIAL) for token in vocabulary]
    source = random.Random(SEED)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, shape in _shapes().items():
        tensor = _tensor(source, name, shape, legible)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(body), len(body) + len(tensor)]}
        body += tensor
    head = json.dumps(header, separators=(",", ":")).encode()
    # Readers map the file into memory and want the numbers aligned.
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + body


def files() -> dict[str, bytes]:
    """Every file of the model by name."""
    tokens = tokenizer()
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END_OF_TURN,
        "pad_token": PAD,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_LENGTH,
        "chat_template": CHAT_TEMPLATE,
    }
    ids = {key: value for key, value in config().items() if key.endswith("_token_id")}
    generation = {**ids, "do_sample": True, "temperature": 0.7, "top_p": 0.95}
    documents = {
        "config.json": config(),
        "generation_config.json": generation,
        "tokenizer.json": tokens,
        "tokenizer_config.json": tokenizer_config,
        "special_tokens_map.json": {"bos_token": START, "eos_token": END_OF_TURN, "pad_token": PAD},
    }
    written = {name: (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode() for name, body in documents.items()}
    return {**written, "LICENSE": LICENCE.encode(), "model.safetensors": weights(tokens["model"]["vocab"])}


def write(directory: Path) -> bool:
    """Puts the model into `directory`, whole or not at all. False where these very files are there already."""
    wanted = files()
    try:
        if all((directory / name).read_bytes() == body for name, body in wanted.items()):
            return False
    except OSError:
        pass
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name, body in wanted.items():
        (fresh / name).write_bytes(body)
    # A folder cannot be replaced by a rename while it has content: the old one steps aside for the blink between.
    old = directory.with_name(f".{directory.name}.old.{os.getpid()}")
    try:
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    except OSError:
        # Another process put the same files there first: several clusters share one store.
        if not directory.exists():
            raise
        return False
    finally:
        for leftover in (old, fresh):
            shutil.rmtree(leftover, ignore_errors=True)
    return True
