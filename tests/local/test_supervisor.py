"""The supervisor process, with shell and Python one-liners as units. What a cluster as a whole does: test_host_cluster.py."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import processes
from local.down import CELL
from local.host_cluster import HostCluster
from local.units import TcpReady, Unit, UnitStatus
from tests.conftest import wait_until
from toolchain import paths

# Leaves its parent's session and process group, is adopted by init, and sleeps on; its pid goes to the file named.
RUNAWAY = textwrap.dedent(
    """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(sys.argv[1] + ".tmp", "w") as stream:
                stream.write(str(os.getpid()))
            os.rename(sys.argv[1] + ".tmp", sys.argv[1])
            time.sleep(600)
        os._exit(0)
    os.wait()
    time.sleep(float(sys.argv[2]))
    """
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostCluster]:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    made = HostCluster("one")
    yield made
    made.delete()
    assert not processes.find(processes.equals(CELL, made.dir))


def shell(name: str, script: str, **settings: object) -> Unit:
    return Unit(name=name, argv=["/bin/sh", "-c", script], **settings)  # type: ignore[arg-type]


def python(name: str, code: str, *arguments: object, **settings: object) -> Unit:
    return Unit(name=name, argv=[sys.executable, "-c", code, *map(str, arguments)], **settings)  # type: ignore[arg-type]


def status(cluster: HostCluster, name: str) -> UnitStatus:
    return next(each for each in cluster.status() if each.name == name)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def pid_in(path: Path) -> int:
    wait_until(path.exists, f"{path.name} to be written", 10)
    return int(path.read_text())


def supervisor_of(cluster: HostCluster) -> int:
    return int((cluster.dir / "run" / "supervisor.lock").read_text())


def test_a_unit_that_exits_is_started_again_after_growing_pauses(cluster: HostCluster, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    cluster.put_unit(python("flaky", f"import time; open({str(starts)!r}, 'a').write(f'{{time.time()}}\\n'); exit(3)"))
    cluster.ensure_supervised()
    wait_until(lambda: len(lines(starts)) >= 3, "three starts", 20)
    first, second, third = (float(line) for line in lines(starts)[:3])
    assert second - first >= 0.5
    assert third - second >= 1.0
    seen = status(cluster, "flaky")
    assert seen.exit_code == 3
    assert seen.restarts >= 2


def test_a_crash_is_seen_and_healed(cluster: HostCluster) -> None:
    cluster.put_unit(shell("server", "exec sleep 600"))
    cluster.start(20)
    before = status(cluster, "server").pid
    assert before
    os.kill(before, signal.SIGSEGV)
    wait_until(lambda: status(cluster, "server").pid not in (before, None), "a new process", 10)
    assert status(cluster, "server").exit_code == -signal.SIGSEGV


def test_a_unit_that_is_not_to_be_restarted_stays_down(cluster: HostCluster, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    cluster.put_unit(shell("once", f"echo start >> {starts}; exit 4", restart=False))
    cluster.ensure_supervised()
    wait_until(lambda: status(cluster, "once").exit_code == 4, "its end", 10)
    # Longer than the first pause before a restart.
    time.sleep(1.0)
    assert lines(starts) == ["start"]


def test_a_unit_that_gives_way_gets_less_of_a_processor_than_others(cluster: HostCluster) -> None:
    for name, gives_way in (("serves", False), ("controls", True)):
        cluster.put_unit(shell(name, "sleep 600", gives_way=gives_way))
    cluster.start(20)
    serves, controls = (status(cluster, name).pid for name in ("serves", "controls"))
    assert serves
    assert controls
    assert os.getpriority(os.PRIO_PROCESS, controls) > os.getpriority(os.PRIO_PROCESS, serves)
    groups = [Path(f"/proc/{pid}/autogroup") for pid in (serves, controls)]
    if groups[0].exists():
        assert [each.read_text().split()[-1] for each in groups] == ["0", "5"]


def test_units_die_with_a_supervisor_that_is_killed(cluster: HostCluster) -> None:
    for name in ("a", "b"):
        cluster.put_unit(shell(name, "trap '' TERM; while :; do sleep 1; done"))
    cluster.start(20)
    pids = [each.pid for each in cluster.status() if each.pid]
    assert len(pids) == 2
    os.kill(supervisor_of(cluster), signal.SIGKILL)
    wait_until(lambda: not processes.find(processes.equals(CELL, cluster.dir)), "the units to be gone", 5)


def test_a_unit_starts_when_those_it_comes_after_are_ready_not_when_they_run(cluster: HostCluster, tmp_path: Path) -> None:
    events = tmp_path / "events"
    port = cluster.port("slow")
    slow = f"""
import socket, time
time.sleep(1)
open({str(events)!r}, "a").write("slow listens\\n")
s = socket.create_server(("127.0.0.1", {port}))
while True:
    s.accept()[0].close()
"""
    # Named so that the order of the alphabet is not the one asked for.
    cluster.put_unit(shell("a-first-by-name", f"echo dependent starts >> {events}; exec sleep 600", after=["slow"]))
    cluster.put_unit(python("slow", slow, ready=TcpReady(host="127.0.0.1", port=port)))
    cluster.ensure_supervised()
    wait_until(lambda: list(status(cluster, "a-first-by-name").waiting_for) == ["slow"], "the wait to be told", 10)
    cluster.start(20)
    assert lines(events) == ["slow listens", "dependent starts"]


def test_units_are_stopped_in_reverse_order_and_may_finish(cluster: HostCluster, tmp_path: Path) -> None:
    events = tmp_path / "events"

    def noting(name: str) -> str:
        return f"trap 'sleep 0.3; echo {name} ended >> {events}; exit 0' TERM; touch {tmp_path / name}.up; while :; do sleep 0.05; done"

    cluster.put_unit(shell("base", noting("base")))
    cluster.put_unit(shell("above", noting("above"), after=["base"]))
    cluster.start(20)
    wait_until(lambda: (tmp_path / "base.up").exists() and (tmp_path / "above.up").exists(), "both traps", 10)
    cluster.stop()
    assert lines(events) == ["above ended", "base ended"]


def test_a_unit_that_ignores_sigterm_is_killed_when_its_time_is_over(cluster: HostCluster) -> None:
    cluster.put_unit(shell("deaf", "trap '' TERM; echo deaf; while :; do sleep 0.1; done", stop_timeout_s=0.5))
    cluster.start(20)
    wait_until(lambda: lines(cluster.dir / "logs" / "deaf.log") == ["deaf"], "the trap", 10)
    begun = time.monotonic()
    cluster.remove_unit("deaf")
    assert 0.5 <= time.monotonic() - begun < 5
    assert not processes.find(lambda variable: variable.endswith(b"/deaf") and variable.startswith(b"FLEET_UNIT="))


def test_a_changed_definition_restarts_that_unit_alone(cluster: HostCluster) -> None:
    cluster.put_unit(shell("changed", "exec sleep 600"))
    cluster.put_unit(shell("left-alone", "exec sleep 600"))
    cluster.start(20)
    changed, left_alone = status(cluster, "changed").pid, status(cluster, "left-alone").pid
    assert not cluster.put_unit(shell("changed", "exec sleep 600"))
    assert cluster.put_unit(shell("changed", "exec sleep 601"))
    cluster.wait_ready("changed", 20)
    assert status(cluster, "changed").pid != changed
    assert status(cluster, "left-alone").pid == left_alone


def test_what_a_dead_unit_left_behind_is_killed_before_its_next_start(cluster: HostCluster, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    cluster.put_unit(python("parent", RUNAWAY, file, 0.5))
    cluster.ensure_supervised()
    runaway = pid_in(file)
    wait_until(lambda: runaway not in processes.find(processes.equals(CELL, cluster.dir)), "the first runaway to be gone", 10)


def test_a_second_supervisor_of_the_same_cluster_refuses(cluster: HostCluster) -> None:
    cluster.put_unit(shell("server", "exec sleep 600"))
    cluster.start(20)
    first = supervisor_of(cluster)
    command = [sys.executable, "-m", "local.supervisor", str(cluster.dir)]
    second = subprocess.run(command, cwd=paths.REPO, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode != 0
    assert "another one runs one" in second.stderr
    assert supervisor_of(cluster) == first
    assert status(cluster, "server").ready


def test_a_unit_file_that_cannot_be_read_disturbs_no_running_unit(cluster: HostCluster) -> None:
    cluster.put_unit(shell("server", "exec sleep 600"))
    cluster.start(20)
    before = status(cluster, "server").pid
    broken = cluster.dir / "units" / "broken.json"
    broken.write_text("{")
    log = cluster.dir / "logs" / "supervisor.log"
    wait_until(lambda: "broken.json" in log.read_text(), "a line that names the file", 10)
    broken.unlink()
    cluster.put_unit(shell("later", "exec sleep 600"))
    cluster.wait_ready("later", 20)
    assert status(cluster, "server").pid == before


def test_a_program_that_is_not_there_is_told_in_the_log_and_tried_again(cluster: HostCluster, tmp_path: Path) -> None:
    program = tmp_path / "late-program"
    cluster.put_unit(Unit(name="late", argv=[str(program)]))
    cluster.ensure_supervised()
    wait_until(lambda: status(cluster, "late").exit_code == 127, "a failed start", 10)
    assert f"cannot be started: [Errno 2] No such file or directory: '{program}'" in (cluster.dir / "logs" / "late.log").read_text()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    cluster.wait_ready("late", 20)


def test_a_log_over_the_limit_keeps_its_newer_half(cluster: HostCluster) -> None:
    log = cluster.dir / "logs" / "chatty.log"
    log.parent.mkdir(parents=True)
    with log.open("wb") as stream:
        stream.write(b"old line\n" * (21 * 1024 * 1024 // 9))
        stream.write(b"newest line\n")
    cluster.put_unit(shell("chatty", "echo started again; exec sleep 600"))
    cluster.start(20)
    wait_until(lambda: log.read_bytes() == b"started again\n", "the new start in the log", 10)
    kept = log.with_name("chatty.log.1").read_bytes()
    assert kept.endswith(b"newest line\n")
    assert len(kept) < 11 * 1024 * 1024


def test_units_inherit_the_mark_and_none_of_the_callers_secrets(cluster: HostCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    file = tmp_path / "environment"
    code = f"import json, os; open({str(file)!r} + '.tmp', 'w').write(json.dumps(dict(os.environ))); os.rename({str(file)!r} + '.tmp', {str(file)!r})"
    cluster.put_unit(python("told", code + "; import time; time.sleep(600)", env={"OWN": "yes"}))
    cluster.start(20)
    wait_until(file.exists, "the environment", 10)
    environment = json.loads(file.read_text())
    assert environment["OWN"] == "yes"
    assert environment[CELL] == str(cluster.dir)
    assert environment["FLEET_STATE"] == str(tmp_path)
    assert Path(environment["TMPDIR"]).is_dir()
    assert not {"PULUMI_CONFIG_PASSPHRASE", "HTTPS_PROXY"} & set(environment)
