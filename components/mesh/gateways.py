"""The doors of a cluster: its front door, which callers use, and its regional gateway, which leads to its pods.

Which paths they take is routes.py. On a local cluster they are processes, started by the driver; elsewhere they belong to
the cluster, are labelled `istio: front-door` and `istio: regional-gateway`, and listen as the Gateways here say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.drivers.commands import driver_command, inside, result
from components.federation.overrides import override_policy
from specs import labels

FRONT_DOOR = "front-door"
REGIONAL_GATEWAY = "regional-gateway"
# The listener of a front door by which its stream relay reaches the regions; on loopback, so that nobody else does.
EGRESS = "front-door-egress"

LOOPBACK = "127.0.0.1"

# Ports of the Gateway objects where each gateway has an address of its own. On one machine they are overridden.
_FRONT_DOOR_PORT = 80
_REGIONAL_PORT = 80
# Where the relay of a front door reaches its egress.
EGRESS_PORT = 15480


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Ports on which the gateways of a local cluster listen, all on loopback."""

    front_door: pulumi.Input[int]
    regional_gateway: pulumi.Input[int]
    # With a stream relay only.
    egress: pulumi.Input[int] | None = None
    stream_relay: pulumi.Input[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the doors of one cluster are. `override` holds the listeners of gateways on one machine, None elsewhere."""

    front_door_url: pulumi.Input[str]
    address: pulumi.Input[str]
    port: pulumi.Input[int]
    override: Listeners | None = None


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
    return gateway(FRONT_DOOR, _FRONT_DOOR_PORT, "http", "HTTP")


def regional_gateway() -> dict[str, Any]:
    return gateway(REGIONAL_GATEWAY, _REGIONAL_PORT, "http2", "HTTP2")


def egress_gateway() -> dict[str, Any]:
    """A second listener of every front door, for its stream relay."""
    return gateway(EGRESS, EGRESS_PORT, "http-egress", "HTTP", proxy=FRONT_DOOR, bind=LOOPBACK)


def listener_overrides(door: str, ports: Mapping[str, pulumi.Input[int]]) -> dict[str, Any]:
    """Moves the gateway `door` to loopback, on its own port in each local cluster: on one machine the ports would clash."""
    changes = {cluster: {"/spec/servers/0/bind": LOOPBACK, "/spec/servers/0/port/number": port} for cluster, port in ports.items()}
    selector = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "namespace": labels.NAMESPACE_INGRESS, "name": door}
    return override_policy(labels.metadata(f"{door}-listener", component="mesh"), selector, changes)


@dataclass(frozen=True, kw_only=True)
class GatewaysArgs:
    cluster: str
    region: str
    zone: str
    # Whether a stream relay runs beside the front door.
    relay: bool
    owner: pulumi.Resource | None
    # The control plane that configures the gateways.
    requires: list[pulumi.Resource]


class Gateways(pulumi.ComponentResource):
    """The two gateways of a local cluster, as processes. `door` says where they listen."""

    front_door_url: pulumi.Output[str]

    def __init__(self, name: str, args: GatewaysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Gateways", name, None, opts)
        payload = {"cluster": args.cluster, "region": args.region, "zone": args.zone, "relay": args.relay}
        command = driver_command(f"{name}-processes", "gateways", payload, inside(self, args.owner, *args.requires))
        self.front_door_url = result(command, "frontDoor", "url")
        regional_port = result(command, "regionalGateway", "port")
        self.door = Door(
            front_door_url=self.front_door_url,
            address=result(command, "regionalGateway", "address"),
            port=regional_port,
            override=Listeners(
                front_door=result(command, "frontDoor", "port"),
                regional_gateway=regional_port,
                egress=result(command, "egress", "port") if args.relay else None,
                stream_relay=result(command, "streamRelay", "port") if args.relay else None,
            ),
        )
        self.register_outputs({"frontDoorUrl": self.front_door_url})
