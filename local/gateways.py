"""The two Envoys of a member: the front door that callers use, and the regional gateway that leads to its pods.

Here they are only started and pointed at their own cluster's istiod. Listeners and routes are Istio objects, declared on
the hub; until those arrive an Envoy listens on its admin port alone. Beside the front door runs the stream relay, where the
stack wants one.
"""

import json
from typing import Any

from local.host_cluster import HostCluster
from local.istio import UNIT as ISTIOD
from local.units import HttpReady, TcpReady, Unit
from specs.control_planes.istio import FRONT_DOOR, REGIONAL_GATEWAY
from specs.labels import NAMESPACE_INGRESS
from toolchain import tools

# Both are names of units, of ports, and values of the label `istio` that Gateways select.
GATEWAYS = (REGIONAL_GATEWAY, FRONT_DOOR)
# Name of a unit and of its port; the egress is a second listener of the front door, by which the relay goes on.
STREAM_RELAY = "stream-relay"
EGRESS = "front-door-egress"

ADDRESS = "127.0.0.1"

# A stream that is longer than this when the relay is stopped ends with an error event.
_RELAY_DRAIN_S = 4

Object = dict[str, Any]


def apply(spec: Object) -> Object:
    """Starts both gateways of `spec["cluster"]` in its `region` and `zone`, and with `relay` the stream relay; again and
    again with the same result.

    Returns their addresses. Raises UnitError that names the unit and its log. Needs istiod (istio.py): an Envoy is ready
    when it has the first configuration.
    """
    member = HostCluster(spec["cluster"])
    relay = [relay_unit(member)] if spec.get("relay") else []
    gateways = [unit(member, name, spec["region"], spec["zone"]) for name in GATEWAYS]
    for each in (*relay, *gateways):
        member.put_unit(each)
    for each in (*relay, *gateways):
        member.wait_ready(each.name, 60)
    if not relay:
        member.remove_unit(STREAM_RELAY)
    return addresses(member)


def delete(spec: Object) -> Object:
    """Stops them."""
    member = HostCluster(spec["cluster"])
    if member.exists():
        for name in (*reversed(GATEWAYS), STREAM_RELAY):
            member.remove_unit(name)
    return {}


def addresses(member: HostCluster) -> Object:
    """Where the gateways of a cluster listen, also while they do not run: ports are kept for good."""
    door, regional = member.port(FRONT_DOOR), member.port(REGIONAL_GATEWAY)
    return {
        "frontDoor": {"address": ADDRESS, "port": door, "url": f"http://{ADDRESS}:{door}"},
        "regionalGateway": {"address": ADDRESS, "port": regional},
        "egress": {"address": ADDRESS, "port": member.port(EGRESS)},
        "streamRelay": {"address": ADDRESS, "port": member.port(STREAM_RELAY)},
    }


def relay_unit(member: HostCluster) -> Unit:
    """Between the front door and its egress. It needs neither to start: what it cannot reach it says in its answers."""
    port, egress = member.port(STREAM_RELAY), member.port(EGRESS)
    return Unit(
        name=STREAM_RELAY,
        argv=[str(tools.path("fleet-relay")), "--listen", f"{ADDRESS}:{port}", "--upstream", f"http://{ADDRESS}:{egress}", "--drain", f"{_RELAY_DRAIN_S}s"],
        ready=TcpReady(host=ADDRESS, port=port),
        stop_timeout_s=_RELAY_DRAIN_S + 2,
    )


def unit(member: HostCluster, gateway: str, region: str, zone: str) -> Unit:
    file = member.dir / f"envoy-{gateway}.json"
    file.write_text(json.dumps(bootstrap(member, gateway, region, zone), indent=1), encoding="utf-8")
    return Unit(
        name=gateway,
        argv=[
            str(tools.path("envoy")),
            # Envoy's parser does not take `--flag=value`.
            "--config-path",
            str(file),
            # One worker per gateway: six gateways share two cores with everything else.
            "--concurrency",
            "1",
            # Hot restart would tie all Envoys of the machine together by one shared-memory id.
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ],
        # The file is not part of argv; a change of it must restart Envoy.
        env={"FLEET_ENVOY_LOCALITY": f"{region}/{zone}", "FLEET_ENVOY_XDS": str(member.port("istiod-xds"))},
        after=[ISTIOD],
        # LIVE comes after the first listeners and clusters from istiod.
        ready=HttpReady(url=f"http://{ADDRESS}:{member.port(f'{gateway}-admin')}/ready"),
    )


def bootstrap(member: HostCluster, gateway: str, region: str, zone: str) -> Object:
    """Envoy's static configuration: who it is, where istiod is, its admin port. No listener of its own."""
    node = {
        "id": f"router~{ADDRESS}~{gateway}-0.{NAMESPACE_INGRESS}~{NAMESPACE_INGRESS}.svc.cluster.local",
        "cluster": f"{gateway}.{NAMESPACE_INGRESS}",
        # istiod orders the endpoints of other regions by distance from here.
        "locality": {"region": region, "zone": zone},
        "metadata": {
            "NAMESPACE": NAMESPACE_INGRESS,
            "NAME": f"{gateway}-0",
            # Gateways select by this label, since there is no pod to look at. Without labels, failover priorities are
            # not applied at all.
            "LABELS": {"istio": gateway},
            "CLUSTER_ID": member.name,
            "INSTANCE_IPS": ADDRESS,
            "ISTIO_VERSION": "1.31.0",
            "SERVICE_ACCOUNT": gateway,
        },
    }
    by_xds = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    service = [{"envoy_grpc": {"cluster_name": "istiod"}}]
    ads = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": True, "grpc_services": service}
    return {
        "node": node,
        "admin": {"address": _socket(member.port(f"{gateway}-admin"))},
        "dynamic_resources": {"ads_config": ads, "cds_config": by_xds, "lds_config": by_xds},
        "static_resources": {"clusters": [_istiod(member.port("istiod-xds"))]},
    }


def _istiod(port: int) -> Object:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    # A frozen istiod must not hold the stream for ever; Envoy reconnects when it answers again.
    # Not more often: istiod's gRPC server takes PINGs less than 15 s apart for an attack and closes the connection.
    http2 = {"connection_keepalive": {"interval": "20s", "timeout": "5s"}}
    return {
        "name": "istiod",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": http2}},
        },
        "load_assignment": {"cluster_name": "istiod", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(port)}}]}]},
    }


def _socket(port: int) -> Object:
    return {"socket_address": {"address": ADDRESS, "port_value": port}}
