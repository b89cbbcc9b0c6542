"""What a drill refuses before it touches anything, and what it chooses where nobody did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import FleetError
from operations.drills import options, preflight
from operations.drills.case import TAIL_S, Options, Plan, shortest, timing
from operations.drills.cases import CASES
from operations.drills.faults import packet_filter
from operations.drills.options import check_options
from operations.drills.plan import computed, resolve
from operations.status import ClusterState, FleetState, HubState, ModelState
from specs.fleet import FleetSpec
from tests.unit import fleets
from tests.unit.fleets import parse_fleet

LOCAL = next(each for each in fleets.stack_files() if each.name == "Pulumi.local.yaml")
DOORS = {name: f"http://127.0.0.1:{port}" for port, name in enumerate(("us-east", "us-west", "eu-west"), start=20000)}
OUTPUTS: dict[str, Any] = {"endpoints": {"frontDoors": DOORS}}

Change = Callable[[dict[str, Any]], None]


class Running:
    """A local cluster that runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def alive(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def all_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "all_clusters", lambda: [Running(name) for name in ("hub", *DOORS)])
    monkeypatch.setattr(packet_filter, "refusal", lambda: "")


def fleet(change: Change = lambda spec: None) -> FleetSpec:
    spec = fleets.read(LOCAL)
    change(spec)
    return parse_fleet(spec)


def planned(case: str, change: Change = lambda spec: None, **chosen: Any) -> Plan:
    return resolve(Options(case=case, **chosen), fleet(change), OUTPUTS)


def model(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda spec: next(each for each in spec["models"] if each["name"] == name)


class TestOptions:
    @pytest.mark.parametrize(
        ("chosen", "told"),
        [
            ({"case": "kil"}, "case: must be one of kill, hang, "),
            ({"case": "kill", "rate": 0.0}, "--rate: must be above 0, got: `0`"),
            ({"case": "kill", "requests": 0}, "--requests: must be 1 or more, got: `0`"),
            ({"case": "kill", "tokens": 0}, "--tokens: must be 1 or more, got: `0`"),
            ({"case": "kill", "repeat": 0}, "--repeat: must be 1 or more, got: `0`"),
            ({"case": "kill", "baseline": True}, "--baseline: needs --mock-engine"),
            ({"case": "gateway", "baseline": True, "mock_engine": True}, "--baseline: says nothing in the case `gateway`"),
            ({"case": "kill", "meant": "us-east"}, "--yes-i-mean: is for fleets that are not local"),
            ({"case": "kill", "meant": "us-east", "cluster": "us-west", "not_local": True}, "--yes-i-mean: must be the cluster of --cluster `us-west`"),
            ({"case": "all", "cluster": "us-east"}, "all: every case chooses its own region"),
            ({"case": "kill", "json_file": Path("/nowhere/at/all.json")}, "--json: no such folder: `/nowhere/at`"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_its_name(self, chosen: dict[str, Any], told: str) -> None:
        with pytest.raises(FleetError) as refused:
            check_options(Options(**chosen))
        assert told in str(refused.value)

    def test_everything_wrong_is_told_at_once(self) -> None:
        with pytest.raises(FleetError) as refused:
            check_options(Options(case="kil", rate=-1.0, repeat=0))
        assert len(str(refused.value).splitlines()) == 3


class TestChoices:
    def test_requests_go_first_to_the_region_that_is_harmed(self) -> None:
        found = planned("kill")
        assert (found.victim, found.serving, found.mocked) == ("us-east", ("us-east", "us-west"), False)
        # The door of us-west has its own region: its requests would never see the fault.
        assert found.doors == ("eu-west",)

    def test_mock_engines_make_any_region_the_first_one(self) -> None:
        found = planned("kill", mock_engine=True, cluster="us-west")
        assert (found.serving, found.doors, found.victim_first) == (("us-west", "us-east"), ("eu-west",), False)

    def test_in_a_fleet_of_two_regions_mock_engines_are_asked_first_in_the_harmed_one(self) -> None:
        def two(spec: dict[str, Any]) -> None:
            spec["clusters"] = [each for each in spec["clusters"] if each["name"] != "eu-west"]
            spec["models"] = [model("tiny-chat")(spec)]

        outputs = {"endpoints": {"frontDoors": {name: DOORS[name] for name in ("us-east", "us-west")}}}
        found = resolve(Options(case="kill", mock_engine=True), fleet(two), outputs)
        assert (found.doors, found.victim_first) == (("us-west",), True)

    def test_the_door_of_a_region_that_drains_stays_in_use(self) -> None:
        assert planned("drain").doors == ("us-east", "eu-west")

    def test_callers_of_a_dying_front_door_know_all_others(self) -> None:
        assert planned("gateway", cluster="eu-west").doors == ("eu-west", "us-east", "us-west")

    def test_residency_takes_the_model_that_is_bound_and_its_only_region(self) -> None:
        found = planned("residency")
        assert (found.model.name, found.serving, found.victim, found.mocked) == ("qwen-eu", ("eu-west",), "eu-west", True)
        assert found.doors == ("us-east", "us-west")

    def test_replace_takes_a_model_that_is_ready_at_once_and_says_who_answers(self) -> None:
        found = planned("replace")
        assert (found.model.name, found.mocked) == ("llama-3-70b", True)
        assert "simulated" in found.notes[0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("chosen", "told", "hint"),
        [
            ({"model": "tiny-caht"}, "no model `tiny-caht` in stack `local`", "tiny-chat, llama-3-70b, qwen-eu"),
            ({"cluster": "us-wset"}, "no cluster `us-wset` in stack `local`", "us-east, us-west, eu-west"),
            ({"cluster": "eu-west"}, "eu-west does not serve tiny-chat: nothing would happen", "us-east, us-west"),
            ({"model": "llama-3-70b"}, "no server stands behind llama-3-70b", "--mock-engine"),
            ({"model": "qwen-eu", "mock_engine": True}, "qwen-eu is served in one region only, eu-west", "two regions"),
            ({"cluster": "us-west"}, "no front door outside us-west sends requests there first", "harm us-east"),
            ({"doors": ("us-east",)}, "--doors: the door of us-east is harmed with its region", "name others"),
            ({"doors": ("mars",)}, "--doors: no cluster `mars`", "us-east"),
            ({"rate": 50.0, "requests": 100}, "--requests: 100 at 50 a second last 2 s, and `kill` takes 19 s", "--requests 950"),
        ],
    )
    def test_it_says_what_is_wrong_and_what_would_be_right(self, chosen: dict[str, Any], told: str, hint: str) -> None:
        with pytest.raises(FleetError) as refused:
            planned("kill", **chosen)
        assert told in str(refused.value)
        assert hint in refused.value.hint

    def test_a_fleet_with_one_region_has_nowhere_to_go(self) -> None:
        def one(spec: dict[str, Any]) -> None:
            spec["clusters"] = [each for each in spec["clusters"] if each["name"] == "us-east"]
            tiny = model("tiny-chat")(spec)
            tiny["placement"] = {"clusters": [{"name": "us-east"}], "minimumClusters": 1}
            tiny["objectives"] = {}
            spec["models"] = [tiny]

        with pytest.raises(FleetError, match="no model in two regions"):
            planned("kill", one)
        with pytest.raises(FleetError, match="the fleet has one region: nothing can take over"):
            planned("kill", one, model="tiny-chat")

    def test_a_machine_that_drops_no_packets_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packet_filter, "refusal", lambda: "no packets can be dropped: it takes root")
        with pytest.raises(FleetError, match="blackhole: no packets can be dropped: it takes root"):
            planned("blackhole")

    def test_an_engine_that_refuses_nobody_cannot_be_overloaded(self) -> None:
        with pytest.raises(FleetError, match=r"runtime\.maxQueued is not set"):
            planned("overload", lambda spec: model("tiny-chat")(spec)["runtime"].pop("maxQueued", None))

    def test_a_region_that_is_down_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preflight, "all_clusters", lambda: [Running(name) for name in ("hub", "us-east", "us-west")])
        with pytest.raises(FleetError, match="eu-west is not running"):
            planned("kill")

    def test_a_fleet_elsewhere_must_be_meant(self) -> None:
        there = fleet(lambda spec: fleets.make_existing(spec["clusters"][2]))
        with pytest.raises(FleetError, match="is not on this machine alone: eu-west; a drill harms what it runs on"):
            options.allow(Options(case="kill"), there)
        with pytest.raises(FleetError, match="the cluster to harm must be named"):
            options.allow(Options(case="kill", not_local=True), there)
        with pytest.raises(FleetError, match="kill cannot be made in eu-west, which is not local"):
            options.allow(Options(case="kill", not_local=True, cluster="eu-west"), there)
        with pytest.raises(FleetError, match="must be confirmed"):
            options.allow(Options(case="overload", not_local=True, cluster="eu-west"), there)
        options.allow(Options(case="overload", not_local=True, cluster="eu-west", meant="eu-west"), there)


class TestState:
    def test_a_model_must_be_ready_in_every_region_that_serves_it(self) -> None:
        found = planned("kill")
        clusters = {"us-east": ClusterState("us-east", models={"tiny-chat": ModelState(1, 1, "cpu")}), "us-west": ClusterState("us-west")}
        with pytest.raises(FleetError, match="tiny-chat has no ready replica in us-west"):
            preflight.check_state(found, FleetState({}, HubState(), clusters))

    def test_a_door_that_is_away_is_named_with_its_address(self) -> None:
        found = planned("kill")
        with pytest.raises(FleetError, match=r"the front door of eu-west is not reachable: http://127\.0\.0\.1:20002/tiny-chat/"):
            preflight.check_doors(found, [found.path])


class TestTimes:
    @pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
    @pytest.mark.parametrize("more", [0.0, 3.0, 40.0, 400.0])
    def test_every_part_has_its_time(self, case: Any, more: float) -> None:
        seconds = shortest(case) + more
        found = timing(case, seconds)
        assert found.fault >= case.baseline_s
        assert found.heal - found.fault >= case.fault_s - 1e-9
        assert found.end - found.heal >= TAIL_S - 1e-9

    def test_a_long_load_does_not_make_the_outage_long(self) -> None:
        found = timing(CASES["kill"], 600.0)
        assert found.heal - found.fault == 30.0


class TestPromises:
    def test_what_is_computed_follows_from_the_stack_and_the_load(self) -> None:
        found = planned("hang")
        promised = computed(found, 50.0, waited=0.02)
        later = computed(found, 50.0, waited=0.52)
        assert promised["added"] is not None
        assert later["added"] == pytest.approx(promised["added"] + 0.5)
        # Fewer requests, later notice.
        rare = computed(found, 1.0, waited=0.02)
        assert rare["left"] == pytest.approx((promised["left"] or 0) + 0.98)

    def test_a_replacement_has_a_time_of_its_own(self) -> None:
        assert computed(planned("replace"), 50.0, waited=0.0)["replaced"] == pytest.approx(20, abs=5)
