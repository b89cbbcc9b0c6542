"""The header of a safetensors file: which tensors it holds, and whether they lie where it says. No tensor is read.

The file is eight bytes of header length, the header as JSON, then the numbers of all tensors without a gap.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeGuard, cast

from core.errors import FleetError

# The format's own limit; a longer header is a file of another kind.
_HEADER_LIMIT = 100_000_000
# Bits of one element.
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Types whose elements are weights as they are, neither packed nor scaled."""


@dataclass(frozen=True)
class Tensor:
    """dtype as the format writes it, e.g. BF16; size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


Header = Mapping[str, Tensor]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"`{twice[0]}` is there twice")
    return dict(pairs)


def read_header(name: str, stream: IO[bytes], size: int) -> Header:
    """Tensors by name. `size`: of the whole file in bytes. Raises FleetError that names the file."""
    start = stream.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
        raise FleetError(f"{name}: is no safetensors file: its first 8 bytes must be the length of its header", hint="is it an LFS pointer or cut off?")
    try:
        header = json.loads(stream.read(length), object_pairs_hook=_once)
        if not isinstance(header, dict):
            raise ValueError("it must be a JSON object")
        read = [(key, *_tensor(key, value)) for key, value in cast(dict[str, Any], header).items() if key != "__metadata__"]
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{name}: its safetensors header cannot be read: {error}") from None
    end = 0
    for key, tensor, begin in sorted(read, key=lambda each: (each[2], each[1].size)):
        if begin != end:
            raise FleetError(f"{name}: tensor `{key}` must begin at byte {end} of the data, where the one before it ends, got: `{begin}`")
        end += tensor.size
    if end != size - 8 - length:
        raise FleetError(
            f"{name}: its tensors take {end} bytes, but {size - 8 - length} follow its header", hint="the file is cut off or was joined with another"
        )
    return {key: tensor for key, tensor, _ in read}


def _tensor(key: str, value: Any) -> tuple[Tensor, int]:
    """The tensor and its first byte. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"tensor `{key}`: must be an object, got: `{value}`")
    dtype, shape, place = (cast(dict[str, Any], value).get(each) for each in ("dtype", "shape", "data_offsets"))
    if not (isinstance(dtype, str) and dtype in _BITS):
        raise ValueError(f"tensor `{key}`: no such dtype: `{dtype}`")
    if not (_numbers(shape) and _numbers(place) and len(place) == 2):
        raise ValueError(f"tensor `{key}`: shape and data_offsets must be lists of whole numbers from 0, got: `{shape}` and `{place}`")
    tensor = Tensor(dtype, tuple(shape), place[1] - place[0])
    if tensor.elements * _BITS[dtype] != 8 * tensor.size:
        raise ValueError(f"a {dtype} of shape {shape} takes {tensor.elements * _BITS[dtype] // 8} bytes, its data_offsets give {tensor.size}")
    return tensor, place[0]


def _numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in cast(list[Any], value))
