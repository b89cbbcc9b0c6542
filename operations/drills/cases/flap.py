"""A region freezes and returns, again and again, so that no interval of the checks fits its rhythm."""

from collections.abc import Iterator

from operations.drills.analysis import Analysis
from operations.drills.case import Case
from operations.drills.goals import NOT_MEASURED, Line, added_within_bound, harmed
from operations.drills.result import DrillResult

ERRORS = 0.001


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    failed, of = harmed(found, lambda phase: phase.failed)
    measured = f"{failed:,} of {of:,}, {failed / of:.3%}" if of else NOT_MEASURED
    yield Line(name="failed", goal=f"at most {ERRORS:.1%}", measured=measured, computed="", ok=of > 0 and failed <= of * ERRORS)
    yield from added_within_bound(result, found)


CASE = Case(
    name="flap",
    summary="a region freezes and returns, again and again",
    fault="flap",
    fault_s=24.0,
    goals=goals,
    bounds="flap",
    objectives=frozenset({"failoverSeconds"}),
    cuts_streams=True,
    resumable=True,
    # It answers in between, too, and nothing says which return counts.
    returns=False,
    hides=frozenset({"left", "median", "back"}),
)
