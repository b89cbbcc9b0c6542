"""The short drills: regions are broken under load, callers do not notice, and everything is as before when they end.

A goal that a drill misses fails its test, if the machine was steady before the fault. One that is busy with other tests is not: then what
became of the requests counts, and only `test_a_killed_region_keeps_every_goal` insists on a steady machine.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import processes
from operations.drills.goals import Line
from operations.drills.result import DrillResult
from operations.drills.verdict import analysed, judge, too_busy
from tests.fleet.conftest import FOLDER, Fleet, Ran, wait_until

# From the start of the command until it makes its fault: mock engines, a short load to see what the machine serves, the baseline.
_FAULT_COMES_S = 120.0
# Of the drill whose times must be judged, while the machine is too busy for it.
_TRIES = 3


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(whole: tuple[Fleet, Ran]) -> Iterator[None]:
    """Whatever a test of this module leaves is mended by the way that a user has, and the next one finds every model in its place."""
    yield
    whole[0].fleet("up")
    whole[0].settle()


def journal(fleet: Fleet) -> Path:
    return fleet.state / "drill" / "undo.json"


def attempt(fleet: Fleet, case: str, *options: str) -> tuple[DrillResult | None, Ran]:
    """Without a result where the machine does not serve the load even without a fault."""
    file = FOLDER / "drill.json"
    file.unlink(missing_ok=True)
    ran = fleet.fleet("drill", case, "--json", str(file), *options, check=False)
    assert not journal(fleet).exists(), ran.text
    assert not mock_engines(fleet)
    return DrillResult.from_json(file.read_text()) if file.exists() else None, ran


def missed(result: DrillResult) -> list[Line]:
    return list(judge(result, analysed(result)).failed)


def drilled(fleet: Fleet, case: str, *options: str) -> DrillResult:
    result, ran = attempt(fleet, case, *options)
    assert result is not None, ran.text
    assert "GOAL" in ran.out
    assert ran.code == (1 if missed(result) else 0), ran.text
    # vLLM on two cores: so few requests that their 99th percentile is the slowest of them.
    if result.backend != "vllm" and not too_busy(analysed(result)):
        assert missed(result) == [], ran.text
    return result


def test_a_killed_region_keeps_every_goal(fleet: Fleet) -> None:
    busy: list[str] = []
    for _ in range(_TRIES):
        result, ran = attempt(fleet, "kill", "--mock-engine", "--rate", "40", "--requests", "800")
        why = ran.err if result is None else too_busy(analysed(result))
        if result is not None and not why:
            assert missed(result) == [], ran.text
            return
        assert result is not None or "this machine does not serve" in ran.err, ran.text
        busy.append(why)
    pytest.fail("this machine is too busy to judge a drill, run the test where nothing else runs:\n" + "\n".join(busy))


def mock_engines(fleet: Fleet) -> list[str]:
    """What is left of them: units of clusters, objects of Istio."""
    left = [str(path) for path in (fleet.state / "clusters").glob("*/units/mock-engine-*")]
    for cluster in ("us-east", "us-west", "eu-west"):
        with fleet.kube(cluster) as api:
            for kind in ("VirtualService", "ServiceEntry", "DestinationRule"):
                left += [
                    f"{cluster} {kind} {each['metadata']['name']}"
                    for each in api.list("networking.istio.io/v1", kind, label_selector="inference-fleet.dev/drill")
                ]
    return left


def failed(result: DrillResult) -> list[Any]:
    return [each for each in result.requests if each["outcome"] != "ok"]


def answered(result: DrillResult, begin: str, end: str) -> set[str]:
    """Clusters that answered requests which were due between two marks."""
    return {each["cluster"] for each in result.requests if result.marks[begin] <= each["due"] < result.marks[end] and each["outcome"] == "ok"}


class TestCallersDoNotNotice:
    def test_a_region_with_real_engines_is_killed(self, fleet: Fleet) -> None:
        result = drilled(fleet, "kill", "--rate", "4", "--requests", "80")
        assert failed(result) == []
        assert result.backend == "vllm"
        assert answered(result, "fault", "heal") == {"us-west"}
        # It came back and was used again.
        assert "us-east" in answered(result, "healthy", "end")

    def test_a_region_freezes_and_streams_under_way_go_on_elsewhere(self, fleet: Fleet) -> None:
        result = drilled(fleet, "hang", "--mock-engine", "--stream", "--rate", "15", "--requests", "300")
        assert failed(result) == []
        assert any(each["resumed"] for each in result.requests)
        assert answered(result, "heal", "end") == {"us-east", "us-west"}

    def test_a_region_is_drained(self, fleet: Fleet) -> None:
        result = drilled(fleet, "drain", "--mock-engine", "--rate", "40", "--requests", "800")
        assert failed(result) == []
        assert "stopped" in result.marks

    def test_a_region_is_killed_while_the_hub_is_away(self, fleet: Fleet) -> None:
        result = drilled(fleet, "hub-down", "--mock-engine", "--rate", "40", "--requests", "800")
        assert failed(result) == []
        assert "hub" in fleet.fleet("status").out


def test_a_model_that_must_stay_in_one_jurisdiction_answers_503_rather_than_leave_it(fleet: Fleet) -> None:
    result = drilled(fleet, "residency", "--rate", "40", "--requests", "800")
    assert result.clusters == ["eu-west"]
    assert {each["cluster"] for each in result.requests if each["outcome"] == "ok"} == {"eu-west"}
    lost = [each for each in result.requests if result.marks["all-down"] <= each["due"] < result.marks["heal"]]
    assert lost
    assert {each["status"] for each in lost} == {503}
    assert all(each["error"].startswith(("no_region: ", "region_lost: ")) for each in lost)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (("kill", "--model", "llama-3-70b"), "no server stands behind llama-3-70b"),
            (("kill", "--cluster", "mars"), "no cluster `mars` in stack `local`"),
            (("kill", "--model", "mars"), "no model `mars` in stack `local`"),
            (("strike",), "case: must be one of kill, hang, "),
            (("kill", "--baseline"), "--baseline: needs --mock-engine"),
            (("kill", "--rate", "50", "--requests", "10"), "--requests: 10 at 50 a second last 0 s"),
            (("kill", "-s", "nowhere"), "no stack file for `nowhere`"),
        ],
    )
    def test_it_is_told_at_once_and_nothing_is_touched(self, fleet: Fleet, options: tuple[str, ...], told: str) -> None:
        before = fleet.processes()
        refused = fleet.fleet("drill", *options, check=False)
        assert refused.code == 1, refused.text
        assert told in refused.err
        assert "Traceback" not in refused.err
        assert fleet.processes() == before
        assert not journal(fleet).exists()

    def test_without_a_fleet_it_says_how_to_get_one(self, spare: Fleet) -> None:
        refused = spare.fleet("drill", "kill", check=False)
        assert (refused.code, refused.err) == (1, "error: no fleet is up in spare/\nhint: make up\n")


def _await_fault(fleet: Fleet, drill: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + _FAULT_COMES_S
    while not _frozen(fleet):
        assert drill.poll() is None, drill.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _frozen(fleet: Fleet) -> list[int]:
    return [pid for pid in fleet.processes() if processes.is_stopped(pid)]


_HANG = ("hang", "--mock-engine", "--rate", "20", "--requests", "1200")


class TestInterrupted:
    def test_a_second_drill_and_an_update_wait_for_the_first(self, fleet: Fleet) -> None:
        with fleet.begin("drill", *_HANG) as drill:
            _await_fault(fleet, drill)
            for command in (("drill", "kill"), ("up",)):
                refused = fleet.fleet(*command, check=False)
                assert refused.code == 1, refused.text
                assert f"`fleet drill hang` (process {drill.pid}) is at work on this fleet" in refused.err
            os.killpg(drill.pid, signal.SIGINT)
            told, _ = drill.communicate(timeout=120)
        assert drill.returncode == 130, told
        assert "Traceback" not in told
        assert not _frozen(fleet)
        assert not journal(fleet).exists()
        assert not mock_engines(fleet)

    def test_what_a_killed_drill_broke_is_mended_by_the_next_command(self, fleet: Fleet) -> None:
        with fleet.begin("drill", *_HANG) as drill:
            _await_fault(fleet, drill)
            drill.kill()
            drill.wait(10)
        assert _frozen(fleet)
        noted = [each["undo"] for each in json.loads(journal(fleet).read_text())]
        assert noted == ["remove mock engines", "thaw"]
        # Refused by its options only after it has mended: that is its first work on the fleet.
        refused = fleet.fleet("drill", "kill", "--model", "mars", check=False)
        assert "an interrupted drill left 2 faults to undo" in refused.err
        assert not _frozen(fleet)
        assert not journal(fleet).exists()
        assert not mock_engines(fleet)
        wait_until(lambda: fleet.ask("us-east").status_code == 200, "us-east to answer", 60)
