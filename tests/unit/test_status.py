"""`fleet status` of a fleet whose hub has a name of its own."""

from typing import Any

import pytest

from core.errors import FleetError
from operations import bring_up, hub, status
from operations.status import ClusterState, FleetState, HubState, ModelState
from tests.unit import fleets
from tests.unit.test_fleet import declare

CLUSTERS = {"east": {"region": "us-east", "driver": "local"}}


def outputs(name: str) -> dict[str, Any]:
    return {"hub": {"name": name}, "clusters": CLUSTERS, "placements": {}, "kubeconfigs": {name: "of the hub", "east": "of east"}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The kubeconfigs with which the hub and the members were asked."""
    seen: dict[str, list[str]] = {"hub": [], "members": []}

    def hub_state(kubeconfig: str) -> HubState:
        seen["hub"].append(kubeconfig)
        return HubState("v1.2", {"east": True})

    def cluster_state(name: str, kubeconfig: str) -> ClusterState:
        seen["members"].append(kubeconfig)
        return ClusterState(name, "v1.3")

    monkeypatch.setattr(status, "hub_state", hub_state)
    monkeypatch.setattr(status, "cluster_state", cluster_state)
    return seen


@pytest.mark.parametrize("name", ["hub", "control"])
def test_the_hub_is_found_by_the_name_that_the_stack_gave_it(asked: dict[str, list[str]], name: str) -> None:
    state = status.gather(outputs(name))
    assert asked == {"hub": ["of the hub"], "members": ["of east"]}
    assert list(state.clusters) == ["east"]
    lines = [line.split() for line in status.render(state).splitlines()]
    assert [name, "-", "-", "v1.2", "-", "-", "-"] in lines
    assert ["east", "us-east", "local", "v1.3", "Ready", "0", "-"] in lines


def test_a_stack_last_updated_before_the_outputs_named_the_hub_is_read(asked: dict[str, list[str]]) -> None:
    before = outputs("hub")
    del before["hub"]
    assert list(status.gather(before).clusters) == ["east"]
    assert asked["hub"] == ["of the hub"]


def test_outputs_without_the_hubs_kubeconfig_are_an_error_and_no_traceback() -> None:
    with pytest.raises(FleetError, match=r"kubeconfigs\.control: missing"):
        status.gather({"hub": {"name": "control"}, "kubeconfigs": {}})


def test_the_program_says_which_cluster_is_the_hub() -> None:
    raw = fleets.small()
    raw["hub"]["name"] = "control"
    _, declared = declare(raw)
    assert hub.name(declared) == "control"
    assert set(hub.member_kubeconfigs(declared)) == {"east", "west"}


def fleet(ready: bool, error: str) -> FleetState:
    """A model in a cluster that answers and serves, and in one that gives us an `error`."""
    placements = {"chat": {"near": {"weight": 1, "replicas": 1}, "far": {"weight": 1, "replicas": 1}}}
    clusters = {"near": ClusterState("near", models={"chat": ModelState(1, 1)}), "far": ClusterState("far", error=error)}
    return FleetState({"placements": placements}, HubState(members={"near": True, "far": ready}), clusters)


def test_a_lost_cluster_of_somebody_else_holds_up_no_update(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(status, "gather", lambda _: fleet(False, "https://far does not answer"))
    status.await_models({}, told.append, 60, "")
    assert told == ["warning: far is away, its models are not waited for: https://far does not answer"]


def test_a_cluster_that_karmada_reaches_and_we_do_not_is_waited_for_and_its_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "gather", lambda _: fleet(True, "nodes is forbidden"))
    with pytest.raises(FleetError, match="chat in far: nodes is forbidden"):
        status.await_models({}, lambda _: None, -1, "")


@pytest.mark.parametrize(("away", "url"), [(set[str](), "http://near/chat/v1"), ({"near"}, "http://far/chat/v1"), ({"near", "far"}, "http://near/chat/v1")])
def test_a_completion_is_tried_at_a_front_door_that_is_there(away: set[str], url: str) -> None:
    doors = {"near": "http://near", "far": "http://far"}
    endpoints = {"frontDoors": doors, "models": {"chat": {"openaiBaseUrl": "http://near/chat/v1"}}}
    assert bring_up.base_url({"endpoints": endpoints}, "chat", away) == url
