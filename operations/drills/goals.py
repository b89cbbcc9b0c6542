"""Goals of drills: one line each, kept or not, and the kinds of lines that several cases share.

What could not be measured is not kept: a drill that saw nothing must not look like one that saw no harm. What is computed is a bound
for the worst case, so a measurement above it is a fault of the arithmetic or of the fleet, even where the goal is kept.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from operations.drills.analysis import FAULT, Analysis, Answers, Phase
from operations.drills.result import DrillResult

NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One goal. `computed` is empty where nothing was."""

    name: str
    goal: str
    measured: str
    computed: str
    ok: bool


def seconds(value: float) -> str:
    """For people: `35 ms`, `1.06 s`, `226 s`. Zero and what is below half a millisecond is `0 ms`."""
    if abs(value) < 0.0005:
        return "0 ms"
    if abs(value) < 0.9995:
        return f"{value * 1000:.0f} ms" if abs(value) >= 0.00995 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 9.995 else f"{value:.1f} s" if abs(value) < 99.95 else f"{value:.0f} s"


def at_most(name: str, value: float | None, limit: float, *, computed: float | None = None, uncertainty: float = 0.0) -> Line:
    """`uncertainty`: by how much the measurement may be too long. It excuses nothing of the goal, only of the bound."""
    goal = f"at most {seconds(limit)}"
    kept = value is not None and value <= limit
    return _line(name, goal, value, kept, computed, uncertainty)


def _line(name: str, goal: str, value: float | None, kept: bool, computed: float | None, uncertainty: float = 0.0) -> Line:
    above = value is not None and computed is not None and value - uncertainty > computed
    told = "" if computed is None else f"at most {seconds(computed)}" + (": measured above it" if above else "")
    measured = NOT_MEASURED if value is None else seconds(value)
    return Line(name=name, goal=goal, measured=measured, computed=told, ok=kept and not above)


def within_bound(name: str, value: float | None, computed: float | None, uncertainty: float = 0.0) -> Iterator[Line]:
    """A worst-case bound that no goal mentions: one line where there is one."""
    if computed is not None:
        yield _line(name, "as computed", value, value is not None, computed, uncertainty)


def none(name: str, count: int | None, of: int, extra: str = "") -> Line:
    """Nothing of the kind may have happened, and there must have been something to which it could."""
    measured = NOT_MEASURED if count is None or not of else f"{count:,} of {of:,}{extra}"
    return Line(name=name, goal="none", measured=measured, computed="", ok=count == 0 and of > 0)


def every(name: str, goal: str, count: int, of: int) -> Line:
    return Line(name=name, goal=goal, measured=f"{count:,} of {of:,}" if of else NOT_MEASURED, computed="", ok=0 < of == count)


def bound(result: DrillResult, which: str) -> float | None:
    """None for what nothing bounds, or nobody computed."""
    value = result.computed.get(which)
    return None if value is None else float(value)


def harmed(found: Analysis, what: Callable[[Phase], int]) -> tuple[int, int]:
    """How many of what, of how many requests: all that were due after the fault began, or were under way then."""
    return found.harmed_by(what), found.harmed_by(lambda phase: phase.requests)


def nothing_lost(found: Analysis) -> Line:
    lost, of = harmed(found, lambda phase: phase.lost)
    return none("failed before the first token", lost, of)


def region_left(result: DrillResult, found: Analysis, limit: float) -> Line:
    return at_most(
        f"last request to {result.victim or 'the region'}",
        found.dead_share_zero,
        limit,
        computed=bound(result, "left"),
        uncertainty=found.sample_interval or 0.0,
    )


def later_by(result: DrillResult, which: str, whole: float | None, first_token: float | None, limit: float) -> Line:
    """Of a stream, its first token: its end depends on its length, and one that goes on elsewhere is computed anew."""
    stream = result.load.stream
    return at_most(f"{which} first token later by" if stream else f"{which} latency later by", first_token if stream else whole, limit)


def added_within_bound(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield from within_bound("first token later by", found.added_met, bound(result, "added"))


def some(name: str, answers: Answers) -> Line:
    return Line(name=name, goal="some, or nothing was tried", measured=f"{answers.count:,}", computed="", ok=answers.count > 0)


def worst(answers: Answers) -> float | None:
    return answers.time.worst if answers.time else None


def longest(values: Iterable[float | None]) -> str:
    """Of several runs. One that could not be measured is no short one."""
    known = list(values)
    measured = [value for value in known if value is not None]
    return seconds(max(measured)) if measured and len(measured) == len(known) else NOT_MEASURED


def since_fault(found: Analysis, mark: str) -> float | None:
    """Seconds from the fault to a mark."""
    return found.marks[mark] - found.marks[FAULT] if mark in found.marks and FAULT in found.marks else None


Goals = Callable[[DrillResult, Analysis], Iterator[Line]]
