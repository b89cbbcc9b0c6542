"""The engines of a region stall while their servers go on saying that all is well."""

from collections.abc import Iterator

from operations.drills.analysis import Analysis
from operations.drills.case import Case, Doors
from operations.drills.goals import Line, added_within_bound, nothing_lost, region_left
from operations.drills.result import DrillResult

LEFT_S = 12.0


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    """That the region stays out is part of the time of the last request to it: it counts until the engine is thawed."""
    yield nothing_lost(found)
    yield region_left(result, found, LEFT_S)
    yield from added_within_bound(result, found)


CASE = Case(
    name="engine-hang",
    summary="the engines of a region compute nothing, and their servers say that all is well",
    fault="freeze-engine",
    doors=Doors.ASKING,
    fault_s=20.0,
    goals=goals,
    bounds="engine-hang",
    cuts_streams=True,
    resumable=True,
    returns=True,
)
