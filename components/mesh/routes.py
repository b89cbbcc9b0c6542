"""The way of one model's requests: from every front door to the regions that serve it, and in each to its pods.

Which paths there are, what is repeated and how often. The regions and their order are regions.py; which clusters serve the
model is placement.py; what Istio does not expose is envoy_filters.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.federation.overrides import overridden, override_policy
from components.mesh import stream_relay
from components.mesh.envoy_filters import RELAYED_ROUTE, REPEATABLE_ROUTE, UNREPEATABLE_ROUTE, health_filter
from components.mesh.gateways import EGRESS, FRONT_DOOR, REGIONAL_GATEWAY
from components.mesh.regions import FLEET_HOST, FLEET_PORT, MOST_REQUESTS, Endpoint, destination_rule, order_overrides, regions_of, service_entry
from planning.failover_time import retry_attempts
from specs import labels
from specs.failover import RequestFailoverSpec, StreamsSpec

# KServe's Service of a model.
PREDICTOR_HOST = "{model}-predictor." + labels.NAMESPACE_MODELS + ".svc.cluster.local"
PREDICTORS = "*." + labels.NAMESPACE_MODELS + ".svc.cluster.local"

# Answers carry where they come from: nobody should have to guess which region or model served. The engine watchdog adds
# x-fleet-revision.
HEADER_CLUSTER = "x-fleet-cluster"
HEADER_MODEL = "x-fleet-model"

# What callers may ask of vLLM. It serves much more on the same port, without any check (/pause, /update_weights, …).
REPEATABLE = (*stream_relay.RELAYED, "POST /v1/embeddings", "GET /v1/models")
# May keep state at the server, so it is repeated only where no server has seen the request.
UNREPEATABLE = ("POST /v1/responses",)
# The active health check: whether a pod of the model would answer now. At regional gateways only, for front doors.
READY = "/fleet/ready"

# Nothing was computed yet, so any request may be sent again. 429 is a full engine, which refuses before it computes: the
# request spills, and nobody is ejected.
_RETRY_UNSEEN = "connect-failure,refused-stream,reset-before-request"
_RETRY_REFUSED = _RETRY_UNSEEN + ",429"
# 503 is a region without a ready replica, or an engine that gives its requests back. `reset` brings back the streams of a
# region that froze; a second computation is the only cost.
_RETRY_BACK = _RETRY_REFUSED + ",503"
_RETRY_LOST = _RETRY_BACK + ",reset"

# Inside a cluster there is nobody to be gentle with: the next pod is another one.
_NEARBY_BACKOFF = "1ms"

# uvicorn closes a connection that idles for 5 s. A request sent at that moment would be lost.
_POD_IDLE = "4s"
# A pod that is gone is taken out by Kubernetes within seconds; no check brings one back before this is over.
_POD_EJECTION = "5s"

# Port of KServe's Service.
SERVICE_PORT = 80

_ISTIO = "networking.istio.io/v1"


def _matches(model: str, allowed: Sequence[str], door: str | None = None) -> list[dict[str, Any]]:
    pairs = [each.split(" ", 1) for each in allowed]
    only = {"gateways": [_gateway(door)]} if door else {}
    return [{"method": {"exact": method}, "uri": {"exact": f"/{model}{path}"}, **only} for method, path in pairs]


def _gateway(name: str) -> str:
    return f"{labels.NAMESPACE_INGRESS}/{name}"


def _virtual_service(model: str, suffix: str, door: str, gateways: Sequence[str], http: list[dict[str, Any]]) -> dict[str, Any]:
    extra = {labels.LABEL_DOOR: door}
    return {
        "apiVersion": _ISTIO,
        "kind": "VirtualService",
        "metadata": labels.metadata(f"{model}-{suffix}", labels.NAMESPACE_MODELS, component="mesh", model=model, propagate=True, extra=extra),
        "spec": {"hosts": ["*"], "gateways": [_gateway(each) for each in gateways], "http": http},
    }


def front_door_routes(model: str, regions: int, failover: RequestFailoverSpec, streams: StreamsSpec) -> dict[str, Any]:
    """From a front door to the regions. No timeout: a long generation is no fault, and PINGs find a dead region."""
    route = [{"destination": {"host": FLEET_HOST.format(model=model), "port": {"number": FLEET_PORT}}}]
    # retryRemoteLocalities leaves a region at the third attempt; the filter on these routes makes that the second.
    elsewhere = {"retryRemoteLocalities": True, "retryIgnorePreviousHosts": True}
    retries = {"attempts": retry_attempts(regions), **elsewhere, "backoff": f"{failover.backoff_milliseconds}ms"}
    first: list[dict[str, Any]] = []
    repeatable, door = _matches(model, REPEATABLE), None
    if streams.relay:
        door = FRONT_DOOR
        first = [
            {
                "name": RELAYED_ROUTE,
                "match": _matches(model, stream_relay.RELAYED, door),
                "headers": {"request": {"set": {stream_relay.POLICY_HEADER: stream_relay.policy(failover, streams)}}},
                "route": [{"destination": {"host": stream_relay.HOST, "port": {"number": stream_relay.PORT}}}],
                # Past the relay; what a region answers was retried behind it.
                "retries": {"attempts": 1, **elsewhere, "backoff": _NEARBY_BACKOFF, "retryOn": _RETRY_UNSEEN + ",reset"},
            }
        ]
        others = [each for each in REPEATABLE if each not in stream_relay.RELAYED]
        repeatable = [*_matches(model, stream_relay.RELAYED, EGRESS), *_matches(model, others, door)]
    http = [
        *first,
        {"name": REPEATABLE_ROUTE, "match": repeatable, "route": route, "retries": {**retries, "retryOn": _RETRY_LOST}},
        {"name": UNREPEATABLE_ROUTE, "match": _matches(model, UNREPEATABLE, door), "route": route, "retries": {**retries, "retryOn": _RETRY_REFUSED}},
    ]
    return _virtual_service(model, FRONT_DOOR, FRONT_DOOR, [FRONT_DOOR, *([EGRESS] if streams.relay else [])], http)


def regional_routes(model: str) -> dict[str, Any]:
    """From a regional gateway to the model's pods in its own cluster. Leaving the region is the front door's part."""
    # \\1 is the path without the model: vLLM knows no prefix.
    rewrite = {"uriRegexRewrite": {"match": f"^/{model}(/v1/.*|{READY})$", "rewrite": r"\1"}}
    # The cluster's name is put in by cluster_header_overrides.
    headers = {"response": {"set": {HEADER_CLUSTER: "unknown", HEADER_MODEL: model}}}
    route = [{"destination": {"host": PREDICTOR_HOST.format(model=model), "port": {"number": SERVICE_PORT}}}]
    another_pod = {"attempts": 2, "retryIgnorePreviousHosts": True, "backoff": _NEARBY_BACKOFF}
    routes = {
        REPEATABLE_ROUTE: (REPEATABLE, _RETRY_BACK),
        UNREPEATABLE_ROUTE: (UNREPEATABLE, _RETRY_REFUSED),
        # A cluster is ready as long as one pod is.
        "ready": ((f"GET {READY}",), _RETRY_BACK),
    }
    http = [
        {
            "name": name,
            "match": _matches(model, allowed),
            "rewrite": rewrite,
            "headers": headers,
            "route": route,
            "retries": {**another_pod, "retryOn": retry_on},
        }
        for name, (allowed, retry_on) in routes.items()
    ]
    return _virtual_service(model, "regional", REGIONAL_GATEWAY, [REGIONAL_GATEWAY], http)


# Routes of a VirtualService of a regional gateway; overrides point at them by their place.
_REGIONAL_ROUTES = 3


def cluster_header_overrides(clusters: Sequence[str]) -> dict[str, Any]:
    """Lets each regional gateway name its own cluster in answers."""
    selector = {"apiVersion": _ISTIO, "kind": "VirtualService", "labelSelector": {"matchLabels": {labels.LABEL_DOOR: REGIONAL_GATEWAY}}}
    paths = [f"/spec/http/{place}/headers/response/set/{HEADER_CLUSTER}" for place in range(_REGIONAL_ROUTES)]
    changes = {cluster: dict.fromkeys(paths, cluster) for cluster in clusters}
    return override_policy(labels.metadata("cluster-header", component="mesh"), selector, changes)


def predictors_rule(failover: RequestFailoverSpec) -> dict[str, Any]:
    """How a regional gateway treats the pods of its cluster, for every model."""
    return {
        "apiVersion": _ISTIO,
        "kind": "DestinationRule",
        # No name of a model holds a dot.
        "metadata": labels.metadata("fleet.predictors", labels.NAMESPACE_MODELS, component="mesh", propagate=True),
        "spec": {
            "host": PREDICTORS,
            "trafficPolicy": {
                "connectionPool": {
                    "tcp": {"connectTimeout": f"{failover.connect_timeout_milliseconds}ms", "maxConnections": MOST_REQUESTS},
                    "http": {"http1MaxPendingRequests": MOST_REQUESTS, "http2MaxRequests": MOST_REQUESTS, "idleTimeout": _POD_IDLE},
                },
                # Only broken connections count: a pod that answers 429 is full, and the others are next to be.
                "outlierDetection": {
                    "splitExternalLocalOriginErrors": True,
                    "consecutiveLocalOriginFailures": 1,
                    "consecutive5xxErrors": 0,
                    "interval": "1s",
                    "baseEjectionTime": _POD_EJECTION,
                    "maxEjectionPercent": 100,
                },
            },
        },
    }


@dataclass(frozen=True, kw_only=True)
class ModelRoutes:
    """One model and the regional gateways that serve it, in failover order."""

    model: str
    endpoints: Sequence[Endpoint]
    failover: RequestFailoverSpec
    streams: StreamsSpec

    def objects(self) -> dict[str, dict[str, Any]]:
        """What every member holds of the model, by what it is for. Deep check before endpoints: a cluster of Envoy is built anew where it comes later."""
        regions = len(regions_of(self.endpoints))
        return {
            "health": health_filter(self.model, FLEET_HOST.format(model=self.model), READY, self.failover, leaves=len(self.endpoints) > 1),
            "failover": destination_rule(self.model, self.endpoints, self.failover),
            "regions": service_entry(self.model, self.endpoints),
            "front-door": front_door_routes(self.model, regions, self.failover, self.streams),
            "regional": regional_routes(self.model),
        }


def resolved(routes: ModelRoutes, cluster: str, region: str) -> list[dict[str, Any]]:
    """The objects of one model as the gateways of `cluster`, which is in `region`, get them: overrides are applied.

    For a model that is no part of a stack, such as the mock engine of a drill: applied to each member, they put it behind the
    gateways as a declared model is. Endpoints hold plain values. See `pods_entry` for what stands behind.
    """
    policies = [cluster_header_overrides([cluster])]
    order = order_overrides(routes.model, routes.endpoints, {cluster: region})
    return [overridden(each, [*policies, *([order] if order else [])], cluster) for each in routes.objects().values()]


def pods_entry(model: str, pods: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Stands in for KServe's Service and pods of a model: processes by address and port."""
    return {
        "apiVersion": _ISTIO,
        "kind": "ServiceEntry",
        "metadata": labels.metadata(f"{model}-predictor", labels.NAMESPACE_MODELS, component="mesh", model=model),
        "spec": {
            "hosts": [PREDICTOR_HOST.format(model=model)],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": SERVICE_PORT, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": address, "ports": {"http": port}} for address, port in pods],
        },
    }
