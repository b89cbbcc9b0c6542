"""The cases of a drill: what is broken, whose front doors are used, and how long each part lasts at least.

How a case is judged is verdict.py; how a fault is made is operations/drills/faults/local.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from local.gateways import FRONT_DOOR, REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from operations.drills.faults import local as faults
from operations.drills.faults.local import Fault, Journal

# The longest that a region stays broken, however long the load: a region that is away for minutes loses its models to
# others, which is the case `replace`.
LONGEST_FAULT_S = 30.0
# Load goes on this long after the region is back.
TAIL_S = 8.0


class Doors(StrEnum):
    """Which front doors callers use."""

    OUTSIDE = "outside"
    """Those outside the region that is harmed, of them those that send their requests there: the door of a region dies with
    it, and a door that never asks the region proves nothing."""
    ASKING = "asking"
    """Those that send their requests to the harmed region, its own door among them."""
    ALL = "all"
    VICTIM_FIRST = "victim first"
    """All, beginning with the one that is harmed."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a fault is made of."""

    journal: Journal
    victim: HostCluster
    members: tuple[HostCluster, ...]
    """Every cluster with a front door."""
    serving: tuple[HostCluster, ...]
    """Those that serve the model."""
    hub: HostCluster
    model: str
    """The model whose engines may be frozen, empty where stand-ins serve it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    text: str
    """One line for a person."""
    fault: Callable[[Scene], Fault] | None
    """None: the load itself is the fault."""
    doors: Doors = Doors.OUTSIDE
    baseline_s: float = 4.0
    fault_s: float = 7.0
    """Shortest durations of the two parts: what is judged must have time to happen."""
    alone: bool = False
    """The harmed region is the only one that may serve the model."""
    published: bool = True
    """Whether a comparison with published settings tells something."""
    requests: int = 3_000
    """To stand-ins, where nobody chose: enough that one failure of a thousand would show."""


def _all_down(scene: Scene) -> Fault:
    return faults.KillUnits(scene.journal, [(each, REGIONAL_GATEWAY) for each in scene.serving])


def _hub_down(scene: Scene) -> Fault:
    return faults.KillWithoutHub(scene.journal, scene.victim, scene.hub, [each for each in scene.members if each.name != scene.victim.name])


CASES: Mapping[str, Case] = {
    each.name: each
    for each in (
        Case(name="kill", text="every process of a region is killed", fault=lambda scene: faults.Kill(scene.journal, scene.victim), requests=10_000),
        Case(name="hang", text="gateways and pods of a region freeze", fault=lambda scene: faults.Freeze(scene.journal, scene.victim)),
        Case(name="blackhole", text="packets to and from a region are dropped", fault=lambda scene: faults.Cut(scene.journal, scene.victim)),
        Case(
            name="engine-hang",
            text="the engines of a region compute nothing, and their servers say that all is well",
            fault=lambda scene: faults.FreezeEngine(scene.journal, scene.victim, scene.model),
            doors=Doors.ASKING,
            fault_s=20.0,
        ),
        Case(
            name="overload",
            text="more requests than a region can take, then more than all can",
            fault=None,
            doors=Doors.ASKING,
            fault_s=10.0,
            published=False,
            requests=1_500,
        ),
        Case(
            name="drain",
            text="a region is taken out as planned",
            fault=lambda scene: faults.Drain(scene.journal, scene.victim),
            doors=Doors.ASKING,
            fault_s=8.0,
            # They have no deep checks: nothing that a region says makes a door leave it.
            published=False,
        ),
        Case(name="hub-down", text="a region is killed while the hub, every istiod and Pulumi's backend are away", fault=_hub_down, requests=10_000),
        Case(name="flap", text="a region freezes and returns, again and again", fault=lambda scene: faults.Flap(scene.journal, scene.victim), fault_s=24.0),
        Case(name="all-down", text="no region can serve the model; the front doors live", fault=_all_down, doors=Doors.ALL),
        Case(
            name="gateway",
            text="one front door is killed; callers know the others",
            fault=lambda scene: faults.KillUnits(scene.journal, [(scene.victim, FRONT_DOOR)]),
            doors=Doors.VICTIM_FIRST,
            published=False,
        ),
        Case(
            name="replace",
            text="a region is lost for good, until its replicas are ready elsewhere",
            fault=lambda scene: faults.Kill(scene.journal, scene.victim),
            published=False,
        ),
        Case(
            name="residency",
            text="the only region that may serve a model is killed: no other answers for it",
            fault=lambda scene: faults.Kill(scene.journal, scene.victim),
            alone=True,
            published=False,
        ),
    )
}
EVERY = "all"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds since the begin of the load."""

    fault: float
    heal: float
    end: float


def shortest(case: Case) -> float:
    """Seconds that a drill of this case lasts at least."""
    return case.baseline_s + case.fault_s + TAIL_S


def timing(case: Case, seconds: float) -> Timing:
    """A third before the fault, a third of it and a third after, each within its limits. `seconds` is not below `shortest`."""
    fault_s = min(max(case.fault_s, seconds / 3), max(case.fault_s, LONGEST_FAULT_S))
    tail = max(TAIL_S, seconds / 3)
    begin = max(case.baseline_s, seconds - fault_s - tail)
    return Timing(fault=begin, heal=begin + fault_s, end=seconds)
