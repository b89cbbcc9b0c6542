"""The data path of a region freezes: connections stay open and nobody answers."""

from collections.abc import Iterator

from operations.drills.analysis import Analysis
from operations.drills.case import Case
from operations.drills.goals import Line, added_within_bound, at_most, later_by, nothing_lost, region_left
from operations.drills.result import DrillResult

WORST_S, LEFT_S, BACK_S = 1.5, 2.0, 3.0


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield nothing_lost(found)
    yield later_by(result, "worst", found.added_worst, found.added_first_token_worst, WORST_S)
    yield region_left(result, found, LEFT_S)
    yield at_most("median latency back after", found.back, BACK_S)
    yield from added_within_bound(result, found)


CASE = Case(
    name="hang",
    summary="gateways and pods of a region freeze",
    fault="freeze",
    goals=goals,
    bounds="hang",
    objectives=frozenset({"failoverSeconds"}),
    cuts_streams=True,
    resumable=True,
    returns=True,
)
