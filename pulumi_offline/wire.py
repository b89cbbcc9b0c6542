"""Property values between the engine and a plugin: plain Python with two marks, Secret and UNKNOWN.

The engine wraps what JSON cannot say in objects with a signature key. The signatures are part of Pulumi's wire
protocol (SDK: pulumi/runtime/rpc.py). Whole numbers come back as int, since Kubernetes tells 1 from 1.0. Nulls in
objects are dropped: to Kubernetes a null field is an absent one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import struct_pb2

Properties = dict[str, Any]

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_ASSETS = {"c44067f5952c0a294b673a41bacd8c17": "asset", "0def7320c3a5731c473e5ecbe6d01bc7": "archive"}
_RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
# One text stands for every unknown value, whatever its type will be.
_UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


class WireError(Exception):
    """A kind of value that the offline plugins do not cover, such as an asset."""


class Unknown:
    """Type of UNKNOWN: a value that is known only after the update."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, _memo: object) -> "Unknown":
        return self


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that the engine keeps encrypted. `repr` hides it, so that no log line can show it by accident."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


def load(struct: struct_pb2.Struct) -> Properties:
    """The properties in a message. Raises WireError for assets, archives and resource references."""
    return {key: value for key, raw in struct.fields.items() if (value := _load(raw)) is not None}


def _load(raw: struct_pb2.Value) -> Any:
    kind = raw.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if raw.string_value == _UNKNOWN_TEXT else raw.string_value
    if kind == "number_value":
        number = raw.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return raw.bool_value
    if kind == "list_value":
        return [_load(item) for item in raw.list_value.values]
    if kind == "struct_value":
        fields = raw.struct_value.fields
        if _SIGNATURE in fields:
            return _load_special(fields)
        return load(raw.struct_value)
    return None


def _load_special(fields: Mapping[str, struct_pb2.Value]) -> Any:
    signature = fields[_SIGNATURE].string_value
    if signature == _SECRET:
        return Secret(_load(fields["value"]))
    if signature == _OUTPUT:
        value = _load(fields["value"]) if "value" in fields else UNKNOWN
        return Secret(value) if "secret" in fields and fields["secret"].bool_value else value
    if signature == _RESOURCE:
        raise WireError("a resource was given where a value is expected\nhint: pass one of its outputs")
    raise WireError(f"a Pulumi {_ASSETS.get(signature, 'special value')} is not supported by the offline plugins")


def dump(properties: Properties) -> struct_pb2.Struct:
    """The reverse of load."""
    struct = struct_pb2.Struct()
    for key, value in properties.items():
        struct.fields[key].CopyFrom(_dump(value))
    return struct


def _dump(value: Any) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, Unknown):
        return struct_pb2.Value(string_value=_UNKNOWN_TEXT)
    if isinstance(value, Secret):
        return struct_pb2.Value(struct_value=dump({_SIGNATURE: _SECRET, "value": value.value}))
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, dict):
        return struct_pb2.Value(struct_value=dump(value))
    return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_dump(item) for item in value]))


def plain(value: Any) -> Any:
    """A deep copy without the Secret marks. UNKNOWN stays."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return isinstance(value, Unknown)


def has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_secret(item) for item in value.values())
    if isinstance(value, list):
        return any(has_secret(item) for item in value)
    return isinstance(value, Secret)
