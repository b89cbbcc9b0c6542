"""What the failover needs of Envoy and Istio does not expose, as EnvoyFilters: three, one of them for each model.

The only place where fields of Envoy are written. istiod drops a field that it does not know without a word, so
tests/gateways look for each of them in the configuration of a real Envoy. They bind to listeners, clusters and routes by
names that routes.py gives, and to gateways by the label `istio`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.mesh.callers import CALLERS
from components.mesh.gateways import FRONT_DOOR, REGIONAL_GATEWAY
from components.mesh.stream_relay import AWAY_SECONDS, HOST, POLICY_HEADER
from specs import labels
from specs.failover import RequestFailoverSpec, StreamsSpec

# Names of the routes that a front door repeats elsewhere.
RELAYED_ROUTE = "relayed"
REPEATABLE_ROUTE = "repeatable"
UNREPEATABLE_ROUTE = "unrepeatable"
_LEAVING_ROUTES = (RELAYED_ROUTE, REPEATABLE_ROUTE, UNREPEATABLE_ROUTE)

# What callers must not tell: orders to the relay, where an answer comes from, and what rules retries, timeouts, and the
# choice of a pod.
_OURS = (POLICY_HEADER, "x-fleet-cluster", "x-fleet-model", "x-fleet-revision", "x-fleet-reason")
_OURS_BY_PREFIX = ("x-envoy-", "x-gateway-", "endpoint-load-metrics")

# An answer that is not streamed is silent until it is whole. Shorter than what OpenAI's clients wait by default, it would
# cut long answers; without any limit, a stream whose pod froze would stay for ever.
_LONGEST_SILENCE_SECONDS = 600
# The stream relay and the engine watchdog act first; they know what happens.
_IDLE_MARGIN_SECONDS = 15

# So that checks of many models do not come at one moment.
_JITTER_PERCENT = 10

# Port of the Services of all models.
_SERVICE_PORT = 80

# Envoy's own is a second, in which it collects what follows a change of health: a region or a pod that dies soon after
# another, or comes back soon after it went, would be taken for what it was.
_AT_ONCE = {"update_merge_window": "0s"}

_HCM = "envoy.filters.network.http_connection_manager"
_TYPE = "type.googleapis.com/envoy.extensions"

# Envoy's short names of why it answered by itself.
_NO_ROUTE = ("NR",)
_FULL = ("UO",)
_NOBODY = ("UH", "NC")
_LEAVING = ("LH",)
_LOST = ("UF", "UC", "UR", "LR", "UPE", "URX")
_SILENT = ("SI", "UT")
_REFUSED_OUTSIDE = ("UAEX",)

# What Envoy, or who answered through it, would say.
_SAID = "%LOCAL_REPLY_BODY%"

Object = dict[str, Any]


def front_door_filter(failover: RequestFailoverSpec, streams: StreamsSpec) -> Object:
    """Retries that leave a region at once, large requests, silent streams, answers of its own, headers of callers."""
    idle = max(streams.idle_seconds + _IDLE_MARGIN_SECONDS, _LONGEST_SILENCE_SECONDS)
    answers = [
        *_refusals(),
        _answer(_flags(*_NO_ROUTE), "invalid_request_error", "No such model or path. The paths of a model begin with /<model>/v1/.", 404),
        _answer(_flags(*_FULL), "overloaded", "Too many requests are under way at this front door.", 429, _header("retry-after", "1")),
        _answer(_flags(*_NOBODY), "no_region", "No region can serve this model now.", 503),
        _answer(_flags(*_LOST), "region_lost", "The region that had the request was lost, and no other answered.", 503),
        _answer(_flags(*_SILENT), "timeout", f"Nothing was sent for {idle:g} seconds.", 504),
    ]
    patches = [
        *(_http_route(name, {"route": {"retry_policy": {"retry_priority": _other_region()}}}) for name in _LEAVING_ROUTES),
        _virtual_host({"request_body_buffer_limit": failover.body_buffer_bytes}),
        _connection_manager({"stream_idle_timeout": f"{idle:g}s", "local_reply_config": _answers(answers)}),
        _cluster({"service": HOST}, {**_ejected(AWAY_SECONDS), "common_lb_config": _AT_ONCE}),
        _http_filter("envoy.filters.http.header_mutation", f"{_TYPE}.filters.http.header_mutation.v3.HeaderMutation", {"mutations": _headers()}),
    ]
    return _envoy_filter(FRONT_DOOR, FRONT_DOOR, patches)


def regional_filter(failover: RequestFailoverSpec) -> Object:
    """Large requests, answers of its own, and the drain.

    `POST /healthcheck/fail` at the admin interface of a regional gateway fails the active health checks of all models at once, and its
    answers tell front doors to leave; `POST /healthcheck/ok` takes that back. What is under way ends as ever.
    """
    answers = [
        _answer(_flags(*_NO_ROUTE), "invalid_request_error", "No such model or path in this cluster.", 404),
        _answer(_flags(*_FULL), "overloaded", "Too many requests are under way in this cluster.", 429, _header("retry-after", "1")),
        _answer(_flags(*_NOBODY), "no_region", "No replica of the model is ready in this cluster.", 503),
        _answer(_flags(*_LEAVING), "no_region", "This cluster is being drained.", 503),
        _answer(_flags(*_LOST), "region_lost", "The replica that had the request was lost.", 503),
    ]
    # In this mode the check goes on to a pod of the model, unless the gateway itself is to be left.
    drain = {"pass_through_mode": True, "headers": [{"name": ":path", "string_match": {"suffix": "/fleet/ready"}}]}
    patches = [
        _virtual_host({"request_body_buffer_limit": failover.body_buffer_bytes}),
        _connection_manager({"local_reply_config": _answers(answers)}),
        _cluster({"portNumber": _SERVICE_PORT}, {"common_lb_config": _AT_ONCE}),
        _http_filter("envoy.filters.http.health_check", f"{_TYPE}.filters.http.health_check.v3.HealthCheck", drain),
    ]
    return _envoy_filter(REGIONAL_GATEWAY, REGIONAL_GATEWAY, patches)


def health_filter(model: str, host: str, path: str, failover: RequestFailoverSpec, *, leaves: bool) -> Object:
    """The active health check of one model in each of its regions, by every front door. `leaves`: failing regions are left alone.

    A success also ends an ejection, at once: the check answers what the ejection asks.
    """
    interval = _seconds(failover.health_interval_seconds)
    check = {
        "timeout": _seconds(failover.health_timeout_seconds),
        "interval": interval,
        # Envoy's own is 60 s, for clusters without requests.
        "no_traffic_interval": interval,
        "interval_jitter_percent": _JITTER_PERCENT,
        "unhealthy_threshold": failover.unhealthy_threshold,
        "healthy_threshold": failover.healthy_threshold,
        "http_health_check": {"host": host, "path": f"/{model}{path}", "codec_client_type": "HTTP2"},
    }
    cluster = {
        "health_checks": [check],
        # A region that leaves the model's placement is gone from the list at once, not when it fails.
        "ignore_health_on_host_removal": True,
        "common_lb_config": {
            # Where no region is healthy the caller hears so, instead of waiting for one that is not.
            "healthy_panic_threshold": {"value": 0},
            **_AT_ONCE,
        },
        **(_ejected(failover.ejection_seconds) if leaves else {}),
    }
    # No name of a model holds a dot: the others have none.
    return _envoy_filter(f"{model}.health", FRONT_DOOR, [_cluster({"service": host}, cluster)], model=model)


def _envoy_filter(name: str, gateway: str, patches: Sequence[Object], model: str | None = None) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        # Read from the namespace of the gateway only.
        "metadata": labels.metadata(name, labels.NAMESPACE_INGRESS, component="mesh", model=model, propagate=True),
        "spec": {"workloadSelector": {"labels": {"istio": gateway}}, "configPatches": list(patches)},
    }


def _http_route(name: str, value: Object) -> Object:
    match = {"context": "GATEWAY", "routeConfiguration": {"vhost": {"route": {"name": name}}}}
    return {"applyTo": "HTTP_ROUTE", "match": match, "patch": {"operation": "MERGE", "value": value}}


def _virtual_host(value: Object) -> Object:
    return {"applyTo": "VIRTUAL_HOST", "match": {"context": "GATEWAY"}, "patch": {"operation": "MERGE", "value": value}}


def _cluster(which: Object, value: Object) -> Object:
    return {"applyTo": "CLUSTER", "match": {"context": "GATEWAY", "cluster": which}, "patch": {"operation": "MERGE", "value": value}}


def _ejected(seconds: float) -> Object:
    """No ejection lasts longer: with each repetition it would grow, up to five minutes."""
    return {"outlier_detection": {"max_ejection_time": _seconds(seconds)}}


def _of_connection_manager() -> Object:
    return {"context": "GATEWAY", "listener": {"filterChain": {"filter": {"name": _HCM}}}}


def _connection_manager(value: Object) -> Object:
    config = {"@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager", **value}
    return {
        "applyTo": "NETWORK_FILTER",
        "match": _of_connection_manager(),
        "patch": {"operation": "MERGE", "value": {"name": _HCM, "typed_config": config}},
    }


def _http_filter(name: str, kind: str, value: Object) -> Object:
    return {
        "applyTo": "HTTP_FILTER",
        "match": _of_connection_manager(),
        "patch": {"operation": "INSERT_FIRST", "value": {"name": name, "typed_config": {"@type": kind, **value}}},
    }


def _other_region() -> Object:
    """Every attempt at a priority that was not asked yet. Istio's own setting asks each priority twice."""
    kind = f"{_TYPE}.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {"name": "envoy.retry_priorities.previous_priorities", "typed_config": {"@type": kind, "update_frequency": 1}}


def _headers() -> Mapping[str, Any]:
    exact = [{"remove": name} for name in _OURS]
    begins = [{"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in _OURS_BY_PREFIX]
    # A region that is drained says so by this. A proxy in front of us would take it for an order to leave the front door.
    return {"request_mutations": [*exact, *begins], "response_mutations": [{"remove": "x-envoy-immediate-health-check-fail"}]}


def _answer(when: Object, kind: str, message: str, status: int, *headers: Object) -> Object:
    """What a gateway answers by itself in a case."""
    more = {"headers_to_add": list(headers)} if headers else {}
    return {"filter": when, "status_code": status, "body_format_override": _body(kind, message), **more}


def _refusals() -> list[Object]:
    """Answers to callers that are not authenticated. Istio's own answer to one without a token is 403; OpenAI's is 401."""
    kind, challenge = "authentication_error", _header("www-authenticate", "Bearer")
    no_token = "Missing or invalid bearer token."
    unavailable = "Authentication service unavailable."
    return [
        _answer(_details(f"contains('policy[{CALLERS}]')"), kind, no_token, 401, challenge),
        # Envoy says what is wrong with the token.
        _answer(_details("startsWith('jwt_authn_access_denied')"), kind, _SAID, 401),
        _answer(_details("startsWith('ext_authz_error')"), "authentication_unavailable", unavailable, 503),
        # Whoever refused it speaks for itself.
        {"filter": _flags(*_REFUSED_OUTSIDE), "body_format_override": {"text_format_source": {"inline_string": _SAID}}},
    ]


def _flags(*names: str) -> Object:
    """Where Envoy answered by itself for one of these reasons."""
    return {"response_flag_filter": {"flags": list(names)}}


def _details(holds: str) -> Object:
    """Where Envoy's longer word for the reason satisfies this."""
    kind = f"{_TYPE}.access_loggers.filters.cel.v3.ExpressionFilter"
    expression = {"@type": kind, "expression": f"response.code_details.{holds}"}
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": expression}}


def _header(key: str, value: str) -> Object:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _answers(mappers: Sequence[Object]) -> Object:
    # What is left is a request that is not proper HTTP.
    return {"mappers": list(mappers), "body_format": _body("invalid_request_error", _SAID)}


def _body(kind: str, message: str) -> Object:
    """OpenAI's shape of an error."""
    return {"json_format": {"error": {"message": message, "type": kind, "code": "%RESPONSE_CODE%"}}, "content_type": "application/json"}


def _seconds(value: float) -> str:
    return f"{value:g}s"
