"""One container of a pod: started, probed, restarted with back-off, stopped. Driven by `tick`, which never blocks.

State is kept in a record that the pod writes to disk at each change, so that the next agent can take over.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from local.node_agent import images, logs, probes, processes, volumes
from local.node_agent.environment import ConfigError, Facts, Lookup, expand, resolve

Object = dict[str, Any]

# A kubelet's: 10 s, doubling to 5 min, forgotten 10 min after the last restart.
_BACKOFF_S = (10.0, 300.0)
_FORGET_S = 600.0
_CONFIG_RETRY_S = 2.0
# A kubelet gives a container this long after its preStop hook, however much of the grace period the hook took.
_MINIMUM_GRACE_S = 2.0
_UNKNOWN_EXIT = 137
# The longest address of a Unix socket that Linux takes, less what vLLM and others append to TMPDIR.
_SOCKET_PATH = 107 - 45
# How long from Ready on it is looked where a container listens, and how often. Servers open their ports at their start.
_LISTEN_LOOKS_S = 20.0
_LISTEN_PERIOD_S = 5.0


def timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Backoff:
    """When a container that exited may run again: the first time at once, then after 10 s, 20 s, …"""

    def __init__(self) -> None:
        self._pause = 0.0
        self._last = 0.0

    def pause(self, now: float) -> float:
        """Seconds to wait after an exit at `now`."""
        return 0.0 if now - self._last > _FORGET_S else self._pause

    def restarted(self, now: float) -> None:
        fresh = self._pause == 0 or now - self._last > _FORGET_S
        self._pause = _BACKOFF_S[0] if fresh else min(self._pause * 2, _BACKOFF_S[1])
        self._last = now


@dataclass
class Record:
    """What outlives the agent. `state` and `last_state` are as the container's status shows them."""

    name: str
    restarts: int = 0
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict[str, Any])
    pid: int | None = None
    start_ticks: int = 0
    started: bool = False
    ready: bool = False
    ever_ran: bool = False

    def to_json(self) -> Object:
        return asdict(self)


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of its pod."""

    uid: str
    folder: Path
    cluster_folder: Path
    facts: Facts
    lookup: Lookup
    # Volume name → folder; raises ConfigError where one cannot be made yet.
    volumes: Callable[[], Mapping[str, Path]]
    save: Callable[[], None]
    say: Callable[[str], None]


class Container:
    """`done` is True when it ended and will not be started again."""

    def __init__(self, spec: Object, record: Record, around: Surroundings, restart_policy: str) -> None:
        self.spec, self.record = spec, record
        self._around = around
        self._policy = restart_policy
        self._backoff = Backoff()
        self._running: processes.Running | None = None
        self._prober: probes.Prober | None = None
        self._log: logs.Watcher | None = None
        self._run: tuple[list[str], dict[str, str], str] = ([], {}, "/")
        self._not_before = 0.0
        self._stopper: threading.Thread | None = None
        self._ended_by: str | None = None
        self._ready_since: float | None = None
        self._next_listen_look = 0.0
        self.done = False
        self._take_over()

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def log_path(self) -> Path:
        return logs.file(self._around.folder, self.name, self.record.restarts)

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def failed(self) -> bool:
        return self.done and self.record.state.get("terminated", {}).get("exitCode") != 0

    # Life

    def tick(self, now: float) -> None:
        if self._running is not None:
            runs, code = self._running.poll()
            if not runs:
                self._ended(code)
            else:
                self._look(now)
        elif not self.done and now >= self._not_before:
            self._start(now)

    def _take_over(self) -> None:
        """Continues what an earlier agent began: the process, if it still runs, is ours; else it ended unseen."""
        record = self.record
        if "terminated" in record.state:
            self.done = True
        elif record.pid is not None:
            self._running = processes.adopt(record.pid, record.start_ticks)
            if self._running is None:
                self._ended(None)
                return
            try:
                self._run = self._resolve()
            except ConfigError as error:
                # Only exec probes and hooks need it; the process runs on with what it was started with.
                self._around.say(f"{self.name}: {error}")
            self._log = logs.Watcher(self.log_path)
            self._probe(started=record.started, ready=record.ready)
            self._around.say(f"{self.name}: took over process {record.pid}")

    def _resolve(self) -> tuple[list[str], dict[str, str], str]:
        """Command with arguments, environment, working folder; as a kubelet and the image would give them."""
        spec, around = self.spec, self._around
        image = images.find(around.cluster_folder, spec["image"])
        if image is None:
            raise LookupError(
                f'nothing on this machine stands for image "{spec["image"]}"; the node agent starts the tools of the toolchain as host '
                f"processes and pulls no images (known: {around.cluster_folder / 'images.json'})"
            )
        variables = resolve(spec, around.facts, around.lookup)
        paths = volumes.mounts(spec, around.volumes())
        home = around.folder / "home" / self.name
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [expand(part, variables) for part in spec.get("command") or image.entrypoint]
        arguments = [expand(part, variables) for part in spec.get("args") or []]
        argv = [volumes.rewrite(part, paths) for part in (*command, *arguments)]
        if not argv:
            raise ConfigError(f"container {self.name}: has no command, and its image stands for none")
        cwd = volumes.rewrite(spec.get("workingDir") or str(home), paths)
        if not Path(cwd).is_dir():
            raise ConfigError(f"container {self.name}: no such working folder on this machine: `{cwd}`")
        own = {name: volumes.rewrite(value, paths) for name, value in variables.items()}
        environment = {**image.environment, "HOME": str(home), "TMPDIR": self._scratch(cwd), "HOSTNAME": around.facts.pod["metadata"]["name"], **own}
        return argv, environment, cwd

    def _scratch(self, cwd: str) -> str:
        folder = self._around.folder / "tmp"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if len(str(folder)) <= _SOCKET_PATH:
            return str(folder)
        # Servers make Unix sockets there, and the path of a clone can be longer than those may be. The working folder
        # has a short name wherever it lies.
        return "/proc/self/cwd" if os.access(cwd, os.W_OK) else "/tmp"

    def _start(self, now: float) -> None:
        record = self.record
        try:
            self._run = self._resolve()
        except LookupError as error:
            self._wait("ErrImageNeverPull", str(error), now + 5 * _CONFIG_RETRY_S)
            return
        except ConfigError as error:
            self._wait("CreateContainerConfigError", str(error), now + _CONFIG_RETRY_S)
            return
        if record.ever_ran:
            record.restarts += 1
            self._backoff.restarted(now)
        record.ever_ran = True
        argv, environment, cwd = self._run
        log = logs.open_for(self.log_path)
        try:
            self._running = processes.start(argv, environment, cwd, log, self._around.uid, self.name)
        except OSError as error:
            os.write(log, f"{argv[0]}: {error.strerror}\n".encode())
            self._settle({"exitCode": 128, "reason": "StartError", "message": f"{argv[0]}: {error.strerror}"})
            return
        finally:
            os.close(log)
        record.pid, record.start_ticks = self._running.pid, self._running.start_ticks
        record.started = record.ready = False
        record.state = {"running": {"startedAt": timestamp(now)}}
        self._around.save()
        self._around.say(f"{self.name}: started process {record.pid} (restart {record.restarts})")
        self._log = logs.Watcher(self.log_path)
        self._ended_by, self._ready_since, self._next_listen_look = None, None, 0.0
        self._probe(started=False, ready=False)

    def _probe(self, *, started: bool, ready: bool) -> None:
        ports = {port["name"]: int(port["containerPort"]) for port in self.spec.get("ports") or [] if port.get("name")}
        target = probes.Target(self._around.facts.address, ports, self.execute)
        assert self._running is not None
        self._prober = probes.Prober(self.spec, target, processes.started_at(self._running), started=started, ready=ready)

    def _look(self, now: float) -> None:
        """Takes over what the probes found out."""
        if self._log is not None:
            self._log.look()
        prober = self._prober
        if prober is None or self._stopper is not None:
            return
        record = self.record
        if (record.started, record.ready) != (prober.started, prober.ready):
            record.started, record.ready = prober.started, prober.ready
            self._around.say(f"{self.name}: {'ready' if record.ready else prober.message or 'not ready'}")
            self._around.save()
        if prober.unhealthy:
            self._around.say(f"{self.name}: {prober.unhealthy}; it is restarted")
            self.stop(lambda: time.monotonic() + self._grace(), prober.unhealthy)
        elif record.ready:
            self._check_listeners(now)

    def _check_listeners(self, now: float) -> None:
        self._ready_since = self._ready_since or now
        if now < self._next_listen_look or now - self._ready_since > _LISTEN_LOOKS_S:
            return
        self._next_listen_look = now + _LISTEN_PERIOD_S
        if reachable := processes.beyond_loopback(processes.members(self._around.uid, self.name)):
            message = f"listens at {reachable}, which other machines could reach; a local pod has to listen at its own address, $(POD_IP)"
            self._around.say(f"{self.name}: {message}")
            self.stop(time.monotonic, message)

    def _grace(self) -> float:
        probe = self.spec.get("livenessProbe") or {}
        return float(probe.get("terminationGracePeriodSeconds") or self._around.facts.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _ended(self, code: int | None) -> None:
        record = self.record
        processes.kill_rest(self._around.uid, self.name)
        began = record.state.get("running", {}).get("startedAt")
        if code is None:
            # Started by an agent before this one, so its exit code went to nobody. A kubelet says the same.
            result: Object = {"exitCode": _UNKNOWN_EXIT, "reason": "ContainerStatusUnknown", "message": "it ended while no agent was its parent"}
        elif code == 0:
            result = {"exitCode": 0, "reason": "Completed"}
        elif code < 0:
            result = {"exitCode": 128 - code, "signal": -code, "reason": "Error"}
        else:
            result = {"exitCode": code, "reason": "Error"}
        if self._ended_by:
            result["message"] = self._ended_by
        self._settle({**result, **({"startedAt": began} if began else {})})

    def _settle(self, result: Object) -> None:
        """After an exit: what the status says, and whether and when it runs again."""
        now = time.time()
        if self._prober is not None:
            self._prober.stop()
        self._prober = self._running = self._log = self._stopper = None
        record = self.record
        terminated = {**result, "finishedAt": timestamp(now)}
        record.pid, record.started, record.ready = None, False, False
        again = self._policy == "Always" or (self._policy == "OnFailure" and result["exitCode"] != 0)
        if again and self._ended_by != _STOPPED:
            pause = self._backoff.pause(now)
            record.last_state = {"terminated": terminated}
            message = f"back-off {pause:.0f}s restarting failed container={self.name}"
            record.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            self._not_before = now + pause
        else:
            self.done = True
            record.state = {"terminated": terminated}
        self._around.say(f"{self.name}: ended with {result['exitCode']} ({result['reason']})")
        self._around.save()

    def _wait(self, reason: str, message: str, until: float) -> None:
        waiting = {"waiting": {"reason": reason, "message": message}}
        if self.record.state != waiting:
            self.record.state = waiting
            self._around.say(f"{self.name}: {reason}: {message}")
            self._around.save()
        self._not_before = until

    # Stopping

    def end(self, deadline: Callable[[], float]) -> None:
        """Stops it for good, returning at once; `deadline` (monotonic seconds) may come nearer while it stops."""
        if self._running is None:
            self.done = True
            if "terminated" not in self.record.state and self.record.last_state:
                self.record.state = self.record.last_state
            return
        if self._stopper is None:
            self.stop(deadline, _STOPPED)
        else:
            self._ended_by = _STOPPED

    def stop(self, deadline: Callable[[], float], why: str) -> None:
        self._ended_by = why
        if self._prober is not None:
            self._prober.stop()
        self.record.ready = False
        self._stopper = threading.Thread(target=self._stop, args=(self._running, deadline), name=f"stop {self.name}", daemon=True)
        self._stopper.start()

    def _stop(self, running: processes.Running, deadline: Callable[[], float]) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        limit = deadline()
        if hook and limit > time.monotonic():
            self._pre_stop(hook, running, deadline)
        # The time for the exit itself; a kubelet grants it on top where the hook used up the grace period.
        least = time.monotonic() + (_MINIMUM_GRACE_S if hook or limit > time.monotonic() else 0)
        self._around.say(f"{self.name}: SIGTERM to process group {running.pid}")
        processes.signal_group(running.pid, signal.SIGTERM)
        while processes.alive(running.pid, running.start_ticks) and time.monotonic() < max(deadline(), least):
            time.sleep(0.05)
        if processes.alive(running.pid, running.start_ticks):
            self._around.say(f"{self.name}: did not end in its grace period, SIGKILL")
        processes.kill_group(running.pid)

    def _pre_stop(self, hook: Object, running: processes.Running, deadline: Callable[[], float]) -> None:
        self._around.say(f"{self.name}: preStop")
        left = max(0.1, deadline() - time.monotonic())
        try:
            if "sleep" in hook:
                until = time.monotonic() + float(hook["sleep"]["seconds"])
                while time.monotonic() < min(until, deadline()) and processes.alive(running.pid, running.start_ticks):
                    time.sleep(0.05)
            elif "exec" in hook:
                self.execute(list(hook["exec"]["command"]), left)
            elif "httpGet" in hook:
                ports = {port["name"]: int(port["containerPort"]) for port in self.spec.get("ports") or [] if port.get("name")}
                probes.http_get(hook["httpGet"], probes.Target(self._around.facts.address, ports, self.execute), left)
        except (OSError, ValueError, HTTPException, subprocess.TimeoutExpired) as error:
            # A kubelet, too, goes on to SIGTERM and tells it as an event.
            self._around.say(f"{self.name}: preStop failed: {error}")

    def execute(self, command: list[str], timeout: float) -> int:
        """Runs a command with the container's environment, for exec probes and hooks. Raises OSError, TimeoutExpired."""
        _, environment, cwd = self._run
        paths = volumes.mounts(self.spec, self._around.volumes())
        marked = {**environment, processes.POD: self._around.uid, processes.CONTAINER: self.name}
        if processes.CELL in os.environ:
            marked[processes.CELL] = os.environ[processes.CELL]
        return probes.run_in([volumes.rewrite(part, paths) for part in command], marked, cwd, timeout)


# Why a container ended when it was the pod that ended.
_STOPPED = "the pod was deleted"
