"""Whether a drill kept its goals: those of its case, the model's declared objectives, and what was computed beforehand."""

from collections.abc import Iterator
from dataclasses import dataclass

from operations.drills import analysis
from operations.drills.analysis import HEALTHY, REPLACED, Analysis
from operations.drills.case import Case, Harm
from operations.drills.cases import CASES, kill
from operations.drills.goals import NOT_MEASURED, Line, at_most, bound, harmed, none, seconds, since_fault
from operations.drills.result import DrillResult

FAILBACK_S = 5.0
# The least that a goal allows a killed region to cost at p99.
JITTER_S = kill.P99_S
BASELINE = "failed without the fault"
"""Name of the line that says whether the machine serves the load at all."""


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


def analysed(result: DrillResult) -> Analysis:
    """Raises ValueError that names what is wrong in a record or in the marks."""
    case = CASES.get(result.case)
    # Where only its front door dies, the region stays in use.
    victim = "" if case and case.harm is Harm.FRONT_DOOR else result.victim
    return analysis.of(result, victim)


def too_busy(found: Analysis) -> str:
    """Why times on this machine say nothing of the fleet; empty where they do.

    Before the fault every request must be answered, and so steadily that what a goal allows is more than what the machine does by itself.
    """
    before = found.phases["baseline"]
    if before.failed or not before.requests or before.latency is None:
        return f"without the fault {before.failed:,} of {before.requests:,} requests failed"
    jitter = before.latency.p99 - before.latency.p50
    return f"without the fault p99 is {seconds(jitter)} above the median, more than {seconds(JITTER_S)}" if jitter > JITTER_S else ""


def judge(result: DrillResult, found: Analysis) -> Verdict:
    """Raises ValueError for an unknown case."""
    if result.case not in CASES:
        raise ValueError(f"case: must be one of {', '.join(CASES)}, got: `{result.case}`")
    return Verdict(lines=tuple(_lines(CASES[result.case], result, found)))


def _lines(case: Case, result: DrillResult, found: Analysis) -> Iterator[Line]:
    before = found.phases["baseline"]
    # If the machine does not serve the load without the fault, nothing that follows means anything.
    yield none(BASELINE, before.failed, before.requests)
    yield from case.goals(result, found)
    yield from _streams(case, result, found)
    if HEALTHY in found.marks and case.returns:
        yield at_most("first answer after the region's return", found.failback, FAILBACK_S, computed=bound(result, "back"))
    yield from _objectives(case, result, found)
    yield from _answered_by(case, result, found)


def _streams(case: Case, result: DrillResult, found: Analysis) -> Iterator[Line]:
    """Whatever the case: no answer that has begun may end without a word. Where streams go on elsewhere, none may end early.

    A case that can have no region to go on in may end streams with an error event, even so.
    """
    cut, of = harmed(found, lambda phase: phase.cut)
    if not result.load.stream:
        yield none("broken off in the answer", cut, of)
        return
    yield none("broken off without an error event", cut, of)
    if case.cuts_streams:
        under_way = NOT_MEASURED if found.under_way is None else f"{found.under_way:,}"
        yield Line(name="streams under way at the fault", goal="some, or nothing was tried", measured=under_way, computed="", ok=bool(found.under_way))
    if result.resume and case.resumable:
        events, of = harmed(found, lambda phase: phase.error_events)
        resumed, _ = harmed(found, lambda phase: phase.resumed)
        yield none("ended with an error event, though resumable", events, of, f"; {resumed:,} went on elsewhere")


def _objectives(case: Case, result: DrillResult, found: Analysis) -> Iterator[Line]:
    """What the stack file declares for the model."""
    measured = {"failoverSeconds": found.added_met, "restoreSeconds": since_fault(found, REPLACED)}
    for name, value in measured.items():
        declared = result.objectives.get(name)
        if declared is not None and name in case.objectives:
            yield at_most(f"objective {name}", value, declared)


def _answered_by(case: Case, result: DrillResult, found: Analysis) -> Iterator[Line]:
    """Never a silent change of the model, or of where it may run."""
    answered = {name for phase in found.phases.values() for name in phase.clusters}
    outside = sorted(answered - set(result.clusters))
    if outside or case.alone:
        clusters = ", ".join(outside) or "none" if found.requests else NOT_MEASURED
        yield Line(
            name="answered by clusters that may not serve the model", goal="none", measured=clusters, computed="", ok=bool(found.requests) and not outside
        )
    if len(found.revisions) > 1:
        yield Line(name="revisions of the model that answered", goal="one", measured=", ".join(found.revisions), computed="", ok=False)
