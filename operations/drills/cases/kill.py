"""A whole region dies: its connections are refused at once."""

from collections.abc import Iterator

from operations.drills.analysis import Analysis
from operations.drills.case import Case
from operations.drills.goals import Line, added_within_bound, later_by, nothing_lost, region_left
from operations.drills.result import DrillResult

P99_S, LEFT_S = 0.100, 0.250


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield nothing_lost(found)
    yield later_by(result, "p99", found.added_p99, found.added_first_token_p99, P99_S)
    yield region_left(result, found, LEFT_S)
    yield from added_within_bound(result, found)


CASE = Case(
    name="kill",
    summary="every process of a region is killed",
    fault="kill",
    mock_requests=10_000,
    streams_in_all=True,
    goals=goals,
    bounds="kill",
    objectives=frozenset({"failoverSeconds"}),
    cuts_streams=True,
    resumable=True,
    returns=True,
)
