"""The load of a drill: the tool is run, read and ended; what it says is taken as it is."""

import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from core.errors import FleetError
from operations.drills import load
from operations.drills.load import Load, Traffic, shifted
from operations.drills.traffic import keeps_up
from toolchain import paths
from toolchain import tools as toolchain_tools

TRAFFIC = Traffic(label="main", model="chat", targets=[("east", "http://127.0.0.1:1/chat/v1/chat/completions")], rate=20.0, requests=1000)

# Answers each request of the plan 10 ms after it is due, as fleet-load tells it, until it is told to stop.
TOOL = textwrap.dedent(
    """
    import json, signal, sys, time
    plans = json.load(sys.stdin)
    stopped = False
    def stop(*_):
        global stopped
        stopped = True
    signal.signal(signal.SIGTERM, stop)
    begin = time.time()
    print(json.dumps({"begin": begin}), flush=True)
    for n in range(plans[0]["requests"]):
        due = n / plans[0]["rate"]
        while not stopped and time.time() < begin + due:
            time.sleep(0.005)
        if stopped:
            break
        for plan in plans:
            print(json.dumps({"label": plan["label"], "n": n, "due": due, "end": due + 0.01, "outcome": "ok"}), flush=True)
    print(json.dumps({"summary": {}}), flush=True)
    """
)


def use(tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "fleet-load"
    script.write_text(f"#!{sys.executable}\n{tool}")
    script.chmod(0o755)
    monkeypatch.setattr(toolchain_tools, "path", lambda name: script)
    monkeypatch.setattr(paths, "STATE", tmp_path)


class TestLoad:
    def test_it_goes_on_until_it_is_finished(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(TOOL, monkeypatch, tmp_path)
        with Load([TRAFFIC]) as running:
            assert abs(running.begin - time.time()) < 10
            running.wait(0.5)
            records = running.finish(10)
        assert [each["n"] for each in records] == list(range(len(records)))
        assert len(records) >= 10

    def test_two_loads_are_told_apart(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(TOOL, monkeypatch, tmp_path)
        with Load([TRAFFIC, Traffic(label="other", model="chat", targets=TRAFFIC.targets, rate=20.0, requests=1000)]) as running:
            running.wait(0.3)
            records = running.finish(10)
        assert {each["label"] for each in records} == {"main", "other"}

    def test_a_plan_that_is_refused_is_told_in_the_words_of_the_tool(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use("import sys; sys.exit('fleet-load: rate: must be above 0')", monkeypatch, tmp_path)
        with pytest.raises(FleetError, match="the load does not begin: fleet-load: rate: must be above 0"), Load([TRAFFIC]):
            pass

    def test_a_tool_that_breaks_off_is_not_taken_for_silence(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use("import json, sys, time\nprint(json.dumps({'begin': time.time()}), flush=True)\nsys.exit('out of memory')", monkeypatch, tmp_path)
        with pytest.raises(FleetError, match="the load ended too early: out of memory"), Load([TRAFFIC]) as running:
            running.wait(30)

    def test_whatever_ends_the_drill_ends_the_load(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(TOOL, monkeypatch, tmp_path)
        running = Load([TRAFFIC])
        with pytest.raises(KeyboardInterrupt), running:
            raise KeyboardInterrupt
        with pytest.raises(FleetError, match="ended too early"):
            running.wait(1000)

    def test_a_run_to_the_end_gives_every_record(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        use(TOOL, monkeypatch, tmp_path)
        records = load.run([Traffic(label="main", model="chat", targets=TRAFFIC.targets, rate=20.0, requests=5)])
        assert len(records) == 5


def test_a_later_load_is_put_on_the_clock_of_the_first() -> None:
    later = shifted([{"due": 1.0, "sent": 1.0, "headers": None, "firstToken": None, "end": 1.5, "outcome": "reset"}], 10.0)
    assert later == [{"due": 11.0, "sent": 11.0, "headers": None, "firstToken": None, "end": 11.5, "outcome": "reset"}]


def calm(count: int, took: float = 0.01, **more: Any) -> list[dict[str, Any]]:
    return [{"due": place / 10, "end": place / 10 + took, "outcome": "ok", **more} for place in range(count)]


class TestCalibration:
    def test_steady_answers_are_kept_up_with(self) -> None:
        assert keeps_up(calm(20)) == ""

    def test_a_failure_without_a_fault_is_one_too_many(self) -> None:
        assert keeps_up([*calm(20), {"due": 3.0, "end": 3.0, "outcome": "status", "error": "", "status": 503}]) == "1 of 21 requests failed: status 503"

    def test_a_growing_queue_is_seen_before_anything_fails(self) -> None:
        growing = [{"due": place / 10, "end": place / 10 + 0.02 * place, "outcome": "ok"} for place in range(40)]
        assert keeps_up(growing).startswith("answers take longer and longer: ")
