"""What a stack declares, as rules see it: plain objects, each also as every cluster gets it.

The hub's objects ride to the members inside Karmada's propagation and are changed there by override policies. A rule that
looked at the hub alone would miss what an override puts in.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from policies.settings import Settings
from specs.fleet import FleetSpec

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

# Override policies of Karmada, in the order in which it applies them; the first may change objects of any namespace.
_OVERRIDES = ("ClusterOverridePolicy", "OverridePolicy")
# Overriders that change nothing that a rule judges.
_HARMLESS = ("annotationsOverrider", "labelsOverrider")
_OPERATORS = ("add", "remove", "replace")
# With these changed an object is another one.
_IDENTITY = ("/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace")


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
            yield from self.changed(each)

    def in_cluster(self, target: Placed, cluster: str) -> Placed:
        """`target` as `cluster` gets it."""
        return next((each for each in self.changed(target) if each.cluster == cluster), replace(target, cluster=cluster))

    def changed(self, target: Placed) -> list[Placed]:
        """`target` as those clusters get it where an override policy changes it."""
        key = f"{target.resource.urn or target.resource.name}\0{target}"
        if key not in self._variants:
            self._variants[key] = list(self._variants_of(target))
        return self._variants[key]

    def _variants_of(self, target: Placed) -> Iterator[Placed]:
        rules = [(self.reached(rule.get("targetCluster")), rule) for policy in self._overrides if closeness(policy, target) for rule in _rules(policy)]
        changing = [(clusters, mappings(at(rule, "overriders", "plaintext"))) for clusters, rule in rules]
        for cluster in dict.fromkeys(name for clusters, changes in changing if changes for name in clusters):
            body = copy.deepcopy(target.body)
            for clusters, changes in changing:
                if cluster in clusters:
                    for each in changes:
                        _apply(body, each)
            yield Placed(resource=target.resource, body=body, cluster=cluster)

    def reached(self, affinity: Any) -> list[str]:
        """The members that a ClusterAffinity of Karmada means; all where it is empty. By what the stack file says of them."""
        names, excluded = items(at(affinity, "clusterNames")), items(at(affinity, "exclude"))
        if self.spec is None:
            return [each for each in names if isinstance(each, str)]
        return [
            each.name
            for each in self.spec.clusters
            if (not names or each.name in names)
            and each.name not in excluded
            and matches(at(affinity, "labelSelector"), each.labels)
            and matches(at(affinity, "fieldSelector"), {"provider": each.provider, "region": each.region, "zone": each.zone})
        ]

    @cached_property
    def _overrides(self) -> list[Placed]:
        return sorted(self.of_kind(*_OVERRIDES), key=lambda each: (_OVERRIDES.index(each.kind), each.name))

    @cached_property
    def opaque_overrides(self) -> list[tuple[Placed, str]]:
        """Override policies that cannot be followed here, each with what is in the way."""
        return [(policy, why) for policy in self._overrides for rule in _rules(policy) for why in _opaque(rule)]


def _rules(policy: Placed) -> list[Object]:
    """Rules of an override policy, also in the older form that has one of them without a list."""
    spec = mapping(policy.body.get("spec"))
    return mappings(spec.get("overrideRules")) or [spec]


def _opaque(rule: Mapping[str, Any]) -> Iterator[str]:
    overriders = mapping(rule.get("overriders"))
    yield from (f"`{key}`" for key, told in overriders.items() if told and key not in ("plaintext", *_HARMLESS))
    for each in mappings(overriders.get("plaintext")):
        operator, path = each.get("operator"), text(each.get("path"))
        if operator not in _OPERATORS:
            yield f"`plaintext` with the operator `{operator}`"
        if not path.startswith("/") or path in _IDENTITY:
            yield f"`plaintext` with the path `{path}`"


def closeness(policy: Placed, target: Placed) -> int:
    """How closely a policy of Karmada selects an object, as Karmada ranks it: 3 by name, 2 by labels, 1 by kind, 0 not at all."""
    selectors = at(policy.body, "spec", "resourceSelectors")
    own = policy.namespace if not policy.kind.startswith("Cluster") else ""
    if not selectors:
        # An override policy that selects nothing is for everything.
        return int(policy.kind in _OVERRIDES and own in ("", target.namespace))
    return max((_closeness(each, own or text(each.get("namespace")), target) for each in mappings(selectors)), default=0)


def _closeness(selector: Object, namespace: str, target: Placed) -> int:
    if (selector.get("apiVersion"), selector.get("kind")) != (target.body.get("apiVersion"), target.kind) or namespace not in ("", target.namespace):
        return 0
    if selector.get("name"):
        return 3 if selector["name"] == target.name else 0
    if not selector.get("labelSelector"):
        return 1
    return 2 if matches(selector["labelSelector"], mapping(at(target.body, "metadata", "labels"))) else 0


def matches(selector: Any, labels: Mapping[str, Any]) -> bool:
    """Whether a selector of Kubernetes takes what has these labels; an empty one takes all."""
    demanded = [{"key": key, "operator": "In", "values": [value]} for key, value in mapping(at(selector, "matchLabels")).items()]
    return all(_demand(each, labels) for each in [*demanded, *mappings(at(selector, "matchExpressions"))])


def _demand(demand: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    held, operator = labels.get(text(demand.get("key"))), demand.get("operator")
    if operator in ("In", "NotIn"):
        return (held is not None and held in items(demand.get("values"))) == (operator == "In")
    return (held is not None) == (operator == "Exists")


def _apply(body: Object, change: Mapping[str, Any]) -> None:
    """A plaintext override, which is a JSON patch. One whose pointer leads nowhere is left out: Karmada fails that copy."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in text(change.get("path")).removeprefix("/").split("/")]
    operator, value = change.get("operator"), copy.deepcopy(change.get("value"))
    holder: Any = body
    try:
        for part in way:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        if isinstance(holder, list):
            entries = cast(list[Any], holder)
            place = len(entries) if last == "-" else int(last)
            if operator == "add":
                entries.insert(place, value)
            else:
                entries[place : place + 1] = [value] * (operator == "replace" and place < len(entries))
        elif operator == "remove":
            del holder[last]
        else:
            # Karmada refuses to replace a field that is not there. Judged as if it took it: no harm, and no doubt.
            holder[last] = value
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


def number(value: Any, otherwise: float = 0) -> float:
    """A number, `otherwise` for anything else."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in it, by its path such as `spec.hosts[0]`."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, each in cast(dict[str, Any], value).items():
            yield from texts(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, each in enumerate(cast(list[Any], value)):
            yield from texts(each, f"{path}[{place}]")
