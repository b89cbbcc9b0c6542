"""Faults that a drill makes in a local fleet. What undoes each is noted in a file before anything is touched.

So whatever ends a drill, a SIGKILL too, the next `fleet drill` or `fleet up` finds what is left to undo. Every undoing can be
repeated. What the faults are for, and when, is operations/drills.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from core.errors import FleetError
from core.files import write_atomically
from kube.client import Kube, KubeError
from local import processes
from local.gateways import FRONT_DOOR, REGIONAL_GATEWAY, STREAM_RELAY
from local.host_cluster import HostCluster, UnitError
from local.istio import UNIT as ISTIOD
from local.node_agent.processes import members, pods_of
from local.supervisor import UNIT
from local.units import Unit, read_units
from operations.drills.faults import mock_engine
from operations.drills.faults.packet_filter import Blackhole, FilterError
from specs.labels import NAMESPACE_MODELS
from toolchain import paths

Step = dict[str, Any]
Say = Callable[[str], None]
Mark = Callable[[str], None]

# What carries requests in a region, besides its pods and what stands in for them.
DATA_PATH = (FRONT_DOOR, STREAM_RELAY, REGIONAL_GATEWAY)
# KServe puts it on the pods of a model.
_MODEL_OF_POD = "serving.kserve.io/inferenceservice"
# vLLM names the process that computes so.
_ENGINE = b"EngineCore"

_STOP_S = 5.0
_READY_S = 60.0
_ADMIN_S = 5.0
_DRAIN_S = 60.0


class FaultError(FleetError):
    """A fault cannot be made here, or not be undone. The message says why."""


class Journal:
    """What is left to undo, oldest first."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or paths.STATE / "drill" / "undo.json"

    def steps(self) -> list[Step]:
        try:
            return json.loads(self.path.read_text())
        except FileNotFoundError:
            return []

    def note(self, *steps: Step) -> None:
        """Before the first of what they undo is done."""
        self._write([*self.steps(), *(step for step in steps if step not in self.steps())])

    def undo(self, steps: Sequence[Step] | None = None, say: Say = lambda _: None) -> None:
        """Undoes these steps, all without, the newest first. What cannot be undone stays noted: then FaultError says what."""
        failed: list[str] = []
        for step in reversed(self.steps() if steps is None else list(steps)):
            try:
                if told := UNDO[step["undo"]](step):
                    say(told)
            except (OSError, KubeError, UnitError, FaultError, TimeoutError, subprocess.SubprocessError) as error:
                failed.append(f"{_subject(step)}: {error}")
                continue
            self._write([each for each in self.steps() if each != step])
        if failed:
            error = FaultError("what a drill broke is not mended:\n" + "\n".join(failed))
            error.hint = f"`make up` tries it again; what is left is in {self.path}"
            raise error

    def _write(self, steps: Sequence[Step]) -> None:
        if not steps:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(steps, indent=1))


def _subject(step: Step) -> str:
    return " ".join(str(step[key]) for key in ("undo", "cluster", "unit", "path") if key in step and not isinstance(step[key], dict))


# Undoing. Each says what it did, or nothing where there was nothing to do. Clusters that are gone need none.


def _start(step: Step) -> str:
    cluster = HostCluster(step["cluster"])
    if not cluster.exists() or cluster.alive():
        return ""
    begun = time.monotonic()
    # As a person does it: with all that follows from a return.
    done = subprocess.run([sys.executable, "-m", "local.driver", "cluster", "start", cluster.name], cwd=paths.REPO, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FaultError(done.stderr.strip()[-500:])
    return f"{cluster.name} started again, {time.monotonic() - begun:.0f} s"


def _thaw(step: Step) -> str:
    cluster = HostCluster(step["cluster"])
    if not cluster.exists():
        return ""
    cluster.thaw()
    return f"{cluster.name} thawed"


def _put_back(step: Step) -> str:
    cluster, unit = HostCluster(step["cluster"]), Unit.from_json(json.dumps(step["unit"]))
    if not cluster.exists() or not cluster.put_unit(unit):
        return ""
    if cluster.alive():
        cluster.wait_ready(unit.name, _READY_S)
    return f"{unit.name} of {cluster.name} started again"


def _admit(step: Step) -> str:
    cluster = HostCluster(step["cluster"])
    if not cluster.exists() or not cluster.alive():
        return ""
    admin(cluster, REGIONAL_GATEWAY, "/healthcheck/ok", post=True)
    return f"{cluster.name} takes requests again"


def _return(step: Step) -> str:
    path, away = Path(step["path"]), Path(step["away"])
    if not away.exists():
        return ""
    away.rename(path)
    return f"{path.name} put back"


def _go_on(step: Step) -> str:
    # One that is gone with its region computes again when it is back.
    with contextlib.suppress(OSError):
        mock_engine.thaw(HostCluster(step["cluster"]))
    return ""


def _remove_stand_ins(step: Step) -> str:
    mock_engine.remove([HostCluster(name) for name in step["clusters"]])
    return "stand-ins removed"


UNDO: dict[str, Callable[[Step], str]] = {
    "start": _start,
    "thaw": _thaw,
    "put back": _put_back,
    "admit": _admit,
    "return": _return,
    "go on": _go_on,
    "remove stand-ins": _remove_stand_ins,
}


def start_step(cluster: HostCluster) -> Step:
    return {"undo": "start", "cluster": cluster.name}


def put_back_step(cluster: HostCluster, unit: Unit) -> Step:
    return {"undo": "put back", "cluster": cluster.name, "unit": json.loads(unit.to_json())}


def remove_stand_ins_step(clusters: Iterable[HostCluster]) -> Step:
    return {"undo": "remove stand-ins", "clusters": [each.name for each in clusters]}


# Faults


class Fault(ABC):
    """One fault: `prepare` before the moment counts, `inject`, then `last` until it is mended by `heal`."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.noted: list[Step] = []

    @abstractmethod
    def steps(self) -> list[Step]:
        """What undoes it; undone from the last to the first."""

    @abstractmethod
    def act(self) -> None: ...

    def prepare(self, mark: Mark) -> None:
        """What takes time and harms no request. Raises FaultError where the fault cannot be made."""
        del mark

    def inject(self) -> None:
        self.noted = self.steps()
        self.journal.note(*self.noted)
        self.act()

    def last(self, seconds: float, mark: Mark) -> None:
        """Lets the fault last."""
        del mark
        time.sleep(max(0.0, seconds))

    def heal(self, say: Say = lambda _: None) -> None:
        """May be called again and again."""
        self.journal.undo(self.noted, say)


class Kill(Fault):
    """A whole region is SIGKILLed."""

    def __init__(self, journal: Journal, cluster: HostCluster) -> None:
        super().__init__(journal)
        self.cluster = cluster

    def steps(self) -> list[Step]:
        return [start_step(self.cluster)]

    def act(self) -> None:
        self.cluster.kill()


class KillWithoutHub(Kill):
    """The same while Karmada, every istiod and Pulumi's backend are away."""

    def __init__(self, journal: Journal, cluster: HostCluster, hub: HostCluster, others: Sequence[HostCluster]) -> None:
        super().__init__(journal, cluster)
        self.hub, self.others = hub, others
        self.backend = paths.STATE / "pulumi"

    def steps(self) -> list[Step]:
        # Undone from the last: the hub first, since a region that comes back is given its share by the hub.
        istiods = [put_back_step(each, read_units(each.dir / "units")[ISTIOD]) for each in self.others]
        away = {"undo": "return", "path": str(self.backend), "away": str(self.backend.with_name("pulumi.away"))}
        return [start_step(self.cluster), *istiods, away, start_step(self.hub)]

    def prepare(self, mark: Mark) -> None:
        self.noted = self.steps()
        self.journal.note(*self.noted)
        self.backend.rename(self.backend.with_name("pulumi.away"))
        self.hub.kill()
        for each in self.others:
            each.kill_unit(ISTIOD)
        mark("hub-down")

    def inject(self) -> None:
        self.act()


class Freeze(Fault):
    """SIGSTOP of a region's data path: gateways, relay, pods, stand-ins. Connections stay open and nobody answers."""

    def __init__(self, journal: Journal, cluster: HostCluster) -> None:
        super().__init__(journal)
        self.cluster = cluster
        self.pids: list[int] = []

    def steps(self) -> list[Step]:
        return [{"undo": "thaw", "cluster": self.cluster.name}]

    def prepare(self, mark: Mark) -> None:
        del mark
        # Looking for them takes longer than stopping them.
        self.pids = data_path(self.cluster)
        if not self.pids:
            raise FaultError(f"{self.cluster.name}: no gateway runs there")

    def act(self) -> None:
        stop(self.pids)


class Flap(Freeze):
    """Frozen for some seconds, alive for some seconds, several times."""

    # Seconds frozen and alive, in turn; every pause is different, so that none fits an interval of the checks by chance.
    RHYTHM = (2.0, 3.0, 3.5, 2.5, 4.0, 4.5, 5.0, 2.0)

    def last(self, seconds: float, mark: Mark) -> None:
        del mark
        deadline = time.monotonic() + seconds
        frozen, place = True, 0
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, self.RHYTHM[place % len(self.RHYTHM)]))
            if time.monotonic() >= deadline:
                break
            if frozen:
                processes.signal_all(self.pids, signal.SIGCONT)
            else:
                stop(self.pids)
            frozen, place = not frozen, place + 1


class FreezeEngine(Fault):
    """The engine computes nothing while its server says that it is well: vLLM's EngineCore processes, or a stand-in's engine."""

    def __init__(self, journal: Journal, cluster: HostCluster, model: str) -> None:
        """`model`: the model whose engines are frozen, empty for the stand-ins."""
        super().__init__(journal)
        self.cluster, self.model = cluster, model
        self.pids: list[int] = []

    def steps(self) -> list[Step]:
        return [{"undo": "thaw" if self.model else "go on", "cluster": self.cluster.name}]

    def prepare(self, mark: Mark) -> None:
        del mark
        if not self.model:
            return
        with Kube.from_kubeconfig(self.cluster.kubeconfig) as api:
            pods = api.list("v1", "Pod", NAMESPACE_MODELS, label_selector=f"{_MODEL_OF_POD}={self.model}")
        self.pids = [pid for pod in pods for pid in members(pod["metadata"]["uid"]) if _ENGINE in _title(pid)]
        if not self.pids:
            raise FaultError(f"{self.model} in {self.cluster.name}: no process is named `{_ENGINE.decode()}`, so there is no engine to freeze")

    def act(self) -> None:
        if self.model:
            stop(self.pids)
        else:
            mock_engine.freeze(self.cluster)


class Cut(Fault):
    """Packets to and from the doors of a region are dropped. The kernel undoes it with the end of this process."""

    def __init__(self, journal: Journal, cluster: HostCluster) -> None:
        super().__init__(journal)
        self.cluster = cluster
        self._hole: Blackhole | None = None

    def steps(self) -> list[Step]:
        return []

    def act(self) -> None:
        try:
            self._hole = Blackhole(self.cluster.port(each) for each in (REGIONAL_GATEWAY, FRONT_DOOR))
        except FilterError as error:
            raise FaultError(str(error)) from None

    def heal(self, say: Say = lambda _: None) -> None:
        if self._hole is not None:
            self._hole.close()
            self._hole = None
            say(f"packets to {self.cluster.name} pass again")


class Drain(Fault):
    """Planned: the regional gateway fails its checks, what is under way ends, then it is stopped."""

    def __init__(self, journal: Journal, cluster: HostCluster) -> None:
        super().__init__(journal)
        self.cluster = cluster

    def steps(self) -> list[Step]:
        gateway = read_units(self.cluster.dir / "units")[REGIONAL_GATEWAY]
        return [{"undo": "admit", "cluster": self.cluster.name}, put_back_step(self.cluster, gateway)]

    def act(self) -> None:
        admin(self.cluster, REGIONAL_GATEWAY, "/healthcheck/fail", post=True)

    def last(self, seconds: float, mark: Mark) -> None:
        deadline = time.monotonic() + seconds
        await_idle(self.cluster, min(seconds, _DRAIN_S))
        mark("drained")
        self.cluster.remove_unit(REGIONAL_GATEWAY)
        mark("stopped")
        time.sleep(max(0.0, deadline - time.monotonic()))


class KillUnits(Fault):
    """Some units of some clusters are SIGKILLed and stay away: {cluster: [unit]}."""

    def __init__(self, journal: Journal, units: Sequence[tuple[HostCluster, str]]) -> None:
        super().__init__(journal)
        self.units = units

    def steps(self) -> list[Step]:
        return [put_back_step(cluster, read_units(cluster.dir / "units")[name]) for cluster, name in self.units]

    def act(self) -> None:
        for cluster, name in self.units:
            cluster.kill_unit(name)


# Parts


def data_path(cluster: HostCluster) -> list[int]:
    """Processes of a cluster that requests pass through."""
    folder = cluster.dir.resolve()
    units = {f"{UNIT}={folder}/{name}".encode() for name in (*DATA_PATH, *mock_engine.UNITS)}
    pods = [pid for pids in pods_of(str(folder)).values() for pid in pids]
    return sorted({*processes.find(lambda variable: variable in units), *pods})


def stop(pids: Sequence[int]) -> None:
    """SIGSTOPs them and waits until they are: a stop is delivered when a process next runs. Raises FaultError."""
    processes.signal_all(list(pids), signal.SIGSTOP)
    deadline = time.monotonic() + _STOP_S
    while running := [pid for pid in pids if processes.exists(pid) and not processes.is_stopped(pid)]:
        if time.monotonic() > deadline:
            raise FaultError(f"processes do not stop: {' '.join(map(str, running))}")
        time.sleep(0.001)


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return b""


def admin(cluster: HostCluster, gateway: str, path: str, *, post: bool = False, timeout: float = _ADMIN_S) -> bytes:
    """What the admin interface of a gateway answers. Raises OSError where it does not."""
    request = urllib.request.Request(f"http://127.0.0.1:{cluster.port(f'{gateway}-admin')}{path}", method="POST" if post else "GET")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as answer:
        return answer.read()


def under_way(cluster: HostCluster) -> int:
    """Requests that the regional gateway of a cluster has under way."""
    found: dict[str, Any] = json.loads(admin(cluster, REGIONAL_GATEWAY, "/stats?format=json&filter=^http%5C..*%5C.downstream_rq_active$"))
    return sum(int(each["value"]) for each in found["stats"] if not each["name"].startswith("http.admin."))


def await_idle(cluster: HostCluster, timeout_s: float) -> None:
    """Waits until nothing was under way for a second, in which front doors see the failed check. Raises FaultError."""
    deadline = time.monotonic() + timeout_s
    idle_since: float | None = None
    while time.monotonic() < deadline:
        now = time.monotonic()
        if under_way(cluster):
            idle_since = None
        elif idle_since is None:
            idle_since = now
        elif now - idle_since > 1.0:
            return
        time.sleep(0.05)
    raise FaultError(f"{cluster.name}: requests are under way still, {timeout_s:.0f} s after the drain began")


def left_over() -> bool:
    return bool(Journal().steps())


def heal_left_over(say: Say) -> None:
    """Undoes what an interrupted drill left. Whoever calls holds the fleet's lock. Raises FaultError."""
    journal = Journal()
    if steps := journal.steps():
        say(f"an interrupted drill left {len(steps)} things to mend")
        journal.undo(say=lambda told: say(f"  {told}"))
