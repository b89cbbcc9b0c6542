"""More requests than a region can take, then more than all can: nothing is broken, the load itself is the fault."""

import math
from collections.abc import Iterator, Sequence

from core.errors import FleetError
from operations.drills.analysis import Analysis
from operations.drills.case import Case, Doors, Harm, Live, Plan
from operations.drills.faults import mock_engine
from operations.drills.goals import NOT_MEASURED, Line, at_most, bound, every, harmed, longest, none, some, worst
from operations.drills.load import TIMEOUT_S, Record, shifted
from operations.drills.result import DrillResult

FULL_ANSWER_S = 0.050

# Requests of the two further loads as multiples of the first one's rate: in all they need 1, 2 and 4 times what the first needs, and a
# region takes 1.5 times of that.
_SURGES = (1.0, 2.0)
_HEADROOM = 1.5
_TOKEN_MS = 25.0


def mock_engines(rate: float, tokens: int, stall_seconds: float) -> mock_engine.Engine:
    capacity = max(2, math.ceil(_HEADROOM * rate * tokens * _TOKEN_MS / 1000))
    return mock_engine.Engine(token_milliseconds=_TOKEN_MS, tokens=tokens, capacity=capacity, stall_seconds=stall_seconds)


def precondition(plan: Plan) -> None:
    if not plan.mocked and plan.model.runtime.max_queued is None:
        raise FleetError(f"{plan.model.name} never rejects a request, however many wait: runtime.maxQueued is not set", hint="set it, or use --mock-engine")


def surge(live: Live) -> list[Record]:
    """Two further loads, one after the other, until the time of the recovery; their records on the clock of the first."""
    times, load, clock = live.times, live.load, live.clock
    load.wait(times.fault)
    clock.mark("fault")
    with live.further("surge-1", _SURGES[0]) as one:
        live.say("more than one region takes")
        load.wait(times.fault + (times.heal - times.fault) / 2)
        clock.mark("all-down")
        with live.further("surge-2", _SURGES[1]) as two:
            live.say("more than all regions take")
            load.wait(times.heal)
            clock.mark("heal")
            records = [(each.begin, each.finish(TIMEOUT_S + 10)) for each in (one, two)]
    return [each for begin, found in records for each in shifted(found, begin - load.begin)]


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    answers = found.overloaded
    others, of = harmed(found, lambda phase: phase.lost - phase.full)
    yield none("failed otherwise than by 429", others, of)
    yield none("429 before all regions were full", found.early_full, of)
    yield some("429 when all regions are full", answers)
    yield every("429 with Retry-After", "every one", answers.retry_after, answers.count)
    yield at_most("429 after", worst(answers), FULL_ANSWER_S, computed=bound(result, "refused"))
    ejected = NOT_MEASURED if found.kept_out is None else ", ".join(found.kept_out) or "none"
    yield Line(name="regions ejected because they were full", goal="none", measured=ejected, computed="", ok=found.kept_out is not None and not found.kept_out)


def besides(found: Sequence[Analysis]) -> str:
    return f"429 after {longest(worst(each.overloaded) for each in found)}"


CASE = Case(
    name="overload",
    summary="more requests than a region can take, then more than all can",
    fault=None,
    harm=Harm.NOTHING,
    surge=surge,
    precondition=precondition,
    doors=Doors.ASKING,
    mock_requests=1_500,
    mock_rate=20.0,
    mock_engines=mock_engines,
    fault_s=10.0,
    goals=goals,
    bounds="overload",
    published=False,
    hides=frozenset({"p99", "added", "left", "median", "back"}),
    failures=lambda found: found.harmed_by(lambda phase: phase.lost - phase.full),
    besides=besides,
)
