"""Model directories of a few kilobytes, right in every way, for tests that break one thing."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BYTES = {"BF16": 2, "F32": 4, "I32": 4, "U8": 1}

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 16,
    "max_position_embeddings": 128,
    "dtype": "bfloat16",
}
TENSORS: dict[str, tuple[str, list[int]]] = {
    "model.embed_tokens.weight": ("BF16", [16, 8]),
    "model.layers.0.self_attn.k_proj.weight": ("BF16", [4, 8]),
    "model.layers.1.self_attn.k_proj.weight": ("BF16", [4, 8]),
}


def safetensors(tensors: Mapping[str, tuple[str, list[int]]], fill: int = 0) -> bytes:
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return framed(header, bytes([fill]) * end)


def framed(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """A file of this header and these numbers, whether they fit each other or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_model(folder: Path, config: Mapping[str, Any] | None = None, files: Mapping[str, bytes | None] | None = None) -> Path:
    """config: instead of or beside the entries of CONFIG, None takes one away; files: likewise."""
    merged = {key: value for key, value in {**CONFIG, **(config or {})}.items() if value is not None}
    whole: dict[str, bytes | None] = {
        "config.json": json.dumps(merged).encode(),
        "model.safetensors": safetensors(TENSORS),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "x"}',
        "LICENSE": b"All may use it.\n",
        **(files or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in whole.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())
