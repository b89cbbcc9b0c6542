"""How a drill is put together: what stands in for a model, when a lost model counts as replaced, what the command returns."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import OutputValue

from core.errors import FleetError
from local.host_cluster import HostCluster
from operations.drills import preflight, run, series, traffic
from operations.drills.case import Options, Plan
from operations.drills.cases import CASES
from operations.drills.cases.replace import agree, replaced
from operations.drills.faults import mock_engine, packet_filter
from operations.drills.faults.errors import Mark, Say, Step
from operations.drills.faults.fault import Fault
from operations.drills.faults.journal import Journal
from operations.drills.load import Clock, Traffic
from operations.drills.mocks import engine, objects
from operations.drills.plan import resolve
from operations.drills.result import DrillResult
from operations.drills.run import Stage, longest_wait
from operations.drills.traffic import calibrate, first_rate, planned
from operations.status import ClusterState, FleetState, HubState, ModelState
from tests.unit import drills
from tests.unit.test_drill_plan import DOORS, OUTPUTS, Running, fleet
from toolchain import paths


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(preflight, "all_clusters", lambda: [Running(name) for name in ("hub", *DOORS)])
    monkeypatch.setattr(packet_filter, "refusal", lambda: "")
    return tmp_path


def laid(case: str = "kill", **chosen: Any) -> Plan:
    return resolve(Options(case=case, mock_engine=True, **chosen), fleet(), OUTPUTS)


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name))


class TestStandIns:
    def test_a_member_gets_what_a_declared_model_has_and_its_own_process_behind_it(self) -> None:
        found = objects(laid(), "eu-west")
        pods = named(found, "ServiceEntry", "drill-predictor")
        assert pods["spec"]["endpoints"][0]["ports"] == {"http": HostCluster("eu-west").port(mock_engine.unit_name("drill"))}
        regions = named(found, "ServiceEntry", "drill")
        assert [each["locality"] for each in regions["spec"]["endpoints"]] == ["us-east", "us-west"]
        assert named(found, "VirtualService", "drill-regional")["spec"]["http"][0]["headers"]["response"]["set"]["x-fleet-cluster"] == "eu-west"

    def test_a_model_with_published_settings_stands_beside_it(self) -> None:
        found = objects(laid(baseline=True), "eu-west")
        policy = named(found, "DestinationRule", "drill-published")["spec"]["trafficPolicy"]
        assert policy["outlierDetection"] == {"consecutive5xxErrors": 3, "interval": "10s", "baseEjectionTime": "30s", "maxEjectionPercent": 50}
        assert policy["loadBalancer"]["localityLbSetting"]["failover"] == [
            {"from": "us-east", "to": "us-west"},
            {"from": "us-west", "to": "us-east"},
            {"from": "eu-west", "to": "us-east"},
        ]
        # No retries of its own: Istio's default is part of what is compared.
        assert "retries" not in named(found, "VirtualService", "drill-published-front-door")["spec"]["http"][0]

    def test_residency_has_one_region_and_servers_in_all(self) -> None:
        here = laid("residency")
        for cluster in DOORS:
            found = objects(here, cluster)
            assert [each["locality"] for each in named(found, "ServiceEntry", "drill")["spec"]["endpoints"]] == ["eu-west"]
            assert named(found, "ServiceEntry", "drill-predictor")["spec"]["endpoints"]

    def test_a_region_takes_half_more_than_the_first_load_of_an_overload(self) -> None:
        here = laid("overload")
        made = engine(here, first_rate(here))
        seconds = made.tokens * made.token_milliseconds / 1000
        regions = len(here.serving)
        under_way = first_rate(here) * seconds
        assert under_way < made.capacity
        # The first surge fits into all regions, the second does not.
        assert made.capacity < 2 * under_way < regions * made.capacity < 4 * under_way

    def test_streams_are_long_enough_to_be_under_way(self) -> None:
        made = engine(laid(stream=True), 50)
        assert made.tokens * made.token_milliseconds > 1000


def test_what_a_loss_may_cost_counts_the_slowest_answer_before_it() -> None:
    records = [{"due": 1.0, "firstToken": 1.2, "end": 1.3}, {"due": 2.0, "firstToken": 2.9, "end": 3.1}, {"due": 2.0, "firstToken": None, "end": 2.1}]
    assert longest_wait(records, fault=3.0, before=0.1) == pytest.approx(0.2)
    assert longest_wait(records, fault=3.0, before=0.5) == 0.5


class TestCalibration:
    """The machine of these tests serves 10 requests per second."""

    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(traffic: list[Traffic], timeout_s: float = 60.0) -> list[dict[str, Any]]:
            late = max(0.0, traffic[0].rate / 10 - 1)
            dues = [place / traffic[0].rate for place in range(traffic[0].requests)]
            return [{"label": "main", "due": due, "firstToken": due * (1 + late) + 0.02, "end": due * (1 + late) + 0.02, "outcome": "ok"} for due in dues]

        monkeypatch.setattr(traffic, "load_run", answer)

    def test_without_a_wish_it_is_as_much_as_the_machine_serves(self) -> None:
        rate, waited = calibrate(resolve(Options(case="kill"), fleet(), OUTPUTS), lambda told: None)
        assert rate == 6.25
        assert waited == pytest.approx(0.02)

    def test_a_rate_that_is_too_much_is_refused_before_anything_breaks(self) -> None:
        with pytest.raises(FleetError, match=r"this machine does not serve 40 requests/s without a fault: answers take longer and longer") as refused:
            calibrate(resolve(Options(case="kill", rate=40.0), fleet(), OUTPUTS), lambda told: None)
        assert refused.value.hint == "--rate 20"


class TestLength:
    def test_every_part_has_its_time_at_any_rate(self) -> None:
        assert planned(laid(requests=10), 5.0) == 95
        assert planned(laid(requests=500), 5.0) == 500

    def test_statistics_take_ten_thousand(self) -> None:
        assert planned(laid(), 100.0) == 10_000


def seen(hub: Mapping[str, int], ready: Mapping[str, int], *, is_ready: bool = True) -> FleetState:
    clusters = {name: ClusterState(name, models={"llama-3-70b": ModelState(count, count, "H100")}) for name, count in ready.items()}
    return FleetState({}, HubState(scheduled={"llama-3-70b": dict(hub)}, ready={"llama-3-70b": is_ready}), clusters)


class TestReplacement:
    """llama-3-70b has six replicas, three of them in us-east, which is lost."""

    @pytest.mark.parametrize(
        ("told", "want"),
        [
            pytest.param(seen({"us-east": 3, "us-west": 2, "eu-west": 1}, {"us-west": 2, "eu-west": 1}), False, id="not moved yet"),
            pytest.param(seen({"us-west": 4, "eu-west": 2}, {"us-west": 2, "eu-west": 1}), False, id="moved and not ready"),
            pytest.param(seen({"us-west": 4, "eu-west": 2}, {"us-west": 4, "eu-west": 2}, is_ready=False), False, id="the hub does not know yet"),
            pytest.param(seen({"us-west": 4, "eu-west": 2}, {"us-west": 4, "eu-west": 2}), True, id="ready elsewhere"),
        ],
    )
    def test_it_is_replaced_when_every_replica_is_ready_elsewhere(self, told: FleetState, want: bool) -> None:
        assert replaced(told, laid("replace")) is want

    def test_hub_and_mesh_agree_when_they_name_the_same_clusters_with_as_many(self) -> None:
        here, state = laid("replace"), seen({"us-west": 4, "eu-west": 2}, {"us-west": 4, "eu-west": 2})
        assert agree(state, here, None)
        assert agree(state, here, {"us-west": 4, "eu-west": 2, "us-east": 0})
        assert not agree(state, here, {"us-west": 4, "eu-west": 1})
        assert not agree(seen({"us-west": 4, "eu-west": 2}, {"us-west": 4, "eu-west": 2, "us-east": 1}), here, None)


class Told(Fault):
    """A fault that breaks nothing and notes what is asked of it."""

    def __init__(self, journal: Journal, end: BaseException | None = None) -> None:
        super().__init__(journal)
        self.end = end
        self.asked: list[str] = []

    def steps(self) -> list[Step]:
        return [{"undo": "thaw", "cluster": "nowhere"}]

    def prepare(self, mark: Mark) -> None:
        self.asked.append("prepare")

    def act(self) -> None:
        # Noted before it is done.
        assert self.journal.steps() == self.steps()
        self.asked.append("act")

    def last(self, seconds: float, mark: Mark) -> None:
        self.asked.append("last")
        if self.end:
            raise self.end

    def heal(self, say: Say = lambda _: None) -> None:
        self.asked.append("heal")
        super().heal(say)


class Calm:
    """A load that only has a clock: every wait is over at once."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def wait(self, until: float) -> None:
        self.at = max(self.at, until)


class TestFault:
    @pytest.fixture(autouse=True)
    def made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run, "make", lambda driver, name, scene: self.fault)

    def harm(self, end: BaseException | None) -> tuple[Told, Clock]:
        here, journal = laid(requests=1000), Journal()
        fault = self.fault = Told(journal, end)
        stage = Stage(here, {}, journal, 50.0, lambda told: None)
        stage.ready_urls = []
        load: Any = Calm()
        clock = Clock(load)
        if end is None:
            stage.harm(load, clock)
        else:
            with pytest.raises(type(end)):
                stage.harm(load, clock)
        return fault, clock

    def test_it_comes_and_is_mended_at_its_time(self) -> None:
        fault, clock = self.harm(None)
        assert fault.asked == ["prepare", "act", "last", "heal"]
        assert list(clock.marks) == ["fault", "heal", "healthy"]
        assert not fault.journal.steps()

    @pytest.mark.parametrize("end", [KeyboardInterrupt(), FleetError("the load broke off")], ids=["Ctrl-C", "an error"])
    def test_whatever_ends_it_early_it_is_mended(self, end: BaseException) -> None:
        fault, _ = self.harm(end)
        assert fault.asked == ["prepare", "act", "last", "heal"]
        assert not fault.journal.steps()


class TestCommand:
    @pytest.fixture
    def results(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], list[DrillResult]]]:
        """What each case leaves; a case may be replaced by a test."""
        made: dict[str, Callable[[], list[DrillResult]]] = {}
        (state / "pulumi" / ".pulumi" / "stacks").mkdir(parents=True)
        monkeypatch.setattr(series, "deployed", lambda stack: {name: OutputValue(value, False) for name, value in OUTPUTS.items()})
        monkeypatch.setattr(series, "read_fleet", lambda stack: fleet())

        def drill(here: Plan, outputs: Any, number: int, say: Any) -> list[DrillResult]:
            return made.get(here.case.name, lambda: [drills.drilled(here.case.name)])()

        monkeypatch.setattr(run, "drill", drill)
        return made

    def run(self, *options: str) -> None:
        from operations.cli import parse

        arguments = parse(["drill", *options])
        arguments.run(arguments)

    def test_a_drill_that_kept_its_goals_ends_well_and_leaves_its_result(self, results: object, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.run("kill", "--mock-engine", "--json", str(state / "kill.json"))
        assert "passed" in capsys.readouterr().out
        assert DrillResult.from_json((state / "kill.json").read_text()).case == "kill"

    def test_a_goal_that_was_not_kept_is_an_error(self, results: dict[str, Any], state: Path) -> None:
        lossy = drills.drilled("kill", requests=[*drills.records(0, 10, "us-west"), *(drills.refused(10 + place, 503) for place in range(10))])
        results["kill"] = lambda: [lossy]
        with pytest.raises(FleetError, match="1 of 1 drills did not keep their goals: kill"):
            self.run("kill", "--mock-engine", "--json", str(state / "kill.json"))
        assert (state / "kill.json").exists()

    def test_a_series_that_is_cut_off_keeps_what_it_has(self, results: dict[str, Any], state: Path) -> None:
        turns = iter([False, True])

        def second_is_cut_off() -> list[DrillResult]:
            if next(turns):
                raise KeyboardInterrupt
            return [drills.drilled("kill")]

        results["kill"] = second_is_cut_off
        with pytest.raises(KeyboardInterrupt):
            self.run("kill", "--mock-engine", "--repeat", "2", "--json", str(state / "kill.json"))
        assert DrillResult.from_json((state / "kill.json").read_text()).case == "kill"

    def test_a_run_that_could_not_end_stops_no_other_of_its_series(self, results: dict[str, Any], state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        turns = iter([False, True, False])

        def second_cannot_end() -> list[DrillResult]:
            if next(turns):
                raise FleetError("us-east cannot serve drill")
            return [drills.drilled("kill")]

        results["kill"] = second_cannot_end
        with pytest.raises(FleetError, match=r"^kill, run 2 of 3: us-east cannot serve drill$"):
            self.run("kill", "--mock-engine", "--repeat", "3", "--json", str(state / "kill.json"))
        assert len(json.loads((state / "kill.json").read_text())) == 2

    def test_all_means_each_case_in_turn(self, results: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        # Made-up results of one region's death keep the goals of few other cases.
        with pytest.raises(FleetError, match="drills did not keep their goals"):
            self.run("all", "--mock-engine")
        told = capsys.readouterr()
        for case in CASES.values():
            assert f"{case.name}: {case.summary} (" in told.err

    def test_what_cannot_be_done_here_is_left_out_of_all_with_the_reason(
        self, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(packet_filter, "refusal", lambda: "it takes root")
        with pytest.raises(FleetError, match="drills did not keep their goals"):
            self.run("all", "--mock-engine")
        told = capsys.readouterr().err
        assert "blackhole is left out: blackhole: it takes root" in told
        assert "hang: " in told
