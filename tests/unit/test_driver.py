"""What happens to changes of a local cluster that is down, and how `fleet-driver` ends on a signal."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from federation import membership
from local import desired_state
from local.host_cluster import HostCluster
from operations import driver
from toolchain import paths

POOLS = {"cluster": "east", "pools": []}
Object = dict[str, Any]


class Machine:
    """One local cluster without processes, and a record of what the driver did to it."""

    def __init__(self, folder: Path) -> None:
        self.alive = True
        self.done: list[tuple[str, Object]] = []
        (folder / "clusters" / "east").mkdir(parents=True)
        (folder / "clusters" / "east" / "cluster.json").write_text(json.dumps({"name": "east", "role": "member"}))

    def module(self, noun: str, spec: Object) -> Any:
        machine = self

        class Module:
            @staticmethod
            def apply(spec: Object) -> Object:
                machine.done.append((f"{noun} apply", spec))
                machine.alive = True
                return {"nodes": len(machine.done)}

            @staticmethod
            def delete(spec: Object) -> Object:
                machine.done.append((f"{noun} delete", spec))
                return {}

        return Module

    def revive(self) -> None:
        self.alive = True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(HostCluster, "alive", lambda _: made.alive)
    monkeypatch.setattr(HostCluster, "start", lambda _: made.revive())
    monkeypatch.setattr(desired_state, "module_of", made.module)
    return made


def test_a_cluster_that_is_down_answers_what_it_last_knew_and_says_so(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert desired_state.apply("gpu-pools", POOLS) == {"nodes": 1}
    machine.alive = False
    assert desired_state.apply("gpu-pools", {**POOLS, "pools": ["more"]}) == {"nodes": 1}
    assert capsys.readouterr().err == "skipped: cluster east is not running; it is applied on its return\n"
    assert len(machine.done) == 1
    # Skipped twice, it still knows.
    assert desired_state.apply("gpu-pools", {**POOLS, "pools": ["most"]}) == {"nodes": 1}


def test_on_its_return_the_last_change_of_each_kind_is_applied(machine: Machine) -> None:
    machine.alive = False
    desired_state.apply("gpu-pools", {**POOLS, "pools": ["more"]})
    desired_state.apply("gpu-pools", {**POOLS, "pools": ["most"]})
    kserve = {"cluster": "east", "controlPlane": "kserve"}
    desired_state.apply("control-plane", kserve)
    desired_state.switch("start", "east")
    assert machine.done == [("control-plane apply", kserve), ("gpu-pools apply", {**POOLS, "pools": ["most"]})]


def test_a_return_applies_control_planes_first_then_in_the_order_of_the_first_apply(machine: Machine) -> None:
    machine.alive = False
    istio, kserve = ({"cluster": "east", "controlPlane": name} for name in ("istio", "kserve"))
    changes = [
        ("model-store", {"cluster": "east"}),
        ("gpu-pools", POOLS),
        ("control-plane", kserve),
        ("gateways", {"cluster": "east"}),
        ("control-plane", istio),
    ]
    for noun, spec in changes:
        desired_state.apply(noun, spec)
    # A later version of a change keeps its place.
    desired_state.apply("model-store", {"cluster": "east", "models": ["more"]})
    desired_state.switch("start", "east")
    assert [(what, spec.get("controlPlane", "")) for what, spec in machine.done] == [
        ("control-plane apply", "kserve"),
        ("control-plane apply", "istio"),
        ("model-store apply", ""),
        ("gpu-pools apply", ""),
        ("gateways apply", ""),
    ]


def test_what_an_older_version_left_beside_a_cluster_does_not_stop_it(machine: Machine, tmp_path: Path) -> None:
    old = tmp_path / "clusters" / "east" / "wishes"
    old.mkdir()
    (old / "gpu-pools.json").write_text(json.dumps({"noun": "gpu-pools", "spec": POOLS, "result": {"nodes": 1}}))
    machine.alive = False
    desired_state.apply("gpu-pools", POOLS)
    desired_state.switch("start", "east")
    assert [what for what, _ in machine.done] == ["gpu-pools apply"]


def test_a_cluster_that_an_update_runs_again_catches_up_too(machine: Machine) -> None:
    machine.alive = False
    desired_state.apply("gpu-pools", POOLS)
    desired_state.apply("cluster", {"name": "east", "role": "member", "zone": "new"})
    assert [what for what, _ in machine.done] == ["cluster apply", "gpu-pools apply"]
    desired_state.apply("cluster", {"name": "east", "role": "member", "zone": "newer"})
    assert [what for what, _ in machine.done][2:] == ["cluster apply"], "one that runs has nothing to catch up with"


def test_what_is_deleted_while_a_cluster_is_down_does_not_come_back(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    desired_state.apply("gpu-pools", POOLS)
    machine.alive = False
    assert desired_state.delete("gpu-pools", POOLS) == {}
    assert "nothing of it can be removed now" in capsys.readouterr().err
    desired_state.switch("start", "east")
    assert [what for what, _ in machine.done] == ["gpu-pools apply"]


def test_deleting_from_a_cluster_that_is_gone_succeeds(machine: Machine) -> None:
    assert desired_state.delete("gateways", {"cluster": "north"}) == {}
    assert not machine.done


def test_applying_to_a_cluster_that_never_was_is_refused(machine: Machine) -> None:
    with pytest.raises(ValueError, match="gateways: no such cluster on this machine, got: `north`"):
        desired_state.apply("gateways", {"cluster": "north"})


def _catches(pid: int, number: int) -> bool:
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    # Where the tests themselves run in a shell's background, SIGINT is ignored.
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from operations.driver import main; main()"]
    environment = {**os.environ, "FLEET_STATE": str(tmp_path)}
    # Waiting for its stdin, as it waits for anything else.
    with subprocess.Popen(
        [*command, "cluster", "apply"], env=environment, cwd=paths.REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as call:
        deadline = time.monotonic() + 60
        # Python itself catches SIGINT; SIGTERM only the driver, after SIGINT.
        while not _catches(call.pid, signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.05)
        call.send_signal(number)
        _, told = call.communicate(timeout=60)
    assert (call.returncode, told) == (128 + number, "interrupted; re-run to resume\n")


@pytest.mark.parametrize(("verb", "answer"), [("join", {"id": "uid"}), ("unjoin", {})])
def test_members_are_joined_whatever_their_driver(verb: str, answer: Object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Object] = []

    def member(spec: Object) -> Object:
        asked.append(spec)
        return answer

    monkeypatch.setattr(membership, verb, member)
    monkeypatch.setattr(sys, "argv", ["fleet-driver", "member", verb])
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"cluster": "west"}'))
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    driver.main()
    assert (asked, json.loads(capsys.readouterr().out)) == ([{"cluster": "west"}], answer)


def test_every_noun_leads_to_a_module_that_applies_and_deletes() -> None:
    nouns = [(noun, {}) for noun in desired_state.MODULES] + [("control-plane", {"controlPlane": each}) for each in ("karmada", "kserve", "istio")]
    for noun, spec in nouns:
        module = desired_state.module_of(noun, spec)
        assert callable(module.apply), noun
        assert callable(module.delete), noun
