"""What a stack declares, as rules see it: plain objects, each also as every cluster gets it.

The hub's objects ride to the members inside Karmada's propagation and are changed there by override policies. A rule that
looked at the hub alone would miss what an override puts in.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from components.fleet_spec import FleetSpec
from policies.settings import Settings

Object = dict[str, Any]


class _Unknown:
    """Stands for a value that the preview does not know yet. It equals nothing and holds nothing."""

    def __repr__(self) -> str:
        return "(not known yet)"

    def __bool__(self) -> bool:
        return False

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Unknown":
        return self


UNKNOWN: Any = _Unknown()

# Override policies of Karmada; the second may also change objects of other namespaces.
_OVERRIDES = ("OverridePolicy", "ClusterOverridePolicy")
# Overriders that change nothing that a rule judges.
_HARMLESS = ("annotationsOverrider", "labelsOverrider")


@dataclass(frozen=True, kw_only=True, eq=False)
class Resource:
    """One resource of the engine; it equals only itself. `props` is plain data, with UNKNOWN where the preview knows no value."""

    type: str
    name: str
    props: Object
    urn: str = ""
    protected: bool = False
    """Whether the engine refuses to delete it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A Kubernetes object as one cluster gets it."""

    resource: Resource
    body: Object
    cluster: str = ""
    """Empty for the object as it stands on the hub, which is what most members get."""

    @property
    def kind(self) -> str:
        return text(self.body.get("kind"))

    @property
    def name(self) -> str:
        return text(at(self.body, "metadata", "name")) or self.resource.name

    @property
    def namespace(self) -> str:
        return text(at(self.body, "metadata", "namespace"))

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Everything a rule may look at."""

    name: str
    resources: Sequence[Resource]
    settings: Settings
    spec: FleetSpec | None = None
    """The stack file; None where it could not be read, which the program itself refuses."""
    deployed_cost: float | None = None
    """What the stack costs in a month before the change; None where nobody said."""
    _variants: dict[str, list[Placed]] = field(default_factory=dict[str, list[Placed]], compare=False, repr=False)

    @cached_property
    def objects(self) -> list[Placed]:
        """The Kubernetes objects as declared. What a Work of Karmada carries is unpacked."""
        found = [Placed(resource=each, body=each.props) for each in self.resources if each.type.startswith("kubernetes:") and "kind" in each.props]
        carried = [
            Placed(resource=each.resource, body=cast(Object, body))
            for each in found
            if each.kind == "Work" and text(each.body.get("apiVersion")).startswith("work.karmada.io/")
            for body in items(at(each.body, "spec", "workload", "manifests"))
            if isinstance(body, dict)
        ]
        return found + carried

    def of_kind(self, *kinds: str) -> list[Placed]:
        """Objects as declared. Several groups may have one kind; a rule that minds looks at apiVersion."""
        return [each for each in self.objects if each.kind in kinds]

    def placed(self, *kinds: str) -> Iterator[Placed]:
        """The same, each also as the clusters get it where an override policy changes it."""
        for each in self.of_kind(*kinds):
            yield each
            yield from self._changed(each)

    def in_cluster(self, target: Placed, cluster: str) -> Placed:
        """`target` as `cluster` gets it."""
        return next((each for each in self._changed(target) if each.cluster == cluster), target)

    def _changed(self, target: Placed) -> list[Placed]:
        key = f"{target.resource.urn or target.resource.name}\0{target}"
        if key not in self._variants:
            self._variants[key] = list(self._variants_of(target))
        return self._variants[key]

    def _variants_of(self, target: Placed) -> Iterator[Placed]:
        rules = [rule for policy in self._overrides if _selects(policy, target) for rule in items(at(policy.body, "spec", "overrideRules"))]
        clusters = dict.fromkeys(name for rule in rules for name in clusters_of(rule))
        for cluster in clusters:
            body = copy.deepcopy(target.body)
            for rule in rules:
                if cluster in clusters_of(rule):
                    for each in items(at(rule, "overriders", "plaintext")):
                        _apply(body, mapping(each))
            yield Placed(resource=target.resource, body=body, cluster=cluster)

    @cached_property
    def _overrides(self) -> list[Placed]:
        return self.of_kind(*_OVERRIDES)

    @cached_property
    def opaque_overrides(self) -> list[tuple[Placed, str]]:
        """Override policies that cannot be followed here, each with what is in the way."""
        return [(policy, why) for policy in self._overrides for rule in items(at(policy.body, "spec", "overrideRules")) for why in _opaque(mapping(rule))]


def clusters_of(rule: Any) -> list[str]:
    """The clusters that a rule of an override policy names."""
    return [each for each in items(at(rule, "targetCluster", "clusterNames")) if isinstance(each, str)]


def _opaque(rule: Mapping[str, Any]) -> Iterator[str]:
    overriders = mapping(rule.get("overriders"))
    told = [key for key in overriders if key not in ("plaintext", *_HARMLESS)]
    yield from (f"`{key}`" for key in told)
    plain = items(overriders.get("plaintext"))
    yield from (f"`plaintext` with the operator `{each['operator']}`" for each in map(mapping, plain) if each.get("operator") not in ("replace", "add"))
    if (plain or told) and not clusters_of(rule):
        yield "clusters that are not named by `targetCluster.clusterNames`"


def _selects(policy: Placed, target: Placed) -> bool:
    labels = mapping(at(target.body, "metadata", "labels"))
    for each in map(mapping, items(at(policy.body, "spec", "resourceSelectors"))):
        if (each.get("apiVersion"), each.get("kind")) != (target.body.get("apiVersion"), target.kind):
            continue
        namespace = policy.namespace if policy.kind == "OverridePolicy" else each.get("namespace")
        if namespace and namespace != target.namespace:
            continue
        if each.get("name"):
            if each["name"] == target.name:
                return True
            continue
        if mapping(at(each, "labelSelector", "matchLabels")).items() <= labels.items():
            return True
    return False


def _apply(body: Object, change: Mapping[str, Any]) -> None:
    """A plaintext override. One whose pointer leads nowhere is left out: Karmada fails that copy."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in text(change.get("path")).removeprefix("/").split("/")]
    holder: Any = body
    try:
        for part in way:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        holder[int(last) if isinstance(holder, list) else last] = copy.deepcopy(change.get("value"))
    except (KeyError, IndexError, TypeError, ValueError):
        return


def at(value: Any, *path: str | int) -> Any:
    """What lies at `path`, None where something on the way is missing or not known."""
    for part in path:
        if isinstance(value, dict) and isinstance(part, str):
            value = cast(Object, value).get(part)
        elif isinstance(value, list) and isinstance(part, int):
            holder = cast(list[Any], value)
            value = holder[part] if part < len(holder) else None
        else:
            return None
    return value


def text(value: Any) -> str:
    """A text, "" for anything else."""
    return value if isinstance(value, str) else ""


def items(value: Any) -> list[Any]:
    """A list, [] for anything else."""
    return cast(list[Any], value) if isinstance(value, list) else []


def mapping(value: Any) -> Object:
    """A mapping, {} for anything else."""
    return cast(Object, value) if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Object]:
    """The mappings of a list."""
    return [mapping(each) for each in items(value) if isinstance(each, dict)]
