"""tiny-chat: the same bytes each time, and files that the libraries of the field read."""

import hashlib
import itertools
import json
import struct
import subprocess
from pathlib import Path

from local import tiny_model
from toolchain import tools


def test_the_files_are_the_same_bytes_each_time() -> None:
    first, second = tiny_model.files(), tiny_model.files()
    assert {name: hashlib.sha256(body).digest() for name, body in first.items()} == {name: hashlib.sha256(body).digest() for name, body in second.items()}


def test_the_weights_are_whole_and_a_few_million() -> None:
    body = tiny_model.files()["model.safetensors"]
    (length,) = struct.unpack("<Q", body[:8])
    header = json.loads(body[8 : 8 + length])
    header.pop("__metadata__")
    ends = sorted(tuple(tensor["data_offsets"]) for tensor in header.values())
    assert ends[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))
    assert ends[-1][1] == len(body) - 8 - length == 2 * tiny_model.parameters()
    assert 2_000_000 < tiny_model.parameters() < 10_000_000


def test_the_tokenizer_can_write_every_byte() -> None:
    model = tiny_model.tokenizer()["model"]
    assert len(model["vocab"]) == tiny_model.VOCABULARY
    assert sorted(model["vocab"].values()) == list(range(tiny_model.VOCABULARY))
    assert all(left + right in model["vocab"] for left, right in model["merges"])


def test_writing_twice_changes_nothing_and_damage_is_repaired(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny-chat"
    assert tiny_model.write(folder)
    assert not tiny_model.write(folder)
    (folder / "config.json").write_text("{")
    assert tiny_model.write(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert [each.name for each in folder.parent.iterdir()] == ["tiny-chat"]


def test_transformers_reads_tokenizer_template_and_configuration(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "tiny-chat")
    script = """
import json, sys
from transformers import AutoConfig, AutoTokenizer
tokenizer, config = AutoTokenizer.from_pretrained(sys.argv[1]), AutoConfig.from_pretrained(sys.argv[1])
text = "Hello, wörld 漢字! 123"
ids = tokenizer(text)["input_ids"]
chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
print(json.dumps({"back": tokenizer.decode(ids), "text": text, "chat": chat, "eos": tokenizer.eos_token_id, "vocabulary": config.vocab_size}))
"""
    python = tools.path("vllm").with_name("python")
    done = subprocess.run([python, "-c", script, str(tmp_path / "tiny-chat")], capture_output=True, text=True, check=True, timeout=120)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["back"] == seen["text"]
    assert seen["chat"] == "<|start|>user\nHi<|end|>\n<|start|>assistant\n"
    assert seen["eos"] == tiny_model.config()["eos_token_id"]
    assert seen["vocabulary"] == tiny_model.VOCABULARY
