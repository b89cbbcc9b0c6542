"""Routes: what callers may ask, where a request goes first and next, when it is repeated."""

from typing import Any

import pytest

from components import labels, mesh
from components.failover import RequestFailoverSpec

NUMBERS = RequestFailoverSpec()
ENDPOINTS = [mesh.Endpoint(region="us-east", address="127.0.0.1", port=20001), mesh.Endpoint(region="us-west", address="127.0.0.1", port=20021)]


def at(value: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def paths(routes: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["method"]["exact"], each["uri"]["exact"]) for http in routes["spec"]["http"] for each in http["match"]}


def test_both_doors_take_the_same_paths_and_no_other() -> None:
    want = {
        ("POST", "/chat/v1/chat/completions"),
        ("POST", "/chat/v1/completions"),
        ("POST", "/chat/v1/embeddings"),
        ("POST", "/chat/v1/responses"),
        ("GET", "/chat/v1/models"),
    }
    assert paths(mesh.front_door_routes("chat", 2)) == want
    assert paths(mesh.regional_routes("chat")) == want


def test_a_regional_gateway_leads_into_its_own_cluster_only() -> None:
    (route,) = mesh.regional_routes("chat")["spec"]["http"]
    assert [each["destination"]["host"] for each in route["route"]] == ["chat-predictor.models.svc.cluster.local"]
    assert route["rewrite"]["uriRegexRewrite"] == {"match": "^/chat(/v1/.*)$", "rewrite": r"\1"}
    # Leaving the region is the front door's part: here a request could go round in circles.
    assert "retryRemoteLocalities" not in route["retries"]


def test_no_route_has_a_time_limit() -> None:
    for routes in (mesh.front_door_routes("chat", 2), mesh.regional_routes("chat")):
        for http in routes["spec"]["http"]:
            assert "timeout" not in http
            assert "perTryTimeout" not in http["retries"]


def test_what_may_be_computed_twice_is_repeated_in_another_region() -> None:
    repeatable, unrepeatable = mesh.front_door_routes("chat", 2)["spec"]["http"]
    assert "reset" in repeatable["retries"]["retryOn"].split(",")
    assert "503" in repeatable["retries"]["retryOn"].split(",")
    assert repeatable["retries"]["retryRemoteLocalities"] is True
    # /v1/responses may store something.
    assert [each["uri"]["exact"] for each in unrepeatable["match"]] == ["/chat/v1/responses"]
    assert unrepeatable["retries"]["retryOn"] == "connect-failure,refused-stream,reset-before-request"


@pytest.mark.parametrize(("regions", "attempts"), [(1, 2), (2, 3), (3, 5), (50, 5)])
def test_retries_reach_the_last_tier(regions: int, attempts: int) -> None:
    assert mesh.retry_attempts(regions) == attempts


def test_a_region_fails_over_to_the_first_other_one_in_the_order() -> None:
    assert mesh.failover_targets(["us-east", "us-west", "eu-west"]) == [
        {"from": "us-east", "to": "us-west"},
        {"from": "us-west", "to": "us-east"},
        {"from": "eu-west", "to": "us-east"},
    ]
    assert mesh.failover_targets(["eu-west"]) == []


def test_one_failed_connection_is_enough_to_leave_a_region() -> None:
    policy = mesh.destination_rule("chat", ["us-east", "us-west"], NUMBERS)["spec"]["trafficPolicy"]
    assert policy == {
        "connectionPool": {
            "tcp": {"connectTimeout": "500ms", "tcpKeepalive": {"time": "5s", "interval": "1s", "probes": 3}},
            "http": {"http2KeepAlive": {"interval": "500ms", "timeout": "500ms"}},
        },
        "outlierDetection": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 1,
            "consecutiveGatewayErrors": 3,
            "consecutive5xxErrors": 0,
            "interval": "1s",
            "baseEjectionTime": "5s",
            # Istio's default of 10 % leaves no region alone where there are fewer than ten.
            "maxEjectionPercent": 100,
        },
        "loadBalancer": {"localityLbSetting": {"enabled": True, "failover": [{"from": "us-east", "to": "us-west"}, {"from": "us-west", "to": "us-east"}]}},
    }


def test_a_single_region_is_never_left_alone() -> None:
    assert "outlierDetection" not in mesh.destination_rule("chat", ["eu-west"], NUMBERS)["spec"]["trafficPolicy"]


def test_regions_are_reached_over_http2_so_that_pings_are_sent() -> None:
    body = mesh.service_entry("chat", ENDPOINTS)["spec"]
    assert body["ports"][0]["protocol"] == "HTTP2"
    assert body["location"] == "MESH_EXTERNAL"
    assert body["hosts"] == ["chat.fleet.internal"]
    # A zone would make several priorities of one region, and each costs a retry.
    assert [each["locality"] for each in body["endpoints"]] == ["us-east", "us-west"]


def test_every_override_points_at_a_field_that_exists() -> None:
    """Karmada fails a copy whose pointer leads nowhere."""
    listener = mesh.listener_overrides(mesh.FRONT_DOOR, {"us-east": 20000})
    header = mesh.cluster_header_overrides(["us-east"])
    for policy, target in ((listener, mesh.front_door_gateway()), (header, mesh.regional_routes("chat"))):
        for rule in policy["spec"]["overrideRules"]:
            for each in rule["overriders"]["plaintext"]:
                assert at(target, each["path"]) is not None


def test_answers_name_cluster_and_model() -> None:
    (rule,) = mesh.cluster_header_overrides(["us-east"])["spec"]["overrideRules"]
    (plain,) = rule["overriders"]["plaintext"]
    assert plain["value"] == "us-east"
    assert plain["path"].endswith("/x-fleet-cluster")
    (route,) = mesh.regional_routes("chat")["spec"]["http"]
    assert route["headers"]["response"]["set"]["x-fleet-model"] == "chat"


def test_local_gateways_listen_on_loopback() -> None:
    (rule,) = mesh.listener_overrides(mesh.REGIONAL_GATEWAY, {"us-east": 20001})["spec"]["overrideRules"]
    values = {each["path"]: each["value"] for each in rule["overriders"]["plaintext"]}
    assert values == {"/spec/servers/0/bind": "127.0.0.1", "/spec/servers/0/port/number": 20001}


def test_everything_of_the_mesh_goes_to_every_member() -> None:
    bodies = [
        mesh.front_door_gateway(),
        mesh.regional_gateway(),
        mesh.predictors_rule(NUMBERS),
        mesh.service_entry("chat", ENDPOINTS),
        mesh.destination_rule("chat", ["us-east", "us-west"], NUMBERS),
        mesh.front_door_routes("chat", 2),
        mesh.regional_routes("chat"),
    ]
    assert all(each["metadata"]["labels"][labels.LABEL_PROPAGATE] == "all" for each in bodies)
    assert all(each["metadata"]["namespace"] in (labels.NAMESPACE_MODELS, labels.NAMESPACE_INGRESS) for each in bodies)


def test_the_numbers_come_from_the_one_failover_spec() -> None:
    numbers = RequestFailoverSpec.model_validate({"connectTimeoutMilliseconds": 900, "pingIntervalMilliseconds": 250, "ejectionSeconds": 2.5})
    policy = mesh.destination_rule("chat", ["us-east", "us-west"], numbers)["spec"]["trafficPolicy"]
    assert policy["connectionPool"]["tcp"]["connectTimeout"] == "900ms"
    assert policy["connectionPool"]["http"]["http2KeepAlive"] == {"interval": "250ms", "timeout": "500ms"}
    assert policy["outlierDetection"]["baseEjectionTime"] == "2.5s"
