"""Routes: what callers may ask, where a request goes first and next, when it is repeated, when a region is left."""

from collections.abc import Iterator
from typing import Any

import pytest

from components.federation.overrides import overridden
from components.mesh import envoy_filters, regions, routes, stream_relay
from components.mesh import gateways as gateway_objects
from components.mesh.regions import Endpoint
from components.mesh.routes import ModelRoutes
from planning import failover_time
from specs import labels
from specs.failover import RequestFailoverSpec, StreamsSpec

NUMBERS = RequestFailoverSpec()
NO_RELAY = StreamsSpec()
RELAY = StreamsSpec(relay=True, resume=True)
EAST = Endpoint(region="us-east", address="127.0.0.1", port=20001)
WEST = Endpoint(region="us-west", address="127.0.0.1", port=20021)
EU = Endpoint(region="eu-west", address="127.0.0.1", port=20041)
THREE = (EAST, WEST, EU)

Object = dict[str, Any]


def model(*endpoints: Endpoint, streams: StreamsSpec = NO_RELAY, failover: RequestFailoverSpec = NUMBERS) -> ModelRoutes:
    return ModelRoutes(model="chat", endpoints=endpoints, failover=failover, streams=streams)


def front(streams: StreamsSpec = NO_RELAY, places: int = 2) -> Object:
    return routes.front_door_routes("chat", places, NUMBERS, streams)


def named(virtual_service: Object) -> dict[str, Object]:
    return {each["name"]: each for each in virtual_service["spec"]["http"]}


def paths(http: Object) -> set[tuple[str, str]]:
    return {(each["method"]["exact"], each["uri"]["exact"]) for each in http["match"]}


def priorities(entry: Object, rule: Object) -> list[set[str]]:
    """The regions of each priority as istiod makes them (applyFailoverPriorityPerLocality in loadbalancer.go)."""
    wanted = [each.split("=") for each in rule["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"]["failoverPriority"]]
    found: dict[int, set[str]] = {}
    for each in entry["spec"]["endpoints"]:
        lacking = [place for place, (key, value) in enumerate(wanted) if each["labels"].get(key) != value]
        found.setdefault(len(wanted) - lacking[0] if lacking else 0, set()).add(each["locality"])
    return [found[place] for place in sorted(found)]


def patches(envoy_filter: Object, kind: str) -> list[Object]:
    return [each["patch"]["value"] for each in envoy_filter["spec"]["configPatches"] if each["applyTo"] == kind]


# What callers may ask


def test_both_doors_take_the_same_paths_and_no_other() -> None:
    want = {
        ("POST", "/chat/v1/chat/completions"),
        ("POST", "/chat/v1/completions"),
        ("POST", "/chat/v1/embeddings"),
        ("POST", "/chat/v1/responses"),
        ("GET", "/chat/v1/models"),
    }
    for streams in (NO_RELAY, RELAY):
        assert set().union(*(paths(each) for each in front(streams)["spec"]["http"])) == want
    regional = named(routes.regional_routes("chat"))
    assert paths(regional["repeatable"]) | paths(regional["unrepeatable"]) == want


def test_the_deep_check_is_for_front_doors_and_not_for_callers() -> None:
    check = ("GET", "/chat/fleet/ready")
    assert paths(named(routes.regional_routes("chat"))["ready"]) == {check}
    assert all(check not in paths(each) for each in front(RELAY)["spec"]["http"])


def test_a_regional_gateway_leads_into_its_own_cluster_only() -> None:
    for route in routes.regional_routes("chat")["spec"]["http"]:
        assert [each["destination"]["host"] for each in route["route"]] == ["chat-predictor.models.svc.cluster.local"]
        assert route["rewrite"]["uriRegexRewrite"] == {"match": "^/chat(/v1/.*|/fleet/ready)$", "rewrite": r"\1"}
        # Leaving the region is the front door's part: here a request could go round in circles.
        assert "retryRemoteLocalities" not in route["retries"]


def test_callers_cannot_tell_the_mesh_what_to_do() -> None:
    (mutation,) = patches(envoy_filters.front_door_filter(NUMBERS, RELAY), "HTTP_FILTER")
    changes = mutation["typed_config"]["mutations"]["request_mutations"]
    exact = {each["remove"] for each in changes if "remove" in each}
    begins = {each["remove_on_match"]["key_matcher"]["prefix"] for each in changes if "remove_on_match" in each}
    assert exact >= {stream_relay.POLICY_HEADER, "x-fleet-cluster"}
    assert begins == {"x-envoy-", "x-gateway-", "endpoint-load-metrics"}
    # That one is the caller's to say: never compute anything twice.
    assert not any("x-fleet-resume".startswith(each) for each in (*exact, *begins))


# Where a request goes


def test_every_region_is_a_step_of_its_own_in_the_order_of_the_model() -> None:
    objects = model(*THREE).objects()
    assert priorities(objects["regions"], objects["failover"]) == [{"us-east"}, {"us-west"}, {"eu-west"}]


@pytest.mark.parametrize(
    ("region", "want"),
    [
        ("us-east", ["us-east", "us-west", "eu-west"]),
        ("us-west", ["us-west", "us-east", "eu-west"]),
        ("eu-west", ["eu-west", "us-east", "us-west"]),
        ("ap-south", ["us-east", "us-west", "eu-west"]),
    ],
)
def test_a_front_door_asks_its_own_region_first_where_that_serves_the_model(region: str, want: list[str]) -> None:
    objects = {each["kind"]: each for each in routes.resolved(model(*THREE), "here", region)}
    assert priorities(objects["ServiceEntry"], objects["DestinationRule"]) == [{each} for each in want]


def test_two_clusters_of_one_region_are_one_step() -> None:
    other = Endpoint(region="us-east", address="127.0.0.1", port=20061)
    objects = model(EAST, WEST, other).objects()
    assert priorities(objects["regions"], objects["failover"]) == [{"us-east"}, {"us-west"}]
    assert len(objects["regions"]["spec"]["endpoints"]) == 3


def test_two_clusters_of_one_region_leave_each_other_though_there_is_no_other_region() -> None:
    other = Endpoint(region="us-east", address="127.0.0.1", port=20061)
    policy = regions.destination_rule("chat", [EAST, other], NUMBERS)["spec"]["trafficPolicy"]
    assert policy["outlierDetection"]["consecutiveLocalOriginFailures"] == 1
    assert "loadBalancer" not in policy


def test_an_order_is_overridden_only_where_it_differs() -> None:
    clusters = {"east": "us-east", "west": "us-west", "asia": "ap-south"}
    policy = regions.order_overrides("chat", [EAST, WEST], clusters)
    assert policy is not None
    assert [each["targetCluster"]["clusterNames"] for each in policy["spec"]["overrideRules"]] == [["west"]]
    assert regions.order_overrides("chat", [EAST], clusters) is None


def test_a_name_of_a_region_as_long_as_it_may_be_is_still_a_label() -> None:
    region = "r" * 63
    entry = regions.service_entry("chat", [EAST, Endpoint(region=region, address="127.0.0.1", port=1)])
    (key,) = entry["spec"]["endpoints"][0]["labels"]
    assert key.split("/")[1] == region


def test_regions_are_reached_over_http2_so_that_pings_are_sent() -> None:
    body = regions.service_entry("chat", [EAST, WEST])["spec"]
    assert body["ports"][0]["protocol"] == "HTTP2"
    assert body["location"] == "MESH_EXTERNAL"
    assert body["hosts"] == ["chat.fleet.internal"]
    # A zone would make several priorities of one region, and each costs a retry.
    assert [each["locality"] for each in body["endpoints"]] == ["us-east", "us-west"]


# When it is repeated


def test_no_route_has_a_time_limit() -> None:
    for virtual_service in (front(), front(RELAY), routes.regional_routes("chat")):
        for http in virtual_service["spec"]["http"]:
            assert "timeout" not in http
            assert "perTryTimeout" not in http["retries"]


def test_what_may_be_computed_twice_is_repeated_in_another_region() -> None:
    found = named(front())
    assert set(found["repeatable"]["retries"]["retryOn"].split(",")) >= {"reset", "503", "429"}
    # /v1/responses may store something.
    assert paths(found["unrepeatable"]) == {("POST", "/chat/v1/responses")}
    assert found["unrepeatable"]["retries"]["retryOn"] == "connect-failure,refused-stream,reset-before-request,429"


def test_each_retry_moves_on_to_another_region() -> None:
    names = {each["name"] for streams in (NO_RELAY, RELAY) for each in front(streams)["spec"]["http"]}
    patched = [each for each in envoy_filters.front_door_filter(NUMBERS, NO_RELAY)["spec"]["configPatches"] if each["applyTo"] == "HTTP_ROUTE"]
    assert {each["match"]["routeConfiguration"]["vhost"]["route"]["name"] for each in patched} == names
    for each in patched:
        assert each["patch"]["value"]["route"]["retry_policy"]["retry_priority"]["typed_config"]["update_frequency"] == 1


@pytest.mark.parametrize(("places", "attempts"), [(1, 2), (2, 2), (3, 3), (50, 5)])
def test_retries_reach_every_region_of_a_usual_fleet(places: int, attempts: int) -> None:
    assert failover_time.retry_attempts(places) == attempts
    assert front(places=places)["spec"]["http"][0]["retries"]["attempts"] == attempts


def test_large_requests_are_kept_to_be_sent_again_at_both_doors() -> None:
    for each in (envoy_filters.front_door_filter(NUMBERS, NO_RELAY), envoy_filters.regional_filter(NUMBERS)):
        assert patches(each, "VIRTUAL_HOST") == [{"request_body_buffer_limit": NUMBERS.body_buffer_bytes}]


# When a region is left, and how it comes back


def test_one_failed_connection_is_enough_to_leave_a_region() -> None:
    policy = regions.destination_rule("chat", [EAST, WEST], NUMBERS)["spec"]["trafficPolicy"]
    assert policy == {
        "connectionPool": {
            "tcp": {"connectTimeout": "500ms", "tcpKeepalive": {"time": "5s", "interval": "1s", "probes": 3}},
            "http": {
                "http2KeepAlive": {"interval": "500ms", "timeout": "500ms"},
                "http1MaxPendingRequests": regions.MOST_REQUESTS,
                "http2MaxRequests": regions.MOST_REQUESTS,
            },
        },
        "outlierDetection": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 1,
            "consecutiveGatewayErrors": 3,
            "consecutive5xxErrors": 0,
            "interval": "1s",
            "baseEjectionTime": "30s",
            # Istio's default of 10 % leaves no region alone where there are fewer than ten.
            "maxEjectionPercent": 100,
        },
        "loadBalancer": {"localityLbSetting": {"enabled": True, "failoverPriority": ["not.inference-fleet.dev/us-west=true"]}},
    }


def test_a_single_region_is_never_ejected() -> None:
    objects = model(EAST).objects()
    assert "outlierDetection" not in objects["failover"]["spec"]["trafficPolicy"]
    (cluster,) = patches(objects["health"], "CLUSTER")
    assert "outlier_detection" not in cluster


def test_a_full_pod_is_not_ejected() -> None:
    outlier = routes.predictors_rule(NUMBERS)["spec"]["trafficPolicy"]["outlierDetection"]
    assert outlier["consecutive5xxErrors"] == 0
    assert "consecutiveGatewayErrors" not in outlier
    assert outlier["splitExternalLocalOriginErrors"] is True


def test_a_connection_to_a_pod_is_given_up_before_the_pod_closes_it() -> None:
    idle = routes.predictors_rule(NUMBERS)["spec"]["trafficPolicy"]["connectionPool"]["http"]["idleTimeout"]
    # vLLM's VLLM_HTTP_TIMEOUT_KEEP_ALIVE.
    assert float(idle.removesuffix("s")) < 5


def test_the_deep_check_of_a_model_asks_for_a_pod_of_that_model() -> None:
    objects = model(*THREE).objects()
    (patch,) = objects["health"]["spec"]["configPatches"]
    (check,) = patch["patch"]["value"]["health_checks"]
    assert patch["match"]["cluster"]["service"] == objects["regions"]["spec"]["hosts"][0]
    path = check["http_health_check"]["path"]
    assert ("GET", path) in paths(named(objects["regional"])["ready"])
    # Envoy's own is a minute for a cluster without requests: a model that is rarely asked would be found dead by a caller.
    assert check["no_traffic_interval"] == check["interval"] == "1s"


def test_no_region_is_asked_in_vain_when_none_is_healthy() -> None:
    for endpoints in ([EAST], [EAST, WEST]):
        (cluster,) = patches(model(*endpoints).objects()["health"], "CLUSTER")
        assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}


def test_a_drained_region_fails_the_deep_checks_of_all_models() -> None:
    (check,) = patches(envoy_filters.regional_filter(NUMBERS), "HTTP_FILTER")
    assert check["typed_config"]["pass_through_mode"] is True
    (header,) = check["typed_config"]["headers"]
    assert "/chat" + header["string_match"]["suffix"] == "/chat" + routes.READY


def test_the_numbers_come_from_the_one_failover_spec() -> None:
    given = {
        "connectTimeoutMilliseconds": 900,
        "pingIntervalMilliseconds": 250,
        "ejectionSeconds": 2.5,
        "healthIntervalSeconds": 0.5,
        "healthTimeoutSeconds": 0.25,
        "unhealthyThreshold": 7,
        "healthyThreshold": 4,
        "bodyBufferBytes": 4096,
        "backoffMilliseconds": 9,
    }
    numbers = RequestFailoverSpec.model_validate(given)
    policy = regions.destination_rule("chat", [EAST, WEST], numbers)["spec"]["trafficPolicy"]
    assert policy["connectionPool"]["tcp"]["connectTimeout"] == "900ms"
    assert policy["connectionPool"]["http"]["http2KeepAlive"] == {"interval": "250ms", "timeout": "500ms"}
    assert policy["outlierDetection"]["baseEjectionTime"] == "2.5s"
    (cluster,) = patches(model(EAST, WEST, failover=numbers).objects()["health"], "CLUSTER")
    assert cluster["outlier_detection"] == {"max_ejection_time": "2.5s"}
    (check,) = cluster["health_checks"]
    assert (check["interval"], check["timeout"], check["unhealthy_threshold"], check["healthy_threshold"]) == ("0.5s", "0.25s", 7, 4)
    assert patches(envoy_filters.front_door_filter(numbers, NO_RELAY), "VIRTUAL_HOST") == [{"request_body_buffer_limit": 4096}]
    assert routes.front_door_routes("chat", 2, numbers, NO_RELAY)["spec"]["http"][0]["retries"]["backoff"] == "9ms"


# What the gateways answer by themselves


@pytest.mark.parametrize("envoy_filter", [envoy_filters.front_door_filter(NUMBERS, NO_RELAY), envoy_filters.regional_filter(NUMBERS)])
def test_every_answer_of_a_gateway_has_openais_shape(envoy_filter: Object) -> None:
    (manager,) = patches(envoy_filter, "NETWORK_FILTER")
    replies = manager["typed_config"]["local_reply_config"]
    # A service of one's own that knows the callers speaks for itself.
    own = [each for each in replies["mappers"] if each["filter"] != {"response_flag_filter": {"flags": ["UAEX"]}}]
    for body in [*(each["body_format_override"] for each in own), replies["body_format"]]:
        assert body["content_type"] == "application/json"
        assert set(body["json_format"]) == {"error"}
        assert set(body["json_format"]["error"]) == {"message", "type", "code"}
    kinds = {flag: each for each in own for flag in each["filter"].get("response_flag_filter", {}).get("flags", [])}
    assert (kinds["UH"]["status_code"], kinds["UH"]["body_format_override"]["json_format"]["error"]["type"]) == (503, "no_region")
    # A gateway that is full says so as an engine does.
    assert kinds["UO"]["status_code"] == 429
    assert [each["header"] for each in kinds["UO"]["headers_to_add"]] == [{"key": "retry-after", "value": "1"}]


@pytest.mark.parametrize(("idle", "want"), [(120, "600s"), (3600, "3615s")])
def test_a_silent_stream_ends_but_a_long_answer_that_is_not_streamed_does_not(idle: float, want: str) -> None:
    (manager,) = patches(envoy_filters.front_door_filter(NUMBERS, StreamsSpec.model_validate({"idleSeconds": idle})), "NETWORK_FILTER")
    assert manager["typed_config"]["stream_idle_timeout"] == want


# The stream relay


def test_completions_go_through_the_relay_and_then_to_the_regions() -> None:
    found = named(front(RELAY))
    relayed = {("POST", "/chat/v1/chat/completions"), ("POST", "/chat/v1/completions")}
    assert paths(found["relayed"]) == relayed
    assert {each["gateways"][0] for each in found["relayed"]["match"]} == {"istio-ingress/front-door"}
    assert found["relayed"]["headers"]["request"]["set"] == {"x-fleet-relay": "resume=true;idle=120;buffer=16777216"}
    at_egress = [each for each in found["repeatable"]["match"] if each["gateways"] == ["istio-ingress/front-door-egress"]]
    assert paths({"match": at_egress}) == relayed
    # Only there are regions chosen, and only there is a request sent to another one.
    assert found["repeatable"]["route"][0]["destination"]["host"] == "chat.fleet.internal"
    assert "503" not in found["relayed"]["retries"]["retryOn"]


def test_without_a_relay_no_route_mentions_it() -> None:
    assert "relay" not in str(front())
    assert front()["spec"]["gateways"] == ["istio-ingress/front-door"]


def test_a_front_door_goes_past_a_relay_that_is_away_and_not_past_one_that_brings_bad_news() -> None:
    relay, egress = stream_relay.relay_entry()["spec"]["endpoints"]
    policy = stream_relay.relay_rule(1)["spec"]["trafficPolicy"]
    (priority,) = policy["loadBalancer"]["localityLbSetting"]["failoverPriority"]
    assert priority.split("=") in [list(each) for each in relay["labels"].items()]
    assert "labels" not in egress
    assert policy["outlierDetection"]["consecutiveLocalOriginFailures"] == 1
    assert policy["outlierDetection"]["consecutive5xxErrors"] == 0
    assert "consecutiveGatewayErrors" not in policy["outlierDetection"]


def test_the_egress_is_a_listener_of_the_front_door_that_nobody_else_reaches() -> None:
    body = gateway_objects.egress_gateway()["spec"]
    assert body["selector"] == {"istio": "front-door"}
    assert [each["bind"] for each in body["servers"]] == ["127.0.0.1"]


# Overrides


def overrides() -> Iterator[tuple[Object, Object]]:
    yield gateway_objects.listener_overrides(gateway_objects.FRONT_DOOR, {"us-east": 20000}), gateway_objects.front_door_gateway()
    yield gateway_objects.listener_overrides(gateway_objects.EGRESS, {"us-east": 20000}), gateway_objects.egress_gateway()
    yield routes.cluster_header_overrides(["us-east"]), routes.regional_routes("chat")
    yield stream_relay.port_overrides({"us-east": (20002, 20003)}), stream_relay.relay_entry()
    order = regions.order_overrides("chat", [EAST, WEST], {"us-east": "us-west"})
    assert order is not None
    yield order, regions.destination_rule("chat", [EAST, WEST], NUMBERS)


@pytest.mark.parametrize(("policy", "target"), list(overrides()), ids=lambda each: each["metadata"]["name"])
def test_every_override_selects_its_object_and_points_at_a_field_that_exists(policy: Object, target: Object) -> None:
    """Karmada fails a copy whose pointer leads nowhere."""
    assert overridden(target, [policy], "us-east") != target
    assert overridden(target, [policy], "elsewhere") == target


def test_an_override_that_leads_nowhere_is_an_error() -> None:
    policy = gateway_objects.listener_overrides(gateway_objects.FRONT_DOOR, {"us-east": 20000})
    broken = gateway_objects.front_door_gateway()
    del broken["spec"]["servers"][0]["bind"]
    with pytest.raises(KeyError, match="/spec/servers/0/bind"):
        overridden(broken, [policy], "us-east")


def test_answers_name_cluster_and_model() -> None:
    regional = overridden(routes.regional_routes("chat"), [routes.cluster_header_overrides(["us-east"])], "us-east")
    for route in regional["spec"]["http"]:
        assert route["headers"]["response"]["set"] == {"x-fleet-cluster": "us-east", "x-fleet-model": "chat"}


def test_local_gateways_listen_on_loopback() -> None:
    moved = overridden(
        gateway_objects.regional_gateway(), [gateway_objects.listener_overrides(gateway_objects.REGIONAL_GATEWAY, {"us-east": 20001})], "us-east"
    )
    (server,) = moved["spec"]["servers"]
    assert (server["bind"], server["port"]["number"]) == ("127.0.0.1", 20001)


# What goes where


def everything() -> list[Object]:
    return [
        gateway_objects.front_door_gateway(),
        gateway_objects.regional_gateway(),
        gateway_objects.egress_gateway(),
        routes.predictors_rule(NUMBERS),
        stream_relay.relay_entry(),
        stream_relay.relay_rule(1),
        envoy_filters.front_door_filter(NUMBERS, RELAY),
        envoy_filters.regional_filter(NUMBERS),
        *model(*THREE, streams=RELAY).objects().values(),
    ]


def test_everything_of_the_mesh_goes_to_every_member() -> None:
    assert all(each["metadata"]["labels"][labels.LABEL_PROPAGATE] == "all" for each in everything())
    assert all(each["metadata"]["namespace"] in (labels.NAMESPACE_MODELS, labels.NAMESPACE_INGRESS) for each in everything())


def test_filters_of_envoy_are_read_only_in_the_namespace_of_the_gateways() -> None:
    filters = [each for each in everything() if each["kind"] == "EnvoyFilter"]
    assert len(filters) == 3
    for each in filters:
        assert each["metadata"]["namespace"] == labels.NAMESPACE_INGRESS
        # Without one it would change every proxy of the namespace.
        assert each["spec"]["workloadSelector"]["labels"]["istio"] in ("front-door", "regional-gateway")


def test_no_name_of_a_model_makes_two_objects_of_one() -> None:
    names = [(each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]) for each in everything()]
    for name in ("front-door", "regional-gateway", "stream-relay", "predictors"):
        other = ModelRoutes(model=name, endpoints=[EAST, WEST], failover=NUMBERS, streams=RELAY)
        own = [(each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]) for each in other.objects().values()]
        assert not set(own) & set(names)


def test_a_model_outside_a_stack_gets_the_same_objects() -> None:
    declared = model(EAST, WEST).objects().values()
    found = routes.resolved(model(EAST, WEST), "us-east", "us-east")
    assert [(each["kind"], each["metadata"]) for each in found] == [(each["kind"], each["metadata"]) for each in declared]
    entry = routes.pods_entry("chat", [("127.0.0.1", 9001)])
    assert entry["spec"]["hosts"] == [each["destination"]["host"] for each in named(found[-1])["ready"]["route"]]
