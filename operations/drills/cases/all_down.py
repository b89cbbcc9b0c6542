"""No region can serve the model while the front doors live: callers get an error that says so."""

from collections.abc import Iterator, Sequence

from operations.drills.analysis import Analysis
from operations.drills.case import Case, Doors, Harm
from operations.drills.goals import Line, at_most, bound, every, longest, worst
from operations.drills.result import DrillResult

ANSWER_S = 0.100
# Columns that say nothing where nobody can serve.
HIDES = frozenset({"p99", "added", "left", "median", "back"})


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    answers = found.unavailable_all_down
    yield every("503 while no region can serve", "every request", answers.count, found.after_all_down)
    yield every("503 with an error that says what happened", "every one", answers.explained, answers.count)
    yield at_most("503 after", worst(answers), ANSWER_S, computed=bound(result, "refused"))


def failures(found: Analysis) -> int:
    """An error is what callers should get here: all other failures count."""
    return found.harmed_by(lambda phase: phase.lost) - found.unavailable.count


def besides(found: Sequence[Analysis]) -> str:
    return f"503 after {longest(worst(each.unavailable_all_down) for each in found)}"


CASE = Case(
    name="all-down",
    summary="no region can serve the model; the front doors live",
    fault="kill-regional-gateways",
    harm=Harm.EVERY_REGION,
    nobody_left=True,
    doors=Doors.ALL,
    goals=goals,
    bounds="all-down",
    hides=HIDES,
    failures=failures,
    besides=besides,
)
