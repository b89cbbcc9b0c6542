"""Faults in a cluster of the driver `local`: signals to its processes, dropped packets, failed health checks.

What undoes each is noted in the journal before anything is touched.
"""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kube.client import Kube
from local import processes
from local.gateways import FRONT_DOOR, REGIONAL_GATEWAY, STREAM_RELAY
from local.host_cluster import HostCluster
from local.istio import UNIT as ISTIOD
from local.node_agent.processes import members, pods_of
from local.supervisor import UNIT
from local.units import read_units
from operations.drills.faults import gateway_admin, mock_engine
from operations.drills.faults.errors import FaultError, Mark, Say, Step
from operations.drills.faults.fault import Fault, Scene
from operations.drills.faults.journal import Journal
from operations.drills.faults.packet_filter import Blackhole, FilterError
from operations.drills.faults.undo import start_step, start_unit_step
from specs.labels import LABEL_PODS_OF_MODEL, NAMESPACE_MODELS
from toolchain import paths

# What carries requests in a region, besides its pods and mock engines.
DATA_PATH = (FRONT_DOOR, STREAM_RELAY, REGIONAL_GATEWAY)
# vLLM names the process that computes so.
_ENGINE = b"EngineCore"

_STOP_S = 5.0
_DRAIN_S = 60.0


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
        istiods = [start_unit_step(each, read_units(each.dir / "units")[ISTIOD]) for each in self.others]
        away = {"undo": "restore folder", "path": str(self.backend), "away": str(self.backend.with_name("pulumi.away"))}
        return [start_step(self.cluster), *istiods, away, start_step(self.hub)]

    def prepare(self, mark: Mark) -> None:
        self.noted = self.steps()
        self.journal.note(*self.noted)
        # A stack with a backend of its own has nothing there.
        if self.backend.is_dir():
            self.backend.rename(self.backend.with_name("pulumi.away"))
        self.hub.kill()
        for each in self.others:
            each.kill_unit(ISTIOD)
        mark("hub-down")

    def inject(self) -> None:
        self.act()


class Freeze(Fault):
    """SIGSTOP of a region's data path: gateways, relay, pods, mock engines. Connections stay open and nobody answers."""

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
    """The engine computes nothing while its server says that it is well: vLLM's EngineCore processes, or a mock engine."""

    def __init__(self, journal: Journal, cluster: HostCluster, model: str) -> None:
        """`model`: the model whose engines are frozen, empty for the mock engines."""
        super().__init__(journal)
        self.cluster, self.model = cluster, model
        self.pids: list[int] = []

    def steps(self) -> list[Step]:
        return [{"undo": "thaw" if self.model else "thaw engine", "cluster": self.cluster.name}]

    def prepare(self, mark: Mark) -> None:
        del mark
        if not self.model:
            return
        with Kube.from_kubeconfig(self.cluster.kubeconfig) as api:
            pods = api.list("v1", "Pod", NAMESPACE_MODELS, label_selector=f"{LABEL_PODS_OF_MODEL}={self.model}")
        self.pids = [pid for pod in pods for pid in members(pod["metadata"]["uid"]) if _ENGINE in _title(pid)]
        if not self.pids:
            raise FaultError(f"{self.model} in {self.cluster.name}: no engine to freeze: no process is named `{_ENGINE.decode()}`")

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
        return [{"undo": "admit", "cluster": self.cluster.name}, start_unit_step(self.cluster, gateway)]

    def act(self) -> None:
        gateway_admin.call(self.cluster, REGIONAL_GATEWAY, "/healthcheck/fail", post=True)

    def last(self, seconds: float, mark: Mark) -> None:
        deadline = time.monotonic() + seconds
        gateway_admin.await_idle(self.cluster, min(seconds, _DRAIN_S))
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
        return [start_unit_step(cluster, read_units(cluster.dir / "units")[name]) for cluster, name in self.units]

    def act(self) -> None:
        for cluster, name in self.units:
            cluster.kill_unit(name)


FAULTS: Mapping[str, Callable[[Scene], Fault]] = {
    "kill": lambda scene: Kill(scene.journal, scene.victim),
    "kill-without-hub": lambda scene: KillWithoutHub(
        scene.journal, scene.victim, scene.hub, [each for each in scene.members if each.name != scene.victim.name]
    ),
    "kill-front-door": lambda scene: KillUnits(scene.journal, [(scene.victim, FRONT_DOOR)]),
    "kill-regional-gateways": lambda scene: KillUnits(scene.journal, [(each, REGIONAL_GATEWAY) for each in scene.serving]),
    "freeze": lambda scene: Freeze(scene.journal, scene.victim),
    "flap": lambda scene: Flap(scene.journal, scene.victim),
    "freeze-engine": lambda scene: FreezeEngine(scene.journal, scene.victim, scene.model),
    "cut": lambda scene: Cut(scene.journal, scene.victim),
    "drain": lambda scene: Drain(scene.journal, scene.victim),
}
"""What a case may name as its fault."""


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
