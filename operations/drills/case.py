"""What a drill is: the options that somebody gave, the case, and the plan that follows from both. Plain data.

The cases are the modules of cases/, one each. All other modules of this package ask the case what they need; none of them compares its
name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from operations.drills.analysis import Analysis
from operations.drills.faults import mock_engine
from operations.drills.goals import Goals
from operations.drills.load import Clock, Load, Record
from specs.fleet import FleetSpec
from specs.models import ModelSpec

# The longest that a region stays broken, however long the load: a region that is away for minutes loses its models to
# others, which is the case `replace`.
LONGEST_FAULT_S = 30.0
# Load goes on this long after the region is back.
TAIL_S = 8.0

Say = Callable[[str], None]


class Doors(StrEnum):
    """Which front doors callers use."""

    OUTSIDE = "outside"
    """Those outside the harmed region, of them those that send their requests there first: the front door of a region dies with it, and
    one that never sends requests to the region proves nothing."""
    ASKING = "asking"
    """Those that send their requests to the harmed region, its own front door among them."""
    ALL = "all"
    VICTIM_FIRST = "victim first"
    """All, beginning with the one that is harmed; callers know all of them."""


class Harm(StrEnum):
    """What is broken, and so what must be able to serve again before a drill ends."""

    NOTHING = "nothing"
    REGION = "region"
    EVERY_REGION = "every region"
    """Every region that serves the model."""
    FRONT_DOOR = "front door"
    """One front door; its region serves on."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What somebody chose. None: chosen by the drill."""

    case: str
    stack: str = "local"
    cluster: str | None = None
    model: str | None = None
    rate: float | None = None
    requests: int | None = None
    stream: bool = False
    tokens: int | None = None
    doors: tuple[str, ...] = ()
    mock_engine: bool = False
    baseline: bool = False
    repeat: int = 1
    json_file: Path | None = None
    report: Path | None = None
    not_local: bool = False
    """A fleet that is not on this machine alone may be drilled."""
    token: str = field(default="", repr=False)
    meant: str | None = None
    """The cluster that was confirmed beforehand."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One drill, ready to run."""

    options: Options
    case: "Case"
    fleet: FleetSpec
    model: ModelSpec
    """The model whose placement and objectives are meant; with mock engines it is they who answer."""
    victim: str
    serving: tuple[str, ...]
    """In failover order."""
    doors: tuple[str, ...]
    urls: Mapping[str, str]
    """Front door of every cluster."""
    regions: Mapping[str, str]
    mocked: bool
    """Mock engines answer in place of the model."""
    victim_first: bool
    """Mock engines only: no front door outside sends requests to the victim first, so all do."""
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Name of the model in paths."""
        return mock_engine.DECLARED if self.mocked else self.model.name

    def url(self, door: str, model: str | None = None) -> str:
        return f"{self.urls[door]}/{model or self.path}/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds since the begin of the load."""

    fault: float
    heal: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Live:
    """A drill while it runs, for cases that do something of their own meanwhile."""

    plan: Plan
    outputs: Mapping[str, Any]
    load: Load
    clock: Clock
    times: Timing
    say: Say
    further: Callable[[str, float], Load]
    """A further load of the same requests: its label, and its rate as a multiple of the first one's."""


def no_precondition(_: Plan) -> None:
    """Every machine and model will do."""


def no_more_bounds(_: Plan) -> Mapping[str, float | None]:
    return {}


def lost(found: Analysis) -> int:
    """What the report counts as failures, where an error is never what callers should get."""
    return found.harmed_by(lambda phase: phase.lost)


def nothing_besides(_: Sequence[Analysis]) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that differs between cases. A new one is a module in cases/ that makes one of these; docs/drills.md says how."""

    name: str
    summary: str
    """One line for a person."""

    # What is broken
    fault: str | None
    """Name of a fault in faults/, which the driver of the harmed cluster must support. None: the load itself is the fault."""
    harm: Harm = Harm.REGION
    during: Callable[[Live], None] | None = None
    """While the fault lasts, in place of waiting for its end."""
    surge: Callable[[Live], list[Record]] | None = None
    """In place of a fault: further loads; returns their records on the clock of the first load."""
    nobody_left: bool = False
    """From the fault on no region can serve the model."""

    # What it needs
    needs_hub: bool = False
    """The hub runs on this machine."""
    precondition: Callable[[Plan], None] = no_precondition
    """Raises FleetError where this machine or this model will not do."""
    choose_model: Callable[[FleetSpec], ModelSpec | None] | None = None
    """The model where nobody chose. Raises FleetError; None: as any other case does."""
    simulated: bool = False
    """Takes a model on simulated GPUs too: mock engines answer for it, without --mock-engine."""
    alone: bool = False
    """The harmed region is the only one that may serve the model."""
    own_replicas: bool = False
    """It is about the model's own replicas, where the hub has put them, whoever answers in their place."""

    # Load
    doors: Doors = Doors.OUTSIDE
    mock_requests: int = 3_000
    """To mock engines, where nobody chose: enough that one failure of a thousand would show."""
    mock_rate: float | None = None
    """Requests per second to mock engines, where nobody chose. None: 100, of streams 25."""
    mock_engines: Callable[[float, int, float], mock_engine.Engine] | None = None
    """Mock engines that are made for a load: given rate, tokens of an answer and stall seconds. Such a rate is never lowered."""
    streams_in_all: bool = False
    """`fleet drill all` runs it once more with streams."""

    # Phases
    baseline_s: float = 4.0
    fault_s: float = 7.0
    """Shortest durations of the two phases: what is judged must have time to happen."""

    # Verdict
    goals: Goals
    """The goals of this case alone."""
    bounds: str | None
    """Which worst case of planning/failover_time is computed for it."""
    more_bounds: Callable[[Plan], Mapping[str, float | None]] = no_more_bounds
    objectives: frozenset[str] = frozenset()
    """Of the model's declared objectives those that this case can measure."""
    cuts_streams: bool = False
    """Answers of one region are under way when it fails, and another region is there."""
    resumable: bool = False
    """Where the stack lets streams go on elsewhere, none may end early."""
    returns: bool = False
    """The region comes back once, so that its first answer after that can be timed."""

    # Comparison and report
    published: bool = True
    """Whether a comparison with the settings that articles publish tells something."""
    hides: frozenset[str] = frozenset()
    """Columns of the report that say nothing of it: of p99, added, left, median, back."""
    failures: Callable[[Analysis], int] = lost
    """What the report counts as failures."""
    besides: Callable[[Sequence[Analysis]], str] = nothing_besides
    """The figure that is this case's own, of all its runs."""

    @property
    def own_load(self) -> bool:
        """The mock engines are made for the rate, so `fleet drill all` leaves it to the case."""
        return self.mock_engines is not None

    def harmed(self, plan: Plan) -> tuple[str, ...]:
        """Clusters whose regional gateways must be able to serve again before the drill ends."""
        return {Harm.REGION: (plan.victim,), Harm.EVERY_REGION: plan.serving}.get(self.harm, ())


def shortest(case: Case) -> float:
    """Seconds that a drill of this case lasts at least."""
    return case.baseline_s + case.fault_s + TAIL_S


def timing(case: Case, seconds: float) -> Timing:
    """A third before the fault, a third of it and a third after, each within its limits. `seconds` is not below `shortest`."""
    fault_s = min(max(case.fault_s, seconds / 3), max(case.fault_s, LONGEST_FAULT_S))
    tail = max(TAIL_S, seconds / 3)
    begin = max(case.baseline_s, seconds - fault_s - tail)
    return Timing(fault=begin, heal=begin + fault_s, end=seconds)
