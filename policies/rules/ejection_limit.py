"""Outlier detection may eject at least one endpoint of its pool, and the rest still counts as healthy.

Why: Istio's default ejects at most 10 percent, which of fewer than ten endpoints is none; a `minHealthPercent` that one ejection
undercuts sends requests to the ejected again.

Fix: set `maxEjectionPercent: 100` where each endpoint is a region, and leave `minHealthPercent` out.
"""

from collections.abc import Iterator

from policies.declared import Placed, Stack, at, items, mapping, mappings, number, text
from policies.istio import covers, traffic_policies
from policies.rule import Finding

# Istio's own.
_DEFAULT_PERCENT = 10
# Where nothing tells how many endpoints there are: the fewest with somewhere else to go.
_FEWEST = 2


def _endpoints(stack: Stack, rule: Placed) -> int:
    host = text(at(rule.body, "spec", "host"))
    for each in stack.of_kind("ServiceEntry"):
        if any(covers(host, text(name)) for name in items(at(each.body, "spec", "hosts"))):
            return len(mappings(at(each.body, "spec", "endpoints"))) or _FEWEST
    return _FEWEST


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.placed("DestinationRule"):
        for where, part in traffic_policies(each.body):
            detection = mapping(part.get("outlierDetection"))
            if not detection:
                continue
            endpoints = _endpoints(stack, each)
            percent = number(detection.get("maxEjectionPercent"), _DEFAULT_PERCENT)
            if endpoints * percent < 100:
                yield Finding(says=f"{where}: `maxEjectionPercent` ejects none of {endpoints} endpoints, got: `{percent:g}`", on=each)
            healthy = number(detection.get("minHealthPercent"))
            if endpoints > 1 and 100 * (endpoints - 1) < healthy * endpoints:
                yield Finding(says=f"{where}: `minHealthPercent` is undercut by one ejection of {endpoints} endpoints, got: `{healthy:g}`", on=each)
