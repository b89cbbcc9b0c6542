"""The regions of one model as front doors see them: in which order they are asked, and when one is left.

Each region is one priority of Envoy, so that every retry moves on to another. The numbers are failover.py; the paths that
lead there are routes.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.federation.overrides import override_policy
from specs import labels
from specs.failover import RequestFailoverSpec

# Host of a model between the doors. It exists only in the front doors' configuration, never in DNS.
FLEET_HOST = "{model}.fleet.internal"
# Port of the ServiceEntry.
FLEET_PORT = 80

# Requests under way that one gateway holds for one model, connections, and requests that wait for one: many times what the
# engines take, so that it is they who refuse. It bounds the memory of a gateway, at one prompt for each.
MOST_REQUESTS = 32_768

_ISTIO = "networking.istio.io/v1"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A regional gateway as front doors see it."""

    region: str
    address: pulumi.Input[str]
    port: pulumi.Input[int]


def regions_of(endpoints: Sequence[Endpoint]) -> list[str]:
    """Regions in the order of the endpoints, each once. Two clusters of a region are one step of a failover."""
    return list(dict.fromkeys(each.region for each in endpoints))


def failover_priority(order: Sequence[str]) -> list[str]:
    """Istio's priorities of regions in this order.

    Istio asks for the labels in turn, and puts an endpoint the further back the earlier it lacks one. Each label is lacking
    in one region only, so the list is the order of the regions, from the last to the second.
    """
    return [f"{_elsewhere(region)}=true" for region in reversed(order[1:])]


def _elsewhere(region: str) -> str:
    """The label that every endpoint carries but those in `region`. A region is as long as the name part of a label may be."""
    return f"not.{labels.PREFIX}{region}"


def own_first(order: Sequence[str], region: str) -> list[str]:
    """The order of a front door in `region`: its own region first if that serves the model."""
    return [region, *(each for each in order if each != region)] if region in order else list(order)


def service_entry(model: str, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The regional gateways that serve a model."""
    regions = sorted(regions_of(endpoints))
    return {
        "apiVersion": _ISTIO,
        "kind": "ServiceEntry",
        "metadata": labels.metadata(model, labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True),
        "spec": {
            "hosts": [FLEET_HOST.format(model=model)],
            # Outside the mesh: no mutual TLS is tried that the regional gateway could not answer.
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            # HTTP2 explicitly, as only then PINGs are sent.
            "ports": [{"number": FLEET_PORT, "name": "http2", "protocol": "HTTP2"}],
            "endpoints": [
                {
                    "address": each.address,
                    "ports": {"http2": each.port},
                    # Without a zone: with one, a region would be several priorities, and each costs a retry.
                    "locality": each.region,
                    "labels": {_elsewhere(region): "true" for region in regions if region != each.region},
                }
                for each in endpoints
            ],
        },
    }


def destination_rule(model: str, endpoints: Sequence[Endpoint], failover: RequestFailoverSpec) -> dict[str, Any]:
    """When and how a front door leaves a region. Doors in a region that serves the model get their own order by `order_overrides`."""
    order = regions_of(endpoints)
    ping = {"interval": f"{failover.ping_interval_milliseconds}ms", "timeout": f"{failover.ping_timeout_milliseconds}ms"}
    keepalive = {"time": "5s", "interval": "1s", "probes": 3}
    # One failed connection is enough, and all may be left alone: each is a whole cluster. With a single one there is nowhere
    # to go, and leaving it alone would only add to the outage.
    leave = {
        "outlierDetection": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 1,
            "consecutiveGatewayErrors": failover.gateway_errors,
            # A prompt that makes vLLM answer 500 must not cost a region.
            "consecutive5xxErrors": 0,
            "interval": "1s",
            "baseEjectionTime": f"{failover.ejection_seconds:g}s",
            "maxEjectionPercent": 100,
        },
    }
    in_order = {"loadBalancer": {"localityLbSetting": {"enabled": True, "failoverPriority": failover_priority(order)}}}
    return {
        "apiVersion": _ISTIO,
        "kind": "DestinationRule",
        "metadata": labels.metadata(model, labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True),
        "spec": {
            "host": FLEET_HOST.format(model=model),
            "trafficPolicy": {
                "connectionPool": {
                    "tcp": {"connectTimeout": f"{failover.connect_timeout_milliseconds}ms", "tcpKeepalive": keepalive},
                    "http": {"http2KeepAlive": ping, "http1MaxPendingRequests": MOST_REQUESTS, "http2MaxRequests": MOST_REQUESTS},
                },
                **(leave if len(endpoints) > 1 else {}),
                **(in_order if len(order) > 1 else {}),
            },
        },
    }


def order_overrides(model: str, endpoints: Sequence[Endpoint], clusters: Mapping[str, str]) -> dict[str, Any] | None:
    """Puts the own region first at the front doors of `clusters`, {cluster: region}. None where no order changes."""
    order = regions_of(endpoints)
    path = "/spec/trafficPolicy/loadBalancer/localityLbSetting/failoverPriority"
    changes = {cluster: {path: failover_priority(own_first(order, region))} for cluster, region in clusters.items() if region in order[1:]}
    if not changes:
        return None
    # placement.py has a policy that is named as the model, and no name of a model holds a dot.
    metadata = labels.metadata(f"{model}.order", labels.NAMESPACE_MODELS, component="mesh", model=model)
    selector = {"apiVersion": _ISTIO, "kind": "DestinationRule", "namespace": labels.NAMESPACE_MODELS, "name": model}
    return override_policy(metadata, selector, changes)
