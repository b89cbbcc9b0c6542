"""Istio's routing as rules see it."""

from collections.abc import Iterator

from policies.declared import Object, at, mapping, mappings


def traffic_policies(rule: Object) -> Iterator[tuple[str, Object]]:
    """Traffic policies of a DestinationRule, each with its place. Blocks of a subset or port take the place of the whole's, one by one."""
    whole = mapping(at(rule, "spec", "trafficPolicy"))
    yield "trafficPolicy", whole
    yield from _ports("trafficPolicy", whole)
    for each in mappings(at(rule, "spec", "subsets")):
        where, own = f"subset `{each.get('name')}`", mapping(each.get("trafficPolicy"))
        yield where, {**whole, **own}
        yield from _ports(where, own)


def _ports(where: str, policy: Object) -> Iterator[tuple[str, Object]]:
    for place, each in enumerate(mappings(policy.get("portLevelSettings"))):
        yield f"{where}.portLevelSettings[{place}]", each


def covers(host: str, name: str) -> bool:
    """Whether a host of Istio's, which may begin with `*`, is for `name`."""
    return host == name or (host.startswith("*") and name.endswith(host[1:]))
