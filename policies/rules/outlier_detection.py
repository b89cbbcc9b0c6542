"""Where requests fail over between regions, outlier detection stands beside it.

Why: Istio's locality failover does nothing without it, and says nothing: all requests for a dead region go on to it.

Fix: set `trafficPolicy.outlierDetection` in the DestinationRule of the host.
"""

from collections.abc import Iterator

from policies.declared import Object, Stack, at, items, mapping, mappings, number, text
from policies.istio import covers, traffic_policies
from policies.rule import Finding

# Errors in a row after which Istio ejects, where nothing else is said.
_DEFAULT_COUNT = 5


def _detects(policy: Object) -> bool:
    """Whether anything ejects. 0 turns a count off; where nothing is said, gateway errors count for nothing."""
    detection = mapping(policy.get("outlierDetection"))
    counts = ["consecutive5xxErrors", *(["consecutiveLocalOriginFailures"] if detection.get("splitExternalLocalOriginErrors") else [])]
    default = any(number(detection.get(each), _DEFAULT_COUNT) for each in counts)
    return bool(detection) and (default or bool(number(detection.get("consecutiveGatewayErrors"))))


def check(stack: Stack) -> Iterator[Finding]:
    guarded: set[str] = set()
    for each in stack.placed("DestinationRule"):
        for where, part in traffic_policies(each.body):
            locality = mapping(at(part, "loadBalancer", "localityLbSetting"))
            fails_over = locality.get("enabled") is not False and any(locality.get(key) for key in ("failover", "failoverPriority", "distribute"))
            if fails_over and not _detects(part):
                what = "outlierDetection that ejects for nothing" if part.get("outlierDetection") else "no outlierDetection"
                yield Finding(says=f"{where} chooses regions by localityLbSetting, and has {what}", on=each)
            if _detects(part) or fails_over:
                guarded.add(text(at(each.body, "spec", "host")))
    for each in stack.of_kind("ServiceEntry"):
        localities = {text(endpoint.get("locality")).split("/")[0] for endpoint in mappings(at(each.body, "spec", "endpoints"))} - {""}
        hosts = [text(host) for host in items(at(each.body, "spec", "hosts"))]
        if len(localities) > 1 and not any(covers(held, host) for held in guarded for host in hosts):
            says = f"has endpoints in {len(localities)} regions, and no DestinationRule with outlierDetection names its host"
            yield Finding(says=says, on=each)
