"""Environment, command and arguments of a container, as a kubelet resolves them. Pure but for the lookups passed in."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
# (kind, name) → the ConfigMap or Secret in the pod's namespace with values decoded, None where there is none.
Lookup = Callable[[str, str], "Mapping[str, str] | None"]

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")
_QUANTITY = re.compile(r"^([0-9.]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
_FACTORS = {
    "": 1,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    **{f"{letter}i": 1024 ** (power + 1) for power, letter in enumerate("KMGTP")},
}


class ConfigError(Exception):
    """The pod cannot be started as it is declared; it may become possible when an object it names appears."""


@dataclass(frozen=True)
class Facts:
    """What a pod may ask about itself.

    address: its loopback address, also told as status.podIP and status.hostIP. capacity: of the node, which stands in
    where a container has no limit.
    """

    pod: Object
    node: str
    address: str
    capacity: Mapping[str, str]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces $(NAME). Unknown names stay as they are and $$ is a plain $, as Kubernetes documents it."""

    def replacement(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replacement, text)


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number. Raises ConfigError."""
    match = _QUANTITY.match(text)
    if not match:
        raise ConfigError(f"not a quantity: `{text}`")
    return float(match.group(1)) * _FACTORS[match.group(2) or ""]


def field(path: str, facts: Facts) -> str:
    """What the downward API gives for a fieldPath. Raises ConfigError for one that it does not know."""
    metadata, spec = facts.pod["metadata"], facts.pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str((metadata.get(subscript.group(1)) or {}).get(subscript.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": facts.address,
        "status.podIPs": facts.address,
        "status.hostIP": facts.address,
        "status.hostIPs": facts.address,
    }
    if path not in known:
        raise ConfigError(f"fieldRef is not one that Kubernetes knows: `{path}`")
    return str(known[path])


def resource(reference: Object, container: Object, facts: Facts) -> str:
    """What the downward API gives for a resourceFieldRef: whole cores or bytes, rounded up, in units of `divisor`."""
    where, _, name = str(reference["resource"]).partition(".")
    resources = container.get("resources") or {}
    # Without a limit the node is the limit; without a request the limit is the request.
    value = (resources.get(where) or {}).get(name) or (resources.get("limits") or {}).get(name) or facts.capacity.get(name, "0")
    divisor = str(reference.get("divisor") or "1")
    divided = quantity(str(value)) / quantity("1" if divisor == "0" else divisor)
    return str(-int(-divided // 1))


def resolve(container: Object, facts: Facts, lookup: Lookup) -> dict[str, str]:
    """The container's own environment: envFrom first, then env in order, each seeing those before it.

    Raises ConfigError that names the missing object or key.
    """
    resolved: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for kind, reference in (("ConfigMap", source.get("configMapRef")), ("Secret", source.get("secretRef"))):
            if reference:
                for key, value in (_data(kind, reference, lookup) or {}).items():
                    resolved[f"{source.get('prefix', '')}{key}"] = value
    for entry in container.get("env") or []:
        value = _value(entry, container, facts, lookup, resolved)
        if value is not None:
            resolved[entry["name"]] = value
    return resolved


def _value(entry: Object, container: Object, facts: Facts, lookup: Lookup, before: Mapping[str, str]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(str(entry.get("value", "")), before)
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], facts)
    if "resourceFieldRef" in source:
        return resource(source["resourceFieldRef"], container, facts)
    for kind, name in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if name in source:
            reference = source[name]
            data = _data(kind, reference, lookup)
            if data is None:
                return None
            if reference["key"] not in data and not reference.get("optional"):
                raise ConfigError(f"{kind} `{reference['name']}` has no key `{reference['key']}`")
            return data.get(reference["key"])
    raise ConfigError(f"env {entry['name']}: the node agent does not know valueFrom of kind: `{', '.join(source)}`")


def _data(kind: str, reference: Object, lookup: Lookup) -> Mapping[str, str] | None:
    data = lookup(kind, reference["name"])
    if data is None and not reference.get("optional"):
        raise ConfigError(f"{kind} `{reference['name']}` does not exist")
    return data
