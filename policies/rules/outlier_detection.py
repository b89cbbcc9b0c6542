"""Where requests fail over between regions, outlier detection stands beside it.

Why: Istio's locality failover does nothing without it, and says nothing: all requests for a dead region go on to it.

Mend: set `trafficPolicy.outlierDetection` in the DestinationRule of the host.
"""

from collections.abc import Iterator

from policies.declared import Object, Stack, at, items, mapping, mappings, text
from policies.rule import Finding


def _parts(rule: Object) -> Iterator[tuple[str, Object]]:
    """Traffic policies of a rule, each with its place. A subset's or port's blocks take the place of the whole's, one by one."""
    whole = mapping(at(rule, "spec", "trafficPolicy"))
    yield "trafficPolicy", whole
    for place, each in enumerate(mappings(whole.get("portLevelSettings"))):
        yield f"trafficPolicy.portLevelSettings[{place}]", each
    for each in mappings(at(rule, "spec", "subsets")):
        yield f"subset `{each.get('name')}`", {**whole, **mapping(each.get("trafficPolicy"))}


def check(stack: Stack) -> Iterator[Finding]:
    guarded: set[str] = set()
    for each in stack.placed("DestinationRule"):
        for where, part in _parts(each.body):
            locality = mapping(at(part, "loadBalancer", "localityLbSetting"))
            fails_over = locality.get("enabled") is not False and any(locality.get(key) for key in ("failover", "failoverPriority", "distribute"))
            if fails_over and not part.get("outlierDetection"):
                says = f"{where} chooses regions by localityLbSetting, and has no outlierDetection"
                yield Finding(says=says, on=each)
            if part.get("outlierDetection") or fails_over:
                guarded.add(text(at(each.body, "spec", "host")))
    for each in stack.of_kind("ServiceEntry"):
        localities = {text(endpoint.get("locality")).split("/")[0] for endpoint in mappings(at(each.body, "spec", "endpoints"))} - {""}
        if len(localities) > 1 and not guarded & {text(host) for host in items(at(each.body, "spec", "hosts"))}:
            says = f"has endpoints in {len(localities)} regions, and no DestinationRule with outlierDetection names its host"
            yield Finding(says=says, on=each)
