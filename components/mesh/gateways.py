"""The doors of a cluster: its front door, which callers use, and its regional gateway, which leads to its pods.

Which paths they take is routes.py; who runs them, and where they are reached, is the cluster's driver. They are labelled
`istio: front-door` and `istio: regional-gateway`, and listen as the Gateways here say.
"""

from collections.abc import Mapping
from typing import Any

import pulumi

from components.federation.overrides import override_policy
from specs import labels
from specs.control_planes.istio import FRONT_DOOR, LISTENERS, REGIONAL_GATEWAY

# The listener of a front door by which its stream relay reaches the regions; on loopback, so that nobody else does.
EGRESS = "front-door-egress"

LOOPBACK = "127.0.0.1"

# Where the relay of a front door reaches its egress.
EGRESS_PORT = 15480


def gateway(name: str, port: int, port_name: str, protocol: str, *, proxy: str | None = None, bind: str = "0.0.0.0") -> dict[str, Any]:
    """A Gateway for every host, on the gateways that are labelled `istio: <proxy>`; which paths it takes is told by the routes."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": labels.metadata(name, labels.NAMESPACE_INGRESS, component="mesh", propagate=True),
        "spec": {
            "selector": {"istio": proxy or name},
            "servers": [{"bind": bind, "port": {"number": port, "name": port_name, "protocol": protocol}, "hosts": ["*"]}],
        },
    }


def front_door_gateway() -> dict[str, Any]:
    return gateway(FRONT_DOOR, LISTENERS[FRONT_DOOR], "http", "HTTP")


def regional_gateway() -> dict[str, Any]:
    return gateway(REGIONAL_GATEWAY, LISTENERS[REGIONAL_GATEWAY], "http2", "HTTP2")


def egress_gateway() -> dict[str, Any]:
    """A second listener of every front door, for its stream relay."""
    return gateway(EGRESS, EGRESS_PORT, "http-egress", "HTTP", proxy=FRONT_DOOR, bind=LOOPBACK)


def listener_overrides(door: str, ports: Mapping[str, pulumi.Input[int]]) -> dict[str, Any]:
    """Moves the gateway `door` to loopback, on its own port in each local cluster: on one machine the ports would clash."""
    changes = {cluster: {"/spec/servers/0/bind": LOOPBACK, "/spec/servers/0/port/number": port} for cluster, port in ports.items()}
    selector = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "namespace": labels.NAMESPACE_INGRESS, "name": door}
    return override_policy(labels.metadata(f"{door}-listener", component="mesh"), selector, changes)
