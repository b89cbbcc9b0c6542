"""pins.toml as a typed object. Standard library only: the bootstrap reads it before anything is installed."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("pins.toml")


class PinsError(Exception):
    """pins.toml lacks a pin or has one that nothing reads."""


@dataclass(frozen=True)
class Pins:
    """Versions without a leading `v`."""

    pulumi_cli: str
    pulumi_sdk: str
    pulumi_kubernetes: str
    pulumi_kubernetes_module: str
    pulumi_command: str
    kubernetes: str
    etcd: str
    kwok: str
    kind: str
    helm: str
    karmada: str
    kserve: str
    istio: str
    envoy: str
    registry: str
    vllm: str
    vllm_gpu: str
    torch: str
    go: str
    uv: str


# Where a field stands in the file, where that is not its own name under the table named here.
_TABLES = {
    "pulumi": {
        "cli": "pulumi_cli",
        "sdk": "pulumi_sdk",
        "kubernetes": "pulumi_kubernetes",
        "kubernetes_module": "pulumi_kubernetes_module",
        "command": "pulumi_command",
    },
    "kubernetes": {"version": "kubernetes", "etcd": "etcd", "kwok": "kwok", "kind": "kind", "helm": "helm"},
    "fleet": {name: name for name in ("karmada", "kserve", "istio", "envoy")},
    "runtime": {name: name for name in ("registry", "vllm", "vllm_gpu", "torch")},
    "build": {name: name for name in ("go", "uv")},
}


def load(path: Path = FILE) -> Pins:
    """Raises PinsError that names every missing or unknown pin."""
    found = tomllib.loads(path.read_text())
    values: dict[str, str] = {}
    wrong: list[str] = []
    for table, fields in _TABLES.items():
        given = found.pop(table, {})
        for key, name in fields.items():
            value = given.pop(key, None)
            if isinstance(value, str) and value:
                values[name] = value
            else:
                wrong.append(f"{table}.{key}: must be a version, got: `{value}`")
        wrong += [f"{table}.{key}: is not a known pin" for key in given]
    wrong += [f"{table}: is not a known table" for table in found]
    if wrong:
        raise PinsError("\n".join(f"{path.name}: {line}" for line in wrong))
    return Pins(**values)


PINS = load()
