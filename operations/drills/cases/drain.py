"""A region is taken out as planned: its health checks fail first, and it is stopped once nothing is in flight."""

from collections.abc import Iterator

from operations.drills.analysis import Analysis
from operations.drills.case import Case, Doors
from operations.drills.goals import Line, bound, harmed, none, nothing_lost, within_bound
from operations.drills.result import DrillResult


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield nothing_lost(found)
    if result.load.stream:
        events, of = harmed(found, lambda phase: phase.error_events)
        yield none("ended with an error event", events, of)
    yield from within_bound(f"last request to {result.victim or 'the region'}", found.dead_share_zero, bound(result, "left"), found.sample_interval or 0.0)


CASE = Case(
    name="drain",
    summary="a region is taken out as planned",
    fault="drain",
    doors=Doors.ASKING,
    fault_s=8.0,
    goals=goals,
    bounds="drain",
    cuts_streams=True,
    returns=True,
    # Published settings have no active health checks: nothing that a region says makes a front door leave it.
    published=False,
    hides=frozenset({"added"}),
)
