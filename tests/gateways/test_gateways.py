"""What a caller sees when pods, gateways and regions fail, behind real gateways that hold the objects of a fleet."""

import json
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from components.mesh import gateways as gateway_objects
from components.mesh import routes
from local import gateways
from tests.conftest import wait_until
from tests.gateways.conftest import CLUSTERS, EAST, EU, EXTERNAL, NUMBERS, TOKENS, WEST, Mesh, load, models, shared
from tests.gateways.pods import REVISION
from tests.gateways.tokens import KEY, REFUSAL, Issuer

Object = dict[str, Any]


def gateways_of(mesh: Mesh) -> Iterator[tuple[str, str]]:
    for cluster, names in CLUSTERS.items():
        for name in names:
            yield cluster, name


# What istiod and Envoy make of the objects


def test_no_envoy_refuses_its_configuration(mesh: Mesh) -> None:
    for cluster, gateway in gateways_of(mesh):
        stats = mesh.clusters[cluster].admin(gateway, "/stats?format=json&filter=(update_rejected|update_failure|update_success)$").json()["stats"]
        found = {each["name"]: each["value"] for each in stats if "name" in each}
        assert found["listener_manager.lds.update_success"] > 0
        assert {name: value for name, value in found.items() if name.endswith("update_rejected") and value} == {}


def test_istio_itself_takes_every_object_without_a_warning(mesh: Mesh) -> None:
    """Its webhook does not run on local clusters; elsewhere it refuses, and warns of fields of Envoy that it does not know."""
    said: list[str] = []
    objects = [*shared(EU), *(each for model in models() for each in routes.resolved(model, EU, EU))]
    for each in objects:
        group, version = each["apiVersion"].split("/")
        kind = {"group": group, "version": version, "kind": each["kind"]}
        request = {"uid": "test", "kind": kind, "operation": "CREATE", "namespace": each["metadata"]["namespace"], "object": each}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        answer = httpx.post(f"http://127.0.0.1:{mesh.clusters[EU].member.port('istiod-http')}/validate", json=review, trust_env=False)
        response = answer.raise_for_status().json()["response"]
        who = f"{each['kind']} {each['metadata']['name']}"
        if not response["allowed"]:
            said.append(f"{who}: refused: {response['status']['message']}")
        said += [f"{who}: {text}" for text in response.get("warnings", []) if "exposes internal implementation details" not in text]
    assert said == []


def _seconds(value: Any) -> Any:
    return f"{float(value.removesuffix('s')):g}s" if isinstance(value, str) and value.endswith("s") and value[0].isdigit() else value


def holds(found: Any, wanted: Any) -> bool:
    """Whether all of `wanted` is in `found`, as protobuf's JSON writes it: no zeros, durations and large numbers as text."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and all(any(holds(each, value) for each in found) for value in wanted)
    if wanted in (0, False):
        return not found
    return _seconds(found) == _seconds(wanted) or str(found) == str(wanted)


def anywhere(found: Any, wanted: Object) -> bool:
    if holds(found, wanted):
        return True
    children = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return any(anywhere(each, wanted) for each in children)


def test_every_field_of_every_filter_reaches_envoy(mesh: Mesh) -> None:
    """istiod drops a field that it does not know without a word."""
    filters = [each for each in shared(WEST) if each["kind"] == "EnvoyFilter"]
    filters += [each for model in models() for each in routes.resolved(model, WEST, WEST) if each["kind"] == "EnvoyFilter"]
    for each in filters:
        dump = mesh.clusters[WEST].admin(each["spec"]["workloadSelector"]["labels"]["istio"], "/config_dump").json()
        for patch in each["spec"]["configPatches"]:
            assert anywhere(dump, patch["patch"]["value"]), (each["metadata"]["name"], json.dumps(patch["patch"]["value"]))


@pytest.mark.parametrize(
    ("door", "model", "want"),
    [
        (WEST, "chat", [[WEST], [EAST]]),
        (EU, "chat", [[EAST], [WEST]]),
        # The own region first, then the order of the model; two clusters of one region are one step.
        (WEST, "wide", [[WEST], [EAST, EAST], ["ap-south"], ["sa-east"]]),
        (EU, "wide", [[EAST, EAST], [WEST], ["ap-south"], ["sa-east"]]),
    ],
)
def test_every_region_is_a_priority_of_its_own_in_the_order_of_the_model(mesh: Mesh, door: str, model: str, want: list[list[str]]) -> None:
    found: dict[int, list[str]] = {}
    for host in mesh.clusters[door].hosts(model):
        found.setdefault(host.get("priority", 0), []).append(host["locality"]["region"])
    assert [found[priority] for priority in sorted(found)] == want


def test_no_cluster_of_a_model_panics(mesh: Mesh) -> None:
    dump = mesh.clusters[WEST].admin(gateways.FRONT_DOOR, "/config_dump?resource=dynamic_active_clusters").json()["configs"]
    found = [each["cluster"] for each in dump if each["cluster"]["name"].endswith(".fleet.internal") and "relay" not in each["cluster"]["name"]]
    assert len(found) == len(models())
    for each in found:
        # Envoy's own is 50 %. Zero is written as nothing.
        assert each["common_lb_config"]["healthy_panic_threshold"] == {}, each["name"]


# What a caller gets


def test_a_front_door_asks_its_own_region_first_and_the_answer_says_who_served(mesh: Mesh) -> None:
    for door, region in ((WEST, WEST), (EU, EAST)):
        answer = mesh.ask(door)
        assert (answer.status_code, answer.json()["pod"]) == (200, region)
        assert (answer.headers["x-fleet-cluster"], answer.headers["x-fleet-model"], answer.headers["x-fleet-revision"]) == (region, "chat", REVISION)


def test_callers_cannot_give_orders(mesh: Mesh) -> None:
    forged = {
        "x-fleet-relay": "resume=true",
        "x-fleet-cluster": "elsewhere",
        "x-envoy-max-retries": "0",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-gateway-destination-endpoint": "127.0.0.1:1",
        "endpoint-load-metrics-format": "JSON",
    }
    mesh.pods[WEST].seconds = 0.2
    answer = mesh.ask(WEST, headers={**forged, "x-fleet-resume": "never"})
    assert (answer.status_code, answer.headers["x-fleet-cluster"]) == (200, WEST)
    (seen,) = mesh.pods[WEST].seen
    assert not set(forged) & set(seen.headers)
    # An order to the relay that is the caller's to give.
    assert seen.headers["x-fleet-resume"] == "never"


def test_the_deep_check_asks_a_pod_and_is_not_there_for_callers(mesh: Mesh) -> None:
    url = f"{mesh.clusters[WEST].regional}/chat/fleet/ready"
    answer = mesh.callers.get(url)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    assert mesh.callers.get(f"{mesh.clusters[WEST].door}/chat/fleet/ready").status_code == 404


@pytest.mark.parametrize("path", ["/chat/metrics", "/other/v1/models", "/", "/chat/v1/pause"])
def test_what_there_is_not_is_refused_as_openai_refuses(mesh: Mesh, path: str) -> None:
    for url in (mesh.clusters[WEST].door, mesh.clusters[WEST].regional):
        answer = mesh.callers.get(url + path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert set(answer.json()["error"]) == {"message", "type", "code"}
        assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == ("invalid_request_error", 404)


def test_a_model_that_no_region_can_serve_is_refused_at_once(mesh: Mesh) -> None:
    mesh.pods[EAST].stalled = True
    wait_until(lambda: not mesh.healthy(WEST, EAST, "solo"), "the only region to be out")
    answer = mesh.ask(WEST, "solo")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
    assert answer.json() == {"error": {"message": "No region can serve this model now.", "type": "no_region", "code": 503}}
    assert mesh.pods[EAST].seen == []


# Overload


def attempts(mesh: Mesh, door: str, model: str = "chat") -> dict[str, int]:
    """Requests that a front door has sent to each region."""
    return {
        host["locality"]["region"]: int(next(each.get("value", 0) for each in host["stats"] if each["name"] == "rq_total"))
        for host in mesh.clusters[door].hosts(model)
    }


def test_a_full_region_spills_at_the_second_attempt_and_is_not_ejected(mesh: Mesh) -> None:
    mesh.pods[WEST].full = True
    before = attempts(mesh, WEST)
    answers = [mesh.ask(WEST) for _ in range(20)]
    assert [(each.status_code, each.headers["x-fleet-cluster"]) for each in answers] == [(200, EAST)] * 20
    after = attempts(mesh, WEST)
    assert {region: after[region] - before[region] for region in after} == {WEST: 20, EAST: 20}
    assert mesh.healthy(WEST, WEST)


def test_when_all_are_full_the_caller_hears_when_to_come_back(mesh: Mesh) -> None:
    for pod in mesh.pods.values():
        pod.full = True
    answer = mesh.ask(EU)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]["type"]) == (429, "1", "overloaded")
    assert all(mesh.healthy(EU, region) for region in (EAST, WEST))


def test_a_large_request_is_sent_again_whole(mesh: Mesh) -> None:
    mesh.pods[WEST].full = True
    size = NUMBERS.body_buffer_bytes // 2
    answer = mesh.ask(WEST, content=bytes(size))
    assert (answer.status_code, answer.json()) == (200, {"pod": EAST, "length": size})


def test_a_request_that_may_change_something_is_sent_again_only_where_it_was_refused(mesh: Mesh) -> None:
    mesh.pods[WEST].full = True
    assert mesh.ask(WEST, path="/v1/responses").headers["x-fleet-cluster"] == EAST
    mesh.pods[WEST].full, mesh.pods[WEST].stalled = False, True
    answer = mesh.ask(WEST, path="/v1/responses")
    # The active health check may have been faster: then no pod of that region has seen it.
    assert (answer.status_code, answer.headers.get("x-fleet-cluster")) in ((503, WEST), (200, EAST))


# A pod, a cluster, a gateway fails


def test_an_engine_that_stalls_takes_its_region_out_until_it_computes_again(mesh: Mesh) -> None:
    mesh.pods[WEST].stalled = True
    # What comes before the check has failed is brought back by a retry.
    assert mesh.ask(WEST).headers["x-fleet-cluster"] == EAST
    mesh.wait_healthy(WEST, healthy=False)
    mesh.pods[WEST].seen.clear()
    assert [mesh.ask(WEST).headers["x-fleet-cluster"] for _ in range(10)] == [EAST] * 10
    assert mesh.pods[WEST].seen == []
    mesh.pods[WEST].stalled = False
    wait_until(lambda: mesh.ask(WEST).headers["x-fleet-cluster"] == WEST, "an answer from the region that computes again", 10)


def test_a_cluster_without_a_pod_of_the_model_is_out(mesh: Mesh) -> None:
    cluster = mesh.clusters[WEST]
    entry = routes.pods_entry("chat", [("127.0.0.1", mesh.pods[WEST].port)])
    try:
        cluster.declare(routes.pods_entry("chat", []))
        mesh.wait_healthy(WEST, healthy=False)
        assert mesh.ask(WEST).headers["x-fleet-cluster"] == EAST
        there = mesh.callers.get(f"{cluster.regional}/chat/fleet/ready")
        assert (there.status_code, there.json()["error"]["type"]) == (503, "no_region")
        # One model's trouble is not the other's.
        assert mesh.healthy(WEST, WEST, "talk")
    finally:
        cluster.declare(entry)


def test_a_drained_region_gets_nothing_new_and_ends_what_it_has(mesh: Mesh) -> None:
    west = mesh.clusters[WEST]
    with load(mesh, WEST, EU) as found:
        mesh.pods[WEST].seconds = 1.5
        found.wait_for(40)
        west.admin(gateways.REGIONAL_GATEWAY, "/healthcheck/fail", "POST")
        try:
            mesh.wait_healthy(WEST, healthy=False)
            # Each front door has seen it by now; what it sent before has arrived.
            found.wait_for(40)
            mesh.pods[WEST].seen.clear()
            found.wait_for(40)
            assert mesh.pods[WEST].seen == []
        finally:
            west.admin(gateways.REGIONAL_GATEWAY, "/healthcheck/ok", "POST")
        mesh.wait_healthy(WEST)
    assert found.failures == []
    assert set(found.clusters) == {EAST, WEST}
    assert "x-envoy-immediate-health-check-fail" not in mesh.ask(WEST).headers


@contextmanager
def killed(mesh: Mesh, region: str) -> Generator[None]:
    mesh.clusters[region].signal(gateways.REGIONAL_GATEWAY, signal.SIGKILL)
    try:
        yield
    finally:
        mesh.clusters[region].start_gateway(gateways.REGIONAL_GATEWAY)


@contextmanager
def frozen(mesh: Mesh, region: str) -> Generator[None]:
    mesh.clusters[region].signal(gateways.REGIONAL_GATEWAY, signal.SIGSTOP)
    try:
        yield
    finally:
        mesh.clusters[region].signal(gateways.REGIONAL_GATEWAY, signal.SIGCONT)


@pytest.mark.parametrize("fault", [killed, frozen])
def test_a_region_that_dies_loses_no_request(mesh: Mesh, fault: Any) -> None:
    mesh.pods[EAST].seconds = mesh.pods[WEST].seconds = 0.05
    with load(mesh, WEST, EU) as found:
        found.wait_for(40)
        with fault(mesh, WEST):
            mesh.wait_healthy(WEST, healthy=False)
            found.wait_for(40)
        mesh.wait_healthy(WEST)
        found.wait_for(40)
    assert found.failures == []
    assert set(found.clusters) == {EAST, WEST}
    # It is asked again, as the first where it is the own region.
    assert mesh.ask(WEST).headers["x-fleet-cluster"] == WEST


def test_with_every_region_dead_the_answer_is_an_error_that_openai_clients_read(mesh: Mesh) -> None:
    with killed(mesh, WEST), killed(mesh, EAST):
        for _ in range(5):
            answer = mesh.ask(EU)
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
            assert answer.json()["error"]["type"] in ("region_lost", "no_region")


# Who may call


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


# Through the relay's way too: behind it the token is gone.
@pytest.mark.parametrize("model", ["chat", "talk"])
def test_a_caller_with_a_token_is_served_and_the_token_stays_at_the_door(mesh: Mesh, model: str) -> None:
    answer = mesh.ask(TOKENS, model, headers=bearer(mesh.issuer.token()))
    assert answer.status_code == 200
    (seen,) = [each for pod in mesh.pods.values() for each in pod.seen]
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        (lambda _: {}, "Missing or invalid bearer token"),
        (lambda _: {"authorization": "Bearer none"}, "Jwt"),
        (lambda _: {"authorization": f"Bearer {Issuer().token()}"}, "verification fails"),
        (lambda issuer: {"authorization": f"Bearer {issuer.token(exp=int(time.time()) - 600)}"}, "expired"),
        (lambda issuer: {"authorization": f"Bearer {issuer.token(aud='billing')}"}, "Audiences"),
        (lambda issuer: {"authorization": f"Bearer {issuer.token(iss='https://elsewhere.test/')}"}, "issuer"),
        (lambda issuer: {"x-api-key": issuer.token()}, "Missing or invalid bearer token"),
    ],
    ids=["none", "nonsense", "another key", "expired", "for another service", "of another issuer", "in another header"],
)
def test_who_is_not_known_is_refused_as_openai_refuses(mesh: Mesh, headers: Any, says: str) -> None:
    answer = mesh.ask(TOKENS, headers=headers(mesh.issuer))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (401, "authentication_error", 401)
    assert says in error["message"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not any(pod.seen for pod in mesh.pods.values())


def test_a_token_in_the_query_is_none(mesh: Mesh) -> None:
    path = f"/v1/chat/completions?access_token={mesh.issuer.token()}"
    assert mesh.ask(TOKENS, path=path).status_code == 401


def test_a_service_of_ones_own_decides_and_speaks_for_itself(mesh: Mesh) -> None:
    assert mesh.ask(EXTERNAL, headers=bearer(KEY)).status_code == 200
    assert mesh.ask(EXTERNAL, "talk", headers=bearer(KEY)).status_code == 200
    refused = mesh.ask(EXTERNAL, headers=bearer("another"))
    assert (refused.status_code, refused.json()) == (401, REFUSAL)


def test_where_the_service_is_away_nobody_gets_in_and_hears_why(mesh: Mesh) -> None:
    mesh.authorizer.away.set()
    try:
        refused = mesh.ask(EXTERNAL, headers=bearer(KEY))
    finally:
        mesh.authorizer.away.clear()
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "authentication_unavailable")
    assert mesh.ask(EXTERNAL, headers=bearer(KEY)).status_code == 200


# The stream relay


def test_the_door_goes_through_its_relay_and_past_one_that_is_not_there(mesh: Mesh) -> None:
    assert gateway_objects.EGRESS == gateways.EGRESS
    west = mesh.clusters[WEST]
    # Nothing listens yet.
    assert mesh.ask(WEST, "talk").headers["x-fleet-cluster"] == WEST
    west.start(gateways.relay_unit(west.member))
    assert_relayed(mesh)
    with load(mesh, WEST, model="talk") as found:
        found.wait_for(20)
        west.signal(gateways.STREAM_RELAY, signal.SIGKILL)
        found.wait_for(60)
    assert found.failures == []
    # What may not be repeated, and what is no stream, has no business there.
    assert mesh.ask(WEST, "talk", "/v1/embeddings").status_code == 200
    west.start(gateways.relay_unit(west.member))
    assert_relayed(mesh)
    west.signal(gateways.STREAM_RELAY, signal.SIGKILL)


def assert_relayed(mesh: Mesh) -> None:
    """The relay asks for an answer that it can look into; nobody else does."""

    def relayed() -> bool:
        mesh.pods[WEST].seen.clear()
        assert mesh.ask(WEST, "talk").headers["x-fleet-cluster"] == WEST
        (seen,) = mesh.pods[WEST].seen
        assert "x-fleet-relay" not in seen.headers
        return seen.headers.get("accept-encoding") == "identity"

    wait_until(relayed, "a request through the relay")
