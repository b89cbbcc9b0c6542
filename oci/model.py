"""What makes a directory a model that vLLM can serve, and the facts that plans are computed from.

The same checks read a directory before it is packed and the layers of an artifact that is verified: they need a few small files whole, and
of weight files the header.
"""

import itertools
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from core.errors import FleetError
from oci.safetensors import FLOATS, Header, read_header

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
READ_WHOLE = (CONFIG, INDEX, "tokenizer_config.json", "generation_config.json")
"""Files that the checks look into."""
_SMALL = 64 << 20
"""What a file of READ_WHOLE may hold at most, in bytes."""
WEIGHTS = ".safetensors"
# torch.load runs code that such a file brings along.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# One of these sets holds what text is split with.
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("tekken.json",), ("spiece.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|use_policy)[^/]*", re.IGNORECASE)
# What version control and download tools leave behind.
_HIDDEN = re.compile(r"(^|/)\.")

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """What is known of a model's files: size by path, the text of small ones, the headers of weight files."""

    sizes: Mapping[str, int]
    texts: Mapping[str, bytes]
    headers: Mapping[str, Header]


@dataclass(frozen=True)
class Model:
    """A model that passed. facts: as they stand in the artifact. warnings: what works but is likely not meant."""

    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    licences: tuple[str, ...]


# Reading a directory


def scan(folder: Path) -> dict[str, Path]:
    """Path in the model → file, for all that is packed. Raises FleetError with everything that must not be packed."""
    if not folder.is_dir():
        repository = re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)) is not None
        hint = f"fetch it first: hf download {folder} --local-dir DIR" if repository else "pack takes a directory with config.json and *.safetensors"
        raise FleetError(f"{folder}: is not a directory", hint=hint)
    root = folder.resolve()
    found: dict[str, Path] = {}
    wrong: list[str] = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *sorted(files)]:
            path = Path(place, name)
            target = path.relative_to(root).as_posix()
            if _HIDDEN.search(target):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                wrong.append(f"{target}: is a link that leaves the directory, to {path.readlink()}")
            elif path.is_symlink() and path.is_dir():
                wrong.append(f"{target}: is a link to a directory")
            elif name in files and not (path.exists() and stat.S_ISREG(path.stat().st_mode)):
                wrong.append(f"{target}: is not a regular file")
            elif name in files and not target.isprintable():
                wrong.append(f"{target!r}: a file name must be printable")
            elif name in files:
                found[target] = path
    if wrong:
        hint = "copy the model with its links resolved, and pack the copy: cp -rL" if any("link" in line for line in wrong) else ""
        raise FleetError(f"{folder}: cannot be packed:\n" + "\n".join(f"  {line}" for line in wrong), hint=hint)
    return found


def contents_of(folder: Path, files: Mapping[str, Path]) -> Contents:
    """Raises FleetError."""
    sizes: dict[str, int] = {}
    texts: dict[str, bytes] = {}
    headers: dict[str, Header] = {}
    for name, path in files.items():
        try:
            sizes[name] = path.stat().st_size
            if name in READ_WHOLE:
                check_small(name, sizes[name])
                texts[name] = path.read_bytes()
            elif name.endswith(WEIGHTS):
                with path.open("rb") as stream:
                    headers[name] = read_header(name, stream, sizes[name])
        except OSError as error:
            raise FleetError(f"{folder / name}: cannot be read: {error.strerror}") from None
    return Contents(sizes, texts, headers)


def check_small(name: str, size: int) -> None:
    """Raises FleetError for a file that is read whole and is too long for that."""
    if size > _SMALL:
        raise FleetError(f"{name}: must be at most {_SMALL} bytes, got: `{size}`")


# What a model is


def examine(contents: Contents) -> Model:
    """Raises FleetError with everything that is wrong, each with its file."""
    names = contents.sizes
    if CONFIG not in names:
        raise FleetError(f"not a model directory: it has no {CONFIG}", hint="a model directory holds config.json, *.safetensors and the tokenizer's files")
    wrong = [f"{name}: is a pickle, which runs code when it is loaded" for name in sorted(names) if name.lower().endswith(_PICKLES)]
    hint = "convert the weights to safetensors, or remove these files if *.safetensors hold the same weights" if wrong else ""
    if not any(all(name in names for name in each) for each in _TOKENIZERS) and not any(name.endswith(".tiktoken") for name in names):
        wrong.append("there is no tokenizer: one of " + ", ".join(" with ".join(each) for each in _TOKENIZERS))
    documents: dict[str, Config] = {}
    for name, text in contents.texts.items():
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            wrong.append(f"{name}: is no JSON: {error}")
            continue
        if isinstance(parsed, dict):
            documents[name] = cast(Config, parsed)
        else:
            wrong.append(f"{name}: must be a JSON object")
    # Those of an adapter or of another library's folder are not this model's.
    weights = {name: header for name, header in contents.headers.items() if "/" not in name}
    if not weights:
        wrong.append(f"there are no weights: no *{WEIGHTS} beside {CONFIG}")
    wrong += _against_index(documents.get(INDEX), weights)
    tensors = {key: tensor for header in weights.values() for key, tensor in header.items()}
    if weights and not tensors:
        wrong.append(f"there are no weights: *{WEIGHTS} holds no tensor")
    facts: dict[str, Any] = {}
    if CONFIG in documents:
        facts, problems = _facts(documents[CONFIG])
        wrong += [f"{CONFIG}: {problem}" for problem in problems]
        if not problems and weights:
            wrong += _against_tensors(facts, tensors)
            facts["parameters"] = _parameters(tensors, facts)
            facts["weightBytes"] = sum(tensor.size for tensor in tensors.values())
    if wrong:
        raise FleetError("cannot be served as it is:\n" + "\n".join(f"  {line}" for line in wrong), hint=hint)
    return Model(facts, tuple(_warnings(contents, documents)), licence_files(names))


def licence_files(names: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if _LICENCE.fullmatch(PurePosixPath(name).name) and "/" not in name))


def _warnings(contents: Contents, documents: Mapping[str, Config]) -> list[str]:
    found: list[str] = []
    if not licence_files(contents.sizes):
        found.append("there is no licence file (LICENSE, COPYING, NOTICE): `fleet model verify` will refuse it")
    template = documents.get("tokenizer_config.json", {}).get("chat_template")
    if not template and not any(name.startswith("chat_template.") for name in contents.sizes):
        found.append("there is no chat template: chat completions will be refused, completions work")
    if any(name.endswith(".py") for name in contents.sizes):
        found.append("it brings Python code, which vLLM runs only with --trust-remote-code")
    return found


def _against_index(index: Config | None, weights: Mapping[str, Header]) -> list[str]:
    places = {key: name for name, header in weights.items() for key in header}
    twice = sum(len(header) for header in weights.values()) - len(places)
    wrong = [f"{twice} tensors are in more than one *{WEIGHTS}: weights of two layouts lie together"] if twice else []
    if index is None:
        if len(weights) > 1:
            wrong.append(f"there are {len(weights)} weight files and no {INDEX} that says which tensor is where")
        return wrong
    mapping = index.get("weight_map")
    if not (isinstance(mapping, dict) and all(isinstance(name, str) for name in cast(Config, mapping).values())):
        return [*wrong, f"{INDEX}: weight_map must be an object of tensor names and files"]
    listed = cast(dict[str, str], mapping)
    absent = sorted(set(listed.values()) - set(weights))
    wrong += [f"{INDEX}: lists the file {name}, which is not there" for name in absent]
    misplaced = sorted(key for key, name in listed.items() if name in weights and places.get(key) != name)
    wrong += [f"{INDEX}: tensor `{misplaced[0]}` is not in {listed[misplaced[0]]}" + _others(misplaced)] if misplaced else []
    unlisted = sorted(key for key in places if key not in listed)
    wrong += [f"{INDEX}: does not list tensor `{unlisted[0]}` of {places[unlisted[0]]}" + _others(unlisted)] if unlisted else []
    return wrong


def _others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


# Facts


def _whole(config: Config, wrong: list[str], *keys: str, default: int | None = None) -> int | None:
    """The first of `keys` that is set. What is not a whole number from 1 is wrong; so is nothing at all, without a default."""
    for key in keys:
        value = config.get(key)
        if value is not None:
            if type(value) is int and value >= 1:
                return value
            wrong.append(f"{key}: must be a whole number from 1, got: `{value}`")
            return default
    if default is None:
        wrong.append(f"{keys[0]}: is missing")
    return default


def _optional(config: Config, wrong: list[str], *keys: str) -> int | None:
    return _whole(config, wrong, *keys) if any(config.get(key) is not None for key in keys) else None


def _facts(document: Config) -> tuple[dict[str, Any], list[str]]:
    """Facts under the stack file's names, then what plans need beyond them; and what contradicts itself."""
    wrong: list[str] = []
    # Models that also see or hear keep the language model's numbers apart.
    inner = document.get("text_config") or document.get("llm_config")
    config = {**document, **cast(Config, inner)} if isinstance(inner, dict) else document
    architectures = document.get("architectures")
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        wrong.append(f"architectures: must name the model's class, got: `{architectures}`")
    heads = _whole(config, wrong, "num_attention_heads", "n_head")
    hidden = _whole(config, wrong, "hidden_size", "n_embd", "d_model")
    facts: dict[str, Any] = {
        "attentionHeads": heads,
        "keyValueHeads": _whole(config, wrong, "num_key_value_heads", default=heads or 1),
        "layers": _whole(config, wrong, "num_hidden_layers", "n_layer"),
        "hiddenSize": hidden,
        "maxModelLength": _whole(config, wrong, "max_position_embeddings", "n_positions", "seq_length"),
        "vocabularySize": _whole(config, wrong, "vocab_size"),
        "architecture": architectures[0] if isinstance(architectures, list) and architectures else None,
        "dtype": config.get("dtype") or config.get("torch_dtype"),
    }
    latent = _optional(config, wrong, "kv_lora_rank")
    if latent is not None:
        facts["mla"] = {"kvLoraRank": latent, "qkRopeHeadSize": _whole(config, wrong, "qk_rope_head_dim")}
    elif heads and hidden:
        size = _optional(config, wrong, "head_dim")
        if size is None and hidden % heads:
            wrong.append(f"hidden_size: must be a multiple of num_attention_heads `{heads}` where head_dim is not given, got: `{hidden}`")
        facts["headSize"] = size or hidden // heads
        if heads % facts["keyValueHeads"]:
            wrong.append(f"num_key_value_heads: must divide num_attention_heads `{heads}`, got: `{facts['keyValueHeads']}`")
    if config.get("use_sliding_window", True) and (window := _optional(config, wrong, "sliding_window")):
        facts["slidingWindow"] = window
        facts |= _full_attention(config, facts["layers"])
    if experts := _optional(config, wrong, "num_local_experts", "n_routed_experts", "num_experts"):
        active = _whole(config, wrong, "num_experts_per_tok", "num_experts_per_token", "top_k_experts")
        facts |= {"experts": experts, "expertsPerToken": active}
        if active and active > experts:
            wrong.append(f"num_experts_per_tok: must not exceed the number of experts `{experts}`, got: `{active}`")
    # An expert's, where there are experts: that is what is divided among GPUs.
    inner_size = _optional(config, wrong, *(["moe_intermediate_size"] if experts else []), "intermediate_size", "n_inner")
    facts |= {"intermediateSize": inner_size} if inner_size else {}
    facts |= _quantization(config, wrong)
    return facts, wrong


def _full_attention(config: Config, layers: int | None) -> dict[str, Any]:
    """Layers without the window; nothing where config.json does not tell which they are."""
    types, pattern = config.get("layer_types"), config.get("sliding_window_pattern")
    if isinstance(types, list):
        return {"fullAttentionLayers": sum(each != "sliding_attention" for each in cast(list[Any], types))}
    if type(pattern) is int and pattern >= 1 and layers:
        # Every so many layers one looks at everything.
        return {"fullAttentionLayers": layers // pattern}
    return {} if "max_window_layers" in config else {"fullAttentionLayers": 0}


def _quantization(config: Config, wrong: list[str]) -> dict[str, Any]:
    given = config.get("quantization_config")
    if given is None:
        return {}
    if not (isinstance(given, dict) and isinstance(method := cast(Config, given).get("quant_method"), str)):
        wrong.append("quantization_config: must be an object with quant_method")
        return {}
    problems: list[str] = []
    bits = _optional(cast(Config, given), problems, "bits")
    wrong += [f"quantization_config.{problem}" for problem in problems]
    return {"quantization": {"method": method, **({"bits": bits} if bits else {})}}


_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
# Of encoders and of heads that predict further tokens; their sizes are their own.
_OTHER_PARTS = re.compile(r"(^|\.)(vision|visual|audio|mtp|encoder)[^.]*\.")


def _against_tensors(facts: Mapping[str, Any], tensors: Header) -> list[str]:
    """What the shapes of a few tensors say against config.json. Tensors of names that are not known say nothing."""
    wrong: list[str] = []
    own = {key: tensor for key, tensor in tensors.items() if not _OTHER_PARTS.search(key)}
    # A model may have more: DeepSeek's last one predicts further tokens and is not counted.
    layers = {int(found[1]) for key in own if (found := _LAYER.search(key))}
    # Not by listing the missing ones: config.json may claim any number of layers.
    missing = facts["layers"] - sum(layer < facts["layers"] for layer in layers)
    if layers and missing:
        first = next(layer for layer in itertools.count() if layer not in layers)
        more = f" (and {missing - 1} more)" if missing > 1 else ""
        wrong.append(f"{CONFIG}: num_hidden_layers: is `{facts['layers']}`, but no weights of layer {first} are there{more}")
    wanted = {r"(^|\.)(embed_tokens|wte|word_embeddings)\.weight$": ("vocab_size", "hidden_size", facts["vocabularySize"], facts["hiddenSize"])}
    if "headSize" in facts:
        keys = facts["keyValueHeads"] * facts["headSize"]
        wanted[r"(^|\.)layers\.0\.self_attn\.k_proj\.weight$"] = ("num_key_value_heads * head_dim", "hidden_size", keys, facts["hiddenSize"])
    for pattern, (rows, columns, *shape) in wanted.items():
        for key, tensor in own.items():
            # A packed or scaled tensor has another shape than the matrix it stands for.
            if re.search(pattern, key) and tensor.dtype in FLOATS and list(tensor.shape) != shape:
                wrong.append(f"{CONFIG}: {rows}, {columns} give `{shape}` for {key}, its weights have the shape `{list(tensor.shape)}`")
    return wrong


_SCALES = re.compile(r"(scale|scales|scale_inv|scale_2|zeros|zero_point|g_idx|absmax|quant_map|weight_shape|rotary_emb\.inv_freq)$")
_PACKED = re.compile(r"(qweight|weight_packed)$")


def _parameters(tensors: Header, facts: Mapping[str, Any]) -> int:
    """Weights, as the model's card counts them: those packed into wider numbers one by one, scales not at all."""
    bits = facts.get("quantization", {}).get("bits", 4)
    count = 0
    for key, tensor in tensors.items():
        if _SCALES.search(key):
            continue
        if _PACKED.search(key) and tensor.dtype in {"I32", "U8", "I8"}:
            count += 8 * tensor.size // bits
        elif key.endswith("_blocks") and tensor.dtype == "U8":
            count += 2 * tensor.elements
        else:
            count += tensor.elements
    return count
