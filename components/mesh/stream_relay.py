"""The stream relay as the mesh sees it: a process on loopback between a front door and its way to the regions.

front door → relay → the front door's egress listener → regions. Where the relay is away, the front door goes to its egress
by itself. What the relay does is dataplane/internal/relay; whether there is one is StreamsSpec.
"""

from collections.abc import Mapping
from typing import Any

import pulumi

from components.federation.overrides import override_policy
from components.mesh.gateways import EGRESS_PORT, LOOPBACK
from specs import labels
from specs.failover import RequestFailoverSpec, StreamsSpec

HOST = "relay.fleet.internal"
# Port of the ServiceEntry.
PORT = 80
# Where the relay of a front door listens, if it is not on one machine with others.
RELAY_PORT = 15481

# What the relay shall do with a request; it takes the header off. envoy_filters.py keeps callers from sending it.
POLICY_HEADER = "x-fleet-relay"

# Only these have answers of which a part is worth something.
RELAYED = ("POST /v1/chat/completions", "POST /v1/completions")

# Not in the namespace of the gateways: istiod takes an endpoint of that namespace, with the address of a gateway, for the
# gateway, and gives the gateway its labels. No name of a model holds a dot.
_NAMESPACE = labels.NAMESPACE_MODELS
_NAME = "fleet.stream-relay"
# The relay has it and the egress has not: so the relay comes first.
_LABEL = labels.PREFIX + "relay"
# Until a relay that was away is tried again. A try costs one refused connection on loopback.
AWAY_SECONDS = 5


def policy(failover: RequestFailoverSpec, streams: StreamsSpec) -> str:
    """Value of POLICY_HEADER."""
    return f"resume={str(streams.resume).lower()};idle={streams.idle_seconds:g};buffer={failover.body_buffer_bytes}"


def relay_entry() -> dict[str, Any]:
    """The relay, and behind it the egress listener for when it is away."""
    relay = {"address": LOOPBACK, "ports": {"http": RELAY_PORT}, "labels": {_LABEL: "true"}}
    egress = {"address": LOOPBACK, "ports": {"http": EGRESS_PORT}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": labels.metadata(_NAME, _NAMESPACE, component="mesh", propagate=True),
        "spec": {
            "hosts": [HOST],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": PORT, "name": "http", "protocol": "HTTP"}],
            "endpoints": [relay, egress],
        },
    }


def relay_rule(most_requests: int) -> dict[str, Any]:
    """When a front door goes past its relay: on the first connection that fails, never for what a region answered."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": labels.metadata(_NAME, _NAMESPACE, component="mesh", propagate=True),
        "spec": {
            "host": HOST,
            "trafficPolicy": {
                "connectionPool": {
                    "tcp": {"connectTimeout": "500ms", "maxConnections": most_requests},
                    "http": {"http1MaxPendingRequests": most_requests, "http2MaxRequests": most_requests},
                },
                "outlierDetection": {
                    "splitExternalLocalOriginErrors": True,
                    "consecutiveLocalOriginFailures": 1,
                    "consecutive5xxErrors": 0,
                    "interval": "1s",
                    "baseEjectionTime": f"{AWAY_SECONDS}s",
                    "maxEjectionPercent": 100,
                },
                "loadBalancer": {"localityLbSetting": {"enabled": True, "failoverPriority": [f"{_LABEL}=true"]}},
            },
        },
    }


def port_overrides(ports: Mapping[str, tuple[pulumi.Input[int], pulumi.Input[int]]]) -> dict[str, Any]:
    """Ports of relay and egress in each local cluster, {cluster: (relay, egress)}: on one machine the ports would clash."""
    changes = {cluster: {"/spec/endpoints/0/ports/http": relay, "/spec/endpoints/1/ports/http": egress} for cluster, (relay, egress) in ports.items()}
    selector = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "namespace": _NAMESPACE, "name": _NAME}
    return override_policy(labels.metadata("stream-relay-ports", component="mesh"), selector, changes)
