"""One front door dies, and callers know the others. Those who know one share its fate."""

from collections.abc import Iterator

from operations.drills.analysis import Analysis
from operations.drills.case import Case, Doors, Harm
from operations.drills.goals import Line, added_within_bound, harmed, nothing_lost
from operations.drills.result import DrillResult


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield nothing_lost(found)
    switched, _ = harmed(found, lambda phase: phase.switched)
    yield Line(name="went to another front door", goal="some, or nothing was tried", measured=f"{switched:,}", computed="", ok=switched > 0)
    yield from added_within_bound(result, found)


CASE = Case(
    name="gateway",
    summary="one front door is killed; callers know the others",
    fault="kill-front-door",
    harm=Harm.FRONT_DOOR,
    doors=Doors.VICTIM_FIRST,
    goals=goals,
    bounds="gateway",
    published=False,
    hides=frozenset({"left", "median", "back"}),
)
