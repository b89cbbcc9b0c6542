"""Whether a drill kept its goals: the goals of the case, the model's declared objectives, and what was computed beforehand.

Every goal is one line, kept or not. What could not be measured is not kept: a drill that saw nothing must not look like one
that saw no harm. What is computed is a promise for the worst case, so a measurement above it is a fault of the arithmetic or
of the fleet, even where the goal is kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from operations.drills.analysis import AGREED, FAULT, HEALTHY, REPLACED, Analysis, Answers, Phase
from operations.drills.result import DrillResult

NOT_MEASURED = "not measured"

# How a goal is compared is the same in every environment; a slower network is met by objectives, not by another goal.
KILL_P99_S, KILL_LEFT_S = 0.100, 0.250
HANG_WORST_S, HANG_LEFT_S, HANG_BACK_S = 1.5, 2.0, 3.0
STALL_LEFT_S = 12.0
FULL_ANSWER_S, DOWN_ANSWER_S = 0.050, 0.100
FAILBACK_S, FLAP_ERRORS = 5.0, 0.001
REPLACE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """One goal. `computed` is empty where nothing was."""

    name: str
    goal: str
    measured: str
    computed: str
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    lines: tuple[Line, ...]

    @property
    def passed(self) -> bool:
        """False also without any line: nothing was shown."""
        return bool(self.lines) and all(line.ok for line in self.lines)

    @property
    def failed(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.ok)


def judge(result: DrillResult, found: Analysis) -> Verdict:
    """Raises ValueError for a case that has no goals."""
    if result.case not in _CASES:
        raise ValueError(f"case: must be one of {', '.join(_CASES)}, got: `{result.case}`")
    parts = (_CASES[result.case], _streams, _failback, _objectives, _answered_by)
    return Verdict(lines=(_baseline(found), *(line for part in parts for line in part(result, found))))


def seconds(value: float) -> str:
    """For people: `35 ms`, `1.06 s`, `226 s`. Zero and what is below half a millisecond is `0 ms`."""
    if abs(value) < 0.0005:
        return "0 ms"
    if abs(value) < 0.9995:
        return f"{value * 1000:.0f} ms" if abs(value) >= 0.00995 else f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 9.995 else f"{value:.1f} s" if abs(value) < 99.95 else f"{value:.0f} s"


# Lines


def _at_most(name: str, value: float | None, limit: float, *, computed: float | None = None, uncertainty: float = 0.0) -> Line:
    """`uncertainty`: by how much the measurement may be too long. It excuses nothing of the goal, only of the promise."""
    goal = f"at most {seconds(limit)}"
    kept = value is not None and value <= limit
    return _line(name, goal, value, kept, computed, uncertainty)


def _line(name: str, goal: str, value: float | None, kept: bool, computed: float | None, uncertainty: float = 0.0) -> Line:
    above = value is not None and computed is not None and value - uncertainty > computed
    told = "" if computed is None else f"at most {seconds(computed)}" + (": measured above it" if above else "")
    measured = NOT_MEASURED if value is None else seconds(value)
    return Line(name=name, goal=goal, measured=measured, computed=told, ok=kept and not above)


def _promised(name: str, value: float | None, computed: float | None, uncertainty: float = 0.0) -> Iterator[Line]:
    """A promise that no goal speaks of: one line where there is one."""
    if computed is not None:
        yield _line(name, "as computed", value, value is not None, computed, uncertainty)


def _none(name: str, count: int | None, of: int, extra: str = "") -> Line:
    """Nothing of the kind may have happened, and there must have been something to which it could."""
    measured = NOT_MEASURED if count is None or not of else f"{count:,} of {of:,}{extra}"
    return Line(name=name, goal="none", measured=measured, computed="", ok=count == 0 and of > 0)


def _all(name: str, goal: str, count: int, of: int) -> Line:
    return Line(name=name, goal=goal, measured=f"{count:,} of {of:,}" if of else NOT_MEASURED, computed="", ok=0 < of == count)


def _computed(result: DrillResult, which: str) -> float | None:
    """None for what nothing bounds, or nobody computed."""
    value = result.computed.get(which)
    return None if value is None else float(value)


# Goals that several cases share


def _harmed(found: Analysis, what: Callable[[Phase], int]) -> tuple[int, int]:
    """How many of what, of how many requests: all that were due after the fault began, or were under way then."""
    return found.harmed_by(what), found.harmed_by(lambda phase: phase.requests)


def _baseline(found: Analysis) -> Line:
    """Whether the machine serves the load without the fault. If not, nothing that follows means anything."""
    before = found.phases["baseline"]
    return _none("failed without the fault", before.failed, before.requests)


def _nothing_lost(found: Analysis) -> Line:
    lost, of = _harmed(found, lambda phase: phase.lost)
    return _none("failed before the first token", lost, of)


def _left(result: DrillResult, found: Analysis, limit: float) -> Line:
    return _at_most(
        f"last request to {result.victim or 'the region'}",
        found.dead_share_zero,
        limit,
        computed=_computed(result, "left"),
        uncertainty=found.sample_interval or 0.0,
    )


def _later(result: DrillResult, which: str, whole: float | None, first_token: float | None, limit: float) -> Line:
    """Of a stream, its first token: its end depends on its length, and one that goes on elsewhere is computed anew."""
    stream = result.load.stream
    return _at_most(f"{which} first token later by" if stream else f"{which} latency later by", first_token if stream else whole, limit)


def _added(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield from _promised("first token later by", found.added_met, _computed(result, "added"))


def _streams(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """Whatever the case: no answer that has begun may end without a word. Where streams go on elsewhere, none may end early.

    A case that can have no region to go on in may end streams with an error event, even so.
    """
    if not result.load.stream:
        cut, of = _harmed(found, lambda phase: phase.cut)
        yield _none("broken off in the answer", cut, of)
        return
    cut, of = _harmed(found, lambda phase: phase.cut)
    yield _none("broken off without an error event", cut, of)
    if result.case in _FAULTS_OF_A_REGION:
        under_way = found.under_way
        told = f"{under_way:,}" if under_way is not None else NOT_MEASURED
        yield Line(name="streams under way at the fault", goal="some, or nothing was tried", measured=told, computed="", ok=bool(under_way))
    if result.resume and result.case in _RESUMABLE:
        events, of = _harmed(found, lambda phase: phase.error_events)
        resumed, _ = _harmed(found, lambda phase: phase.resumed)
        yield _none("ended with an error event, though resumable", events, of, f"; {resumed:,} went on elsewhere")


def _failback(result: DrillResult, found: Analysis) -> Iterator[Line]:
    if HEALTHY in found.marks and result.case in _RETURNS:
        yield _at_most("first answer after the region's return", found.failback, FAILBACK_S, computed=_computed(result, "back"))


def _objectives(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """What the stack file declares for the model."""
    failover, restore = result.objectives.get("failoverSeconds"), result.objectives.get("restoreSeconds")
    if failover is not None and result.case in _DEATHS:
        yield _at_most("objective failoverSeconds", found.added_met, failover)
    if restore is not None and result.case == "replace":
        yield _at_most("objective restoreSeconds", since_fault(found, REPLACED), restore)


def _answered_by(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """Never a silent change of the model, or of where it may run."""
    answered = {name for phase in found.phases.values() for name in phase.clusters}
    outside = sorted(answered - set(result.clusters))
    if outside or result.case == "residency":
        told = ", ".join(outside) or "none" if found.requests else NOT_MEASURED
        yield Line(name="answered by clusters that may not serve the model", goal="none", measured=told, computed="", ok=bool(found.requests) and not outside)
    if len(found.revisions) > 1:
        yield Line(name="revisions of the model that answered", goal="one", measured=", ".join(found.revisions), computed="", ok=False)


def since_fault(found: Analysis, mark: str) -> float | None:
    """Seconds from the fault to a mark."""
    return found.marks[mark] - found.marks[FAULT] if mark in found.marks and FAULT in found.marks else None


# Cases


def _kill(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield _nothing_lost(found)
    yield _later(result, "p99", found.added_p99, found.added_first_token_p99, KILL_P99_S)
    yield _left(result, found, KILL_LEFT_S)
    yield from _added(result, found)


def _hang(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield _nothing_lost(found)
    yield _later(result, "worst", found.added_worst, found.added_first_token_worst, HANG_WORST_S)
    yield _left(result, found, HANG_LEFT_S)
    yield _at_most("median latency back after", found.back, HANG_BACK_S)
    yield from _added(result, found)


def _engine_hang(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """That the region stays out is part of the time of the last request to it: it counts until the engine is thawed."""
    yield _nothing_lost(found)
    yield _left(result, found, STALL_LEFT_S)
    yield from _added(result, found)


def _overload(result: DrillResult, found: Analysis) -> Iterator[Line]:
    answers = found.overloaded
    others, of = _harmed(found, lambda phase: phase.lost - phase.full)
    yield _none("failed otherwise than by 429", others, of)
    yield _none("429 before all regions were full", found.early_full, of)
    yield _some("429 when all regions are full", answers)
    yield _all("429 with Retry-After", "every one", answers.retry_after, answers.count)
    yield _at_most("429 after", _worst(answers), FULL_ANSWER_S, computed=_computed(result, "refused"))
    told = NOT_MEASURED if found.kept_out is None else ", ".join(found.kept_out) or "none"
    yield Line(name="regions left alone because they were full", goal="none", measured=told, computed="", ok=found.kept_out is not None and not found.kept_out)


def _drain(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield _nothing_lost(found)
    if result.load.stream:
        events, of = _harmed(found, lambda phase: phase.error_events)
        yield _none("ended with an error event", events, of)
    yield from _promised(f"last request to {result.victim or 'the region'}", found.dead_share_zero, _computed(result, "left"), found.sample_interval or 0.0)


def _flap(result: DrillResult, found: Analysis) -> Iterator[Line]:
    failed, of = _harmed(found, lambda phase: phase.failed)
    measured = f"{failed:,} of {of:,}, {failed / of:.3%}" if of else NOT_MEASURED
    yield Line(name="failed", goal=f"at most {FLAP_ERRORS:.1%}", measured=measured, computed="", ok=of > 0 and failed <= of * FLAP_ERRORS)
    yield from _added(result, found)


def _all_down(result: DrillResult, found: Analysis) -> Iterator[Line]:
    answers = found.unavailable_all_down
    yield _all("503 while no region can serve", "every request", answers.count, found.after_all_down)
    yield _all("503 with an error that tells what happened", "every one", answers.explained, answers.count)
    yield _at_most("503 after", _worst(answers), DOWN_ANSWER_S, computed=_computed(result, "refused"))


def _gateway(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """Of callers that know several front doors. Those who know one share its fate."""
    yield _nothing_lost(found)
    switched, _ = _harmed(found, lambda phase: phase.switched)
    yield Line(name="went to another front door", goal="some, or nothing was tried", measured=f"{switched:,}", computed="", ok=switched > 0)
    yield from _added(result, found)


def _replace(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield _nothing_lost(found)
    yield _at_most("replicas ready elsewhere after", since_fault(found, REPLACED), REPLACE_S, computed=_computed(result, "replaced"))
    agreed = since_fault(found, AGREED)
    told = NOT_MEASURED if agreed is None else f"after {seconds(agreed)}"
    yield Line(name="hub and mesh agree on where the model is", goal="they do", measured=told, computed="", ok=agreed is not None)


def _residency(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """While its only region is away the model is answered for by an error, not by another region."""
    yield from _all_down(result, found)


def _some(name: str, answers: Answers) -> Line:
    return Line(name=name, goal="some, or nothing was tried", measured=f"{answers.count:,}", computed="", ok=answers.count > 0)


def _worst(answers: Answers) -> float | None:
    return answers.time.worst if answers.time else None


_CASES: dict[str, Callable[[DrillResult, Analysis], Iterator[Line]]] = {
    "kill": _kill,
    "hang": _hang,
    "blackhole": _hang,
    "engine-hang": _engine_hang,
    "overload": _overload,
    "drain": _drain,
    "hub-down": _kill,
    "flap": _flap,
    "all-down": _all_down,
    "gateway": _gateway,
    "replace": _replace,
    "residency": _residency,
}
# Cases in which a region dies, so that the model's failoverSeconds speaks of them.
_DEATHS = ("kill", "hang", "blackhole", "hub-down", "flap", "replace")
# Cases in which answers of one region are under way when it fails, and another region is there.
_FAULTS_OF_A_REGION = ("kill", "hang", "blackhole", "engine-hang", "drain", "hub-down", "flap", "replace")
_RESUMABLE = ("kill", "hang", "blackhole", "engine-hang", "hub-down", "flap", "replace")
# Cases after which the region is back. A flapping one answers in between, too, and which return counts is not told.
_RETURNS = ("kill", "hang", "blackhole", "engine-hang", "drain", "hub-down")
