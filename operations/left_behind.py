"""Objects that Karmada left on a member though nothing on the hub asks for them any more.

Karmada deletes a member's object only if its own cache of that member knows it (1.18.2: pkg/util/objectwatcher/objectwatcher.go,
lines 214 to 218: not found in the cache means success). For up to a minute after a member's return that cache is old: what was
made and deleted meanwhile stays there for good, GPUs included.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from components.federation.propagation import INFERENCE_SERVICE, SHARED_KINDS
from kube.client import ApiError, Kube, Unreachable
from specs import labels, naming

_TIMEOUT_S = 5.0
_MANAGED = f"karmada.io/managed=true,{labels.LABEL_PART_OF}={labels.PART_OF}"
_KINDS = ((INFERENCE_SERVICE["apiVersion"], INFERENCE_SERVICE["kind"]), *SHARED_KINDS)

Object = dict[str, Any]


@dataclass(frozen=True)
class LeftBehind:
    """One object on one member that no Work of the hub stands for."""

    cluster: str
    api_version: str
    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} in {self.cluster}"


def is_left_behind(held: Object, space: str, works: frozenset[str]) -> bool:
    """Whether a member's object has outlived its Work. Karmada removes a Work only after it has seen to the object, so
    one without a Work waits for nothing.

    space: the member's namespace on the hub; an object of another one belongs to another hub. works: names of all Works there.
    """
    metadata = held["metadata"]
    notes = metadata.get("annotations") or {}
    name = notes.get("work.karmada.io/name", "")
    return bool(name) and notes.get("work.karmada.io/namespace") == space and name not in works and "deletionTimestamp" not in metadata


def _of_member(name: str, member: Kube, hub: Kube) -> Iterator[LeftBehind]:
    held = [each for api_version, kind in _KINDS for each in member.list(api_version, kind, label_selector=_MANAGED)]
    # After the objects: a Work that is made in between must not be missed, or a new object would be taken for an old one.
    space = naming.EXECUTION_SPACE + name
    works = frozenset(str(work["metadata"]["name"]) for work in hub.list("work.karmada.io/v1alpha1", "Work", space))
    for each in held:
        if is_left_behind(each, space, works):
            metadata = each["metadata"]
            yield LeftBehind(name, each["apiVersion"], each["kind"], metadata.get("namespace"), metadata["name"])


def find(kubeconfigs: Mapping[str, str], *, remove: bool = False) -> list[LeftBehind]:
    """What was left behind on every member that answers. `remove`: deletes it too.

    kubeconfigs: of the hub and the members, by name, as the stack outputs have them. Nothing is found without a hub.
    """
    found: list[LeftBehind] = []
    with ExitStack() as stack:
        hub = stack.enter_context(Kube.from_kubeconfig(kubeconfigs["hub"], timeout=_TIMEOUT_S))
        for name, kubeconfig in kubeconfigs.items():
            if name == "hub":
                continue
            member = stack.enter_context(Kube.from_kubeconfig(kubeconfig, timeout=_TIMEOUT_S))
            try:
                for each in _of_member(name, member, hub):
                    if remove:
                        member.delete(each.api_version, each.kind, each.name, each.namespace)
                    found.append(each)
            except (ApiError, Unreachable):
                # Away, or without these kinds yet: `fleet status` tells of it.
                continue
    return found
