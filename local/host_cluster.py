"""One cluster as a set of host processes, killed, frozen and revived as one.

A cluster is a folder: units/ says what shall run, and a supervisor process makes it so. This module is the only one
that knows the folder's layout. What the units are is kubernetes.py, karmada.py, kserve.py, istio.py, gateways.py.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from core.files import write_atomically
from local import pki, processes
from local.down import CELL
from local.supervisor import PORT_TAKEN, UNIT
from local.units import NAME, Unit, UnitStatus, read_units
from toolchain import paths

# Ports of all clusters lie here, below the ephemeral range (32768 up on Linux), so that no outgoing connection of any
# program takes one between two starts of a cluster.
_FIRST_PORT, _BLOCK, _BLOCKS = 20000, 32, 240

_LOG_LINES = 15

# The first three tries of a unit whose port is taken, 0.5, 1 and 2 seconds apart.
_PORT_TAKEN_S = 4.0


class UnitError(Exception):
    """A unit did not become ready. The message names it, what was awaited, its exit code and its log's tail."""

    hint = ""


class PortError(Exception):
    """No ports are left, or one is in somebody else's hands."""

    hint = "`make down` frees the ports of this clone's fleet; `ss -ltnp` shows who holds one"


@contextmanager
def _locked(path: Path) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port whose last connection lingers in TIME_WAIT can be taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class HostCluster:
    """A handle on a cluster folder; making one touches nothing."""

    def __init__(self, name: str) -> None:
        # The name becomes a folder, and `delete` removes that folder.
        if not NAME.match(name):
            raise ValueError(f"cluster name must be lower-case letters, digits, `-` and `.`, got: `{name}`")
        self.name = name
        self.dir = paths.STATE / "clusters" / name
        self.kubeconfig = self.dir / "kubeconfig"

    def __repr__(self) -> str:
        return f"HostCluster({self.name!r})"

    def exists(self) -> bool:
        return (self.dir / "cluster.json").exists()

    def describe(self) -> dict[str, Any]:
        """What was written when the cluster was made: name, role, region, zone."""
        return json.loads((self.dir / "cluster.json").read_text())

    @contextmanager
    def locked(self) -> Generator[None]:
        """One change of this cluster at a time, over processes."""
        with _locked(paths.STATE / "locks" / self.name):
            yield

    # Ports

    def _ports(self) -> dict[str, Any]:
        path = self.dir / "ports.json"
        if path.exists():
            return json.loads(path.read_text())
        taken = {json.loads(other.read_text())["block"] for other in (paths.STATE / "clusters").glob("*/ports.json")}
        for block in range(_BLOCKS):
            first = _FIRST_PORT + block * _BLOCK
            # A block of which anyone uses a port is left alone, another clone's fleet above all.
            if block not in taken and all(_free(port) for port in range(first, first + _BLOCK)):
                self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                ports: dict[str, Any] = {"block": block, "ports": {}}
                write_atomically(path, json.dumps(ports))
                return ports
        raise PortError(f"no block of {_BLOCK} free ports from {_FIRST_PORT} on 127.0.0.1")

    @property
    def index(self) -> int:
        """Number of the cluster's block of ports; unique on this machine while the cluster runs. Pods get 127.<10 + index>.x.y."""
        with _locked(paths.STATE / "locks" / "ports"):
            return int(self._ports()["block"])

    def port(self, purpose: str) -> int:
        """The port for a purpose, the same at every call. Raises PortError when the cluster's block is used up."""
        with _locked(paths.STATE / "locks" / "ports"):
            state = self._ports()
            ports: dict[str, int] = state["ports"]
            if purpose not in ports:
                if len(ports) == _BLOCK:
                    raise PortError(f"cluster {self.name} uses all {_BLOCK} ports of its block")
                ports[purpose] = _FIRST_PORT + state["block"] * _BLOCK + len(ports)
                write_atomically(self.dir / "ports.json", json.dumps(state))
            return ports[purpose]

    def etcd_flags(self) -> list[str]:
        """How an API server reaches this cluster's etcd."""
        certificate = pki.serving_certificate(self, "etcd", [])
        return [
            f"--etcd-servers=https://127.0.0.1:{self.port('etcd')}",
            f"--etcd-cafile={pki.authority(self)}",
            f"--etcd-certfile={certificate.cert}",
            f"--etcd-keyfile={certificate.key}",
        ]

    # Units

    def put_unit(self, unit: Unit) -> bool:
        """Defines a unit; the supervisor starts it, or restarts it when its definition changed. True if it changed."""
        path = self.dir / "units" / f"{unit.name}.json"
        text = unit.to_json()
        if path.exists() and path.read_text() == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        return True

    def remove_unit(self, name: str, timeout_s: float = 30) -> None:
        """Removes a unit and waits until its processes are gone."""
        (self.dir / "units" / f"{name}.json").unlink(missing_ok=True)
        deadline = time.monotonic() + timeout_s
        while (self.dir / "run" / f"{name}.json").exists() and self._supervisor() is not None:
            if time.monotonic() > deadline:
                raise UnitError(f"{name} on {self.name}: still runs {timeout_s:.0f} s after its removal")
            time.sleep(0.05)

    def kill_unit(self, name: str) -> None:
        """SIGKILLs a unit and takes its definition away, so that nobody starts it again; `put_unit` brings it back."""
        pids = processes.find(processes.equals(UNIT, f"{self.dir.resolve()}/{name}"))
        (self.dir / "units" / f"{name}.json").unlink(missing_ok=True)
        processes.signal_all(pids, signal.SIGKILL)

    def status(self) -> list[UnitStatus]:
        """What the supervisor last wrote of each unit, also of those that do not run."""
        statuses: list[UnitStatus] = []
        for name in read_units(self.dir / "units"):
            try:
                statuses.append(UnitStatus.from_json((self.dir / "run" / f"{name}.json").read_text()))
            except (FileNotFoundError, ValueError):
                statuses.append(UnitStatus(name=name))
        return statuses

    def wait_ready(self, name: str, timeout_s: float) -> None:
        """Waits until the unit as now defined is ready. Raises UnitError, at once where waiting is of no use."""
        unit = read_units(self.dir / "units")[name]
        started = time.monotonic()
        status = UnitStatus(name=name)
        while time.monotonic() < started + timeout_s:
            with suppress(FileNotFoundError, ValueError):
                status = UnitStatus.from_json((self.dir / "run" / f"{name}.json").read_text())
            if status.digest == unit.digest and status.ready:
                return
            # The supervisor has tried again since: what it said before we came may be mended.
            taken = status.exit_code == PORT_TAKEN and time.monotonic() > started + _PORT_TAKEN_S
            if taken or self._supervisor() is None:
                break
            time.sleep(0.05)
        raise self._not_ready(unit, status, time.monotonic() - started)

    def _log_tail(self, name: str) -> str:
        try:
            lines = (self.dir / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(f"  | {line[:300]}" for line in lines[-_LOG_LINES:])

    def _not_ready(self, unit: Unit, status: UnitStatus, timeout_s: float) -> UnitError:
        what = unit.ready.what if unit.ready else "its start"
        tail = self._log_tail(unit.name)
        parts = [f"{unit.name} on {self.name}: waited {timeout_s:.0f} s for {what}"]
        if self._supervisor() is None:
            parts.append("the cluster's supervisor does not run")
        if status.waiting_for:
            parts.append(f"it waits for {', '.join(status.waiting_for)}")
        if status.exit_code is not None:
            parts.append(f"exited with {status.exit_code}, {status.restarts} restarts")
        error = UnitError("; ".join(parts) + (f"\n{tail}" if tail else ""))
        error.hint = PortError.hint if status.exit_code == PORT_TAKEN else f"log: {self.dir / 'logs' / unit.name}.log"
        return error

    # The cluster as a whole

    def _supervisor(self) -> int | None:
        """Process id of the running supervisor, frozen or not."""
        try:
            descriptor = os.open(self.dir / "run" / "supervisor.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Empty until the supervisor has cleared what a killed one left.
            return int(os.read(descriptor, 20) or 0) or None
        finally:
            os.close(descriptor)
        return None

    def alive(self) -> bool:
        """Whether the cluster's processes are there, not frozen, and its API server accepts connections."""
        supervisor = self._supervisor()
        if supervisor is None or processes.is_stopped(supervisor):
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port("kube-apiserver")), timeout=1).close()
        except OSError:
            return False
        return True

    def ensure_supervised(self) -> None:
        """Starts the supervisor where none runs; thaws a frozen one."""
        supervisor = self._supervisor()
        if supervisor is not None:
            if processes.is_stopped(supervisor):
                self.thaw()
            return
        (self.dir / "logs").mkdir(parents=True, exist_ok=True)
        keep = ("PATH", "HOME", "LANG", "USER", "FLEET_CACHE")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        environment |= {"FLEET_STATE": str(paths.STATE), CELL: str(self.dir.resolve())}
        with (self.dir / "logs" / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "local.supervisor", str(self.dir.resolve())],
                cwd=paths.REPO,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 10
        while self._supervisor() is None:
            if supervisor.poll() is not None or time.monotonic() > deadline:
                error = UnitError(f"supervisor of {self.name}: does not start\n{self._log_tail('supervisor')}")
                error.hint = f"log: {self.dir / 'logs' / 'supervisor.log'}"
                raise error
            time.sleep(0.02)

    def start(self, timeout_s: float = 120) -> None:
        """Runs all units and waits for each; also after a kill, a freeze, or a reboot of the machine."""
        # Also what an interrupted thaw left frozen.
        self.thaw()
        self.ensure_supervised()
        for name in read_units(self.dir / "units"):
            self.wait_ready(name, timeout_s)

    def stop(self) -> None:
        """Ends all processes in reverse order of their start."""
        supervisor = self._supervisor()
        if supervisor is not None:
            self.thaw()
            os.kill(supervisor, signal.SIGTERM)
            deadline = time.monotonic() + 30
            while self._supervisor() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
        self.kill()

    def _mine(self) -> processes.Match:
        return processes.equals(CELL, self.dir.resolve())

    def kill(self) -> int:
        """SIGKILLs every process of the cluster, the supervisor first so that it restarts nothing. Returns how many."""
        supervisor = self._supervisor()
        if supervisor is not None:
            processes.signal_all([supervisor], signal.SIGKILL)
        return processes.kill_all(self._mine())

    def freeze(self) -> None:
        """SIGSTOPs every process: connections stay open and nobody answers, as in a hang or a partition."""
        deadline = time.monotonic() + 5
        # A stop is delivered when a process next runs, and one may be forked meanwhile. Whoever freezes a region wants it
        # frozen on return.
        while running := [pid for pid in processes.find(self._mine()) if not processes.is_stopped(pid)]:
            processes.signal_all(running, signal.SIGSTOP)
            if time.monotonic() > deadline:
                raise UnitError(f"{self.name}: processes do not stop: {' '.join(map(str, running))}")
            time.sleep(0.001)

    def thaw(self) -> None:
        processes.signal_all(processes.find(self._mine()), signal.SIGCONT)

    def delete(self) -> None:
        """Ends all processes and removes the folder."""
        with self.locked():
            self.kill()
            trash = paths.STATE / "trash"
            if self.dir.exists():
                # Gone under its name at once: half a folder must not be taken for a cluster with half its data.
                trash.mkdir(exist_ok=True)
                self.dir.rename(trash / f"{self.name}-{time.time_ns()}")
            shutil.rmtree(trash, ignore_errors=True)
        merge_kubeconfigs()


def all_clusters() -> list[HostCluster]:
    """Every cluster that was made in this state folder, by name."""
    folder = paths.STATE / "clusters"
    return [HostCluster(path.parent.name) for path in sorted(folder.glob("*/cluster.json"))]


def merge_kubeconfigs() -> None:
    """Writes STATE/kubeconfig: one context per cluster, named as the cluster."""
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    with _locked(paths.STATE / "locks" / "kubeconfig"):
        for cluster in all_clusters():
            if cluster.kubeconfig.exists():
                each: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
                for part in ("clusters", "users", "contexts"):
                    merged[part] += each[part]
                if not merged.get("current-context"):
                    merged["current-context"] = cluster.name
        write_atomically(paths.STATE / "kubeconfig", yaml.safe_dump(merged, sort_keys=False))
