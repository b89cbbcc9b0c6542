"""Mesh: how a request finds a region, and in it a pod.

caller → front door (its own region first) → regional gateway of a region → KServe's Service → vLLM. The paths of a model are
`/<model>/v1/…` at both doors. A regional gateway never leads to another region, so there are no loops. Everything is
declared once on the hub; only addresses of gateways and the name of the cluster differ, by override policies.
The numbers of a failover are failover.py; which clusters serve a model is placement.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components import labels
from components.driver_commands import driver_command, inside, result
from components.failover import RequestFailoverSpec
from components.hub_objects import hub_object

FRONT_DOOR = "front-door"
REGIONAL_GATEWAY = "regional-gateway"

# Host of a model between the doors. It exists only in the front doors' configuration, never in DNS.
FLEET_HOST = "{model}.fleet.internal"
# KServe's Service of a model.
PREDICTOR_HOST = "{model}-predictor." + labels.NAMESPACE_MODELS + ".svc.cluster.local"
PREDICTORS = "*." + labels.NAMESPACE_MODELS + ".svc.cluster.local"

# Answers carry where they come from: nobody should have to guess which region or model served.
HEADER_CLUSTER = "x-fleet-cluster"
HEADER_MODEL = "x-fleet-model"

# What callers may ask of vLLM. It serves much more on the same port, without any check (/pause, /update_weights, …).
REPEATABLE = ("POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings", "GET /v1/models")
# May keep state at the server, so it is repeated only where no server has seen the request.
UNREPEATABLE = ("POST /v1/responses",)

# Nothing was computed yet, so any request may be sent again.
_RETRY_UNSEEN = "connect-failure,refused-stream,reset-before-request"
# `reset` brings back the streams of a region that froze; a second computation is the only cost. 503 is a region without a
# ready replica, or a full one.
_RETRY_LOST = _RETRY_UNSEEN + ",reset,503"
_BACKOFF = "25ms"

# Ports of the Gateway objects where each gateway has an address of its own. On one machine they are overridden.
_FRONT_DOOR_PORT = 80
_REGIONAL_PORT = 80
# Port of the ServiceEntry and of KServe's Service.
_SERVICE_PORT = 80


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the doors of one cluster are. `override` holds the listeners of gateways on one machine, None elsewhere."""

    front_door_url: pulumi.Input[str]
    address: pulumi.Input[str]
    port: pulumi.Input[int]
    override: "Listeners | None" = None


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Ports on which the gateways of a local cluster listen, both on loopback."""

    front_door: pulumi.Input[int]
    regional_gateway: pulumi.Input[int]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A regional gateway as front doors see it."""

    region: str
    address: pulumi.Input[str]
    port: pulumi.Input[int]


def gateway(name: str, port: int, port_name: str, protocol: str) -> dict[str, Any]:
    """A Gateway for every host; which paths it takes is told by the routes."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": labels.metadata(name, labels.NAMESPACE_INGRESS, component="mesh", propagate=True),
        "spec": {
            "selector": {"istio": name},
            "servers": [{"bind": "0.0.0.0", "port": {"number": port, "name": port_name, "protocol": protocol}, "hosts": ["*"]}],
        },
    }


def front_door_gateway() -> dict[str, Any]:
    return gateway(FRONT_DOOR, _FRONT_DOOR_PORT, "http", "HTTP")


def regional_gateway() -> dict[str, Any]:
    return gateway(REGIONAL_GATEWAY, _REGIONAL_PORT, "http2", "HTTP2")


def listener_overrides(door: str, ports: Mapping[str, pulumi.Input[int]]) -> dict[str, Any]:
    """Moves the gateway `door` to loopback, on its own port in each local cluster: on one machine the ports would clash."""
    rules = [
        {
            "targetCluster": {"clusterNames": [cluster]},
            "overriders": {
                "plaintext": [
                    {"path": "/spec/servers/0/bind", "operator": "replace", "value": "127.0.0.1"},
                    {"path": "/spec/servers/0/port/number", "operator": "replace", "value": port},
                ]
            },
        }
        for cluster, port in sorted(ports.items(), key=lambda each: each[0])
    ]
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterOverridePolicy",
        "metadata": labels.metadata(f"{door}-listener", component="mesh"),
        "spec": {
            "resourceSelectors": [{"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "namespace": labels.NAMESPACE_INGRESS, "name": door}],
            "overrideRules": rules,
        },
    }


def cluster_header_overrides(clusters: Sequence[str]) -> dict[str, Any]:
    """Lets each regional gateway name its own cluster in answers."""
    selector = {"matchLabels": {labels.LABEL_DOOR: REGIONAL_GATEWAY}}
    path = f"/spec/http/0/headers/response/set/{HEADER_CLUSTER}"
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterOverridePolicy",
        "metadata": labels.metadata("cluster-header", component="mesh"),
        "spec": {
            "resourceSelectors": [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "labelSelector": selector}],
            "overrideRules": [
                {
                    "targetCluster": {"clusterNames": [cluster]},
                    "overriders": {"plaintext": [{"path": path, "operator": "replace", "value": cluster}]},
                }
                for cluster in sorted(clusters)
            ],
        },
    }


def predictors_rule(failover: RequestFailoverSpec) -> dict[str, Any]:
    """How a regional gateway treats the pods of its cluster, for every model."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": labels.metadata("predictors", labels.NAMESPACE_MODELS, component="mesh", propagate=True),
        "spec": {
            "host": PREDICTORS,
            "trafficPolicy": {
                "connectionPool": {"tcp": {"connectTimeout": f"{failover.connect_timeout_milliseconds}ms"}},
                # Only failures to connect count: a pod that answers 503 is full, and the others are next to be.
                "outlierDetection": {
                    "splitExternalLocalOriginErrors": True,
                    "consecutiveLocalOriginFailures": 1,
                    "consecutive5xxErrors": 0,
                    "interval": "1s",
                    "baseEjectionTime": f"{failover.ejection_seconds:g}s",
                    "maxEjectionPercent": 100,
                },
            },
        },
    }


def service_entry(model: str, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The regional gateways that serve a model."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": labels.metadata(model, labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True),
        "spec": {
            "hosts": [FLEET_HOST.format(model=model)],
            # Outside the mesh: no mutual TLS is tried that the regional gateway could not answer.
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            # HTTP2 explicitly, as only then PINGs are sent.
            "ports": [{"number": _SERVICE_PORT, "name": "http2", "protocol": "HTTP2"}],
            # Locality without a zone: with one, a region would be several priorities, and each costs a retry.
            "endpoints": [{"address": each.address, "ports": {"http2": each.port}, "locality": each.region} for each in endpoints],
        },
    }


def failover_targets(order: Sequence[str]) -> list[dict[str, str]]:
    """For each region that serves a model, where its requests go first: the first region in `order` that is another.

    The regions after that one share the load; Istio has no longer chain. A front door in a region without the model
    spreads over all of them.
    """
    return [{"from": region, "to": next(each for each in order if each != region)} for region in order if len(order) > 1]


def destination_rule(model: str, order: Sequence[str], failover: RequestFailoverSpec) -> dict[str, Any]:
    """When and how a front door leaves a region. `order`: the regions that serve the model, in failover order, each once."""
    # One failed connection is enough, and all hosts may be left alone: each is a whole region. With a single region there
    # is nowhere to go, and leaving it alone would only add to the outage.
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
        "loadBalancer": {"localityLbSetting": {"enabled": True, "failover": failover_targets(order)}},
    }
    ping = {"interval": f"{failover.ping_interval_milliseconds}ms", "timeout": f"{failover.ping_timeout_milliseconds}ms"}
    keepalive = {"time": "5s", "interval": "1s", "probes": 3}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": labels.metadata(model, labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True),
        "spec": {
            "host": FLEET_HOST.format(model=model),
            "trafficPolicy": {
                "connectionPool": {
                    "tcp": {"connectTimeout": f"{failover.connect_timeout_milliseconds}ms", "tcpKeepalive": keepalive},
                    "http": {"http2KeepAlive": ping},
                },
                **(leave if len(order) > 1 else {}),
            },
        },
    }


def retry_attempts(regions: int) -> int:
    """Retries that reach the last tier of regions.

    Envoy under Istio tries a tier twice before it moves on (update_frequency is fixed at 2), and there are three tiers at
    most: the own region, the next, all others.
    """
    tiers = min(regions, 3)
    return max(2, 2 * (tiers - 1) + 1)


def _matches(model: str, allowed: Sequence[str]) -> list[dict[str, Any]]:
    pairs = [each.split(" ", 1) for each in allowed]
    return [{"method": {"exact": method}, "uri": {"exact": f"/{model}{path}"}} for method, path in pairs]


def front_door_routes(model: str, regions: int) -> dict[str, Any]:
    """From a front door to the regions. No timeout: a long generation is no fault, and PINGs find a dead region."""
    route = [{"destination": {"host": FLEET_HOST.format(model=model), "port": {"number": _SERVICE_PORT}}}]
    retries = {"attempts": retry_attempts(regions), "retryRemoteLocalities": True, "retryIgnorePreviousHosts": True, "backoff": _BACKOFF}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": labels.metadata(
            f"{model}-{FRONT_DOOR}", labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True, extra={labels.LABEL_DOOR: FRONT_DOOR}
        ),
        "spec": {
            "hosts": ["*"],
            "gateways": [f"{labels.NAMESPACE_INGRESS}/{FRONT_DOOR}"],
            "http": [
                {"match": _matches(model, REPEATABLE), "route": route, "retries": {**retries, "retryOn": _RETRY_LOST}},
                {"match": _matches(model, UNREPEATABLE), "route": route, "retries": {**retries, "retryOn": _RETRY_UNSEEN}},
            ],
        },
    }


def regional_routes(model: str) -> dict[str, Any]:
    """From a regional gateway to the model's pods in its own cluster.

    One route only: `cluster_header_overrides` points into it by its place.
    """
    # \\1 is the path without the model: vLLM knows no prefix.
    rewrite = {"uriRegexRewrite": {"match": f"^/{model}(/v1/.*)$", "rewrite": r"\1"}}
    # The cluster's name is put in by cluster_header_overrides.
    headers = {"response": {"set": {HEADER_CLUSTER: "unknown", HEADER_MODEL: model}}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": labels.metadata(
            f"{model}-regional", labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True, extra={labels.LABEL_DOOR: REGIONAL_GATEWAY}
        ),
        "spec": {
            "hosts": ["*"],
            "gateways": [f"{labels.NAMESPACE_INGRESS}/{REGIONAL_GATEWAY}"],
            "http": [
                {
                    "match": _matches(model, (*REPEATABLE, *UNREPEATABLE)),
                    "rewrite": rewrite,
                    "headers": headers,
                    "route": [{"destination": {"host": PREDICTOR_HOST.format(model=model), "port": {"number": _SERVICE_PORT}}}],
                    # Another pod of the same cluster; leaving the region is the front door's part.
                    "retries": {"attempts": 2, "retryOn": _RETRY_UNSEEN, "retryIgnorePreviousHosts": True, "backoff": _BACKOFF},
                }
            ],
        },
    }


@dataclass(frozen=True, kw_only=True)
class GatewaysArgs:
    cluster: str
    region: str
    zone: str
    owner: pulumi.Resource | None
    # The control plane that configures the gateways.
    requires: list[pulumi.Resource]


class Gateways(pulumi.ComponentResource):
    """The two gateways of a local cluster, as processes. `door` says where they listen."""

    front_door_url: pulumi.Output[str]

    def __init__(self, name: str, args: GatewaysArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Gateways", name, None, opts)
        payload = {"cluster": args.cluster, "region": args.region, "zone": args.zone}
        command = driver_command(f"{name}-processes", "gateways", payload, inside(self, args.owner, *args.requires))
        self.front_door_url = result(command, "frontDoor", "url")
        regional_port = result(command, "regionalGateway", "port")
        self.door = Door(
            front_door_url=self.front_door_url,
            address=result(command, "regionalGateway", "address"),
            port=regional_port,
            override=Listeners(front_door=result(command, "frontDoor", "port"), regional_gateway=regional_port),
        )
        self.register_outputs({"frontDoorUrl": self.front_door_url})


@dataclass(frozen=True, kw_only=True)
class MeshArgs:
    failover: RequestFailoverSpec
    doors: Mapping[str, Door]
    # Policy that carries the objects to the members: it must be deleted after them.
    requires: list[pulumi.Resource]


class Mesh(pulumi.ComponentResource):
    """The doors of every cluster. Routes of models depend on `overrides`."""

    def __init__(self, name: str, args: MeshArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Mesh", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, depends_on=args.requires)
        self.overrides: list[pulumi.Resource] = [hub_object(f"{name}-cluster-header", cluster_header_overrides(list(args.doors)), child)]
        local = {cluster: door.override for cluster, door in args.doors.items() if door.override}
        if local:
            front = listener_overrides(FRONT_DOOR, {cluster: each.front_door for cluster, each in local.items()})
            regional = listener_overrides(REGIONAL_GATEWAY, {cluster: each.regional_gateway for cluster, each in local.items()})
            self.overrides += [hub_object(f"{name}-front-door-listener", front, child), hub_object(f"{name}-regional-listener", regional, child)]
        # After the overrides: a gateway that came first would listen on the wrong port until Karmada looks again.
        after = pulumi.ResourceOptions(parent=self, depends_on=[*args.requires, *self.overrides])
        hub_object(f"{name}-front-door", front_door_gateway(), after)
        hub_object(f"{name}-regional-gateway", regional_gateway(), after)
        hub_object(f"{name}-predictors", predictors_rule(args.failover), after)
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class RoutesArgs:
    model: str
    # In failover order.
    endpoints: Sequence[Endpoint]
    failover: RequestFailoverSpec
    requires: list[pulumi.Resource]


class Routes(pulumi.ComponentResource):
    """The way of one model's requests, from every front door to its pods."""

    def __init__(self, name: str, args: RoutesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Routes", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, depends_on=args.requires)
        order = list(dict.fromkeys(each.region for each in args.endpoints))
        hub_object(f"{name}-regions", service_entry(args.model, args.endpoints), child)
        hub_object(f"{name}-failover", destination_rule(args.model, order, args.failover), child)
        hub_object(f"{name}-front-door", front_door_routes(args.model, len(order)), child)
        hub_object(f"{name}-regional", regional_routes(args.model), child)
        self.register_outputs({})
