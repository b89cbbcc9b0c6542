"""No timeout of a route cuts an answer that is still being generated.

Why: a request timeout counts until the last token. Long generations are no fault, and what looks like one is cut in the middle
of its stream, with status 200; PINGs and active health checks find a dead region without it.

Fix: take `timeout` and `retries.perTryTimeout` out of the route and `maxConnectionDuration` out of the DestinationRule, or set them
to an hour or more.
"""

import re
from collections.abc import Iterator

from policies.declared import Object, Stack, at, mappings, number, text, texts
from policies.istio import traffic_policies
from policies.rule import Finding

_LONGEST_SECONDS = 3600.0
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """Of Istio's and the Gateway API's form, such as `1m30s`."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|ms|s|m|h)", duration))


# In the parts of Envoy's configuration that an EnvoyFilter puts in: what ends a stream or its connection by the clock.
_OF_ENVOY = ("max_connection_duration", "max_stream_duration", "request_timeout")


def _timeouts(kind: str, body: Object) -> Iterator[tuple[str, str]]:
    if kind == "VirtualService":
        for place, route in enumerate(mappings(at(body, "spec", "http"))):
            yield f"http[{place}].timeout", text(route.get("timeout"))
            yield f"http[{place}].retries.perTryTimeout", text(at(route, "retries", "perTryTimeout"))
    elif kind == "DestinationRule":
        for where, part in traffic_policies(body):
            yield f"{where}.connectionPool.tcp.maxConnectionDuration", text(at(part, "connectionPool", "tcp", "maxConnectionDuration"))
    elif kind == "InferenceService":
        # Seconds. KServe makes them a timeout of its route.
        yield "predictor.timeout", f"{number(at(body, 'spec', 'predictor', 'timeout')):g}s"
    elif kind == "EnvoyFilter":
        yield from ((path, value) for path, value in texts(body) if path.rpartition(".")[2] in _OF_ENVOY)
    else:
        for place, rule in enumerate(mappings(at(body, "spec", "rules"))):
            for field in ("request", "backendRequest"):
                yield f"rules[{place}].timeouts.{field}", text(at(rule, "timeouts", field))


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.placed("VirtualService", "HTTPRoute", "DestinationRule", "InferenceService", "EnvoyFilter"):
        for where, value in _timeouts(each.kind, each.body):
            if 0 < seconds(value) < _LONGEST_SECONDS:
                yield Finding(says=f"`{where}` cuts streams, got: `{value}`", on=each)
