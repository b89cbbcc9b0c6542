"""The only region that may serve a model dies: callers get an error, and no other region answers."""

from core.errors import FleetError
from operations.drills.case import Case
from operations.drills.cases import all_down
from specs.fleet import FleetSpec
from specs.models import ModelSpec


def choose_model(fleet: FleetSpec) -> ModelSpec:
    bound = [each for each in fleet.models if each.placement.jurisdictions]
    if not bound:
        raise FleetError("residency: no model of the stack is bound to a jurisdiction", hint="placement.jurisdictions of a model binds it")
    return bound[0]


CASE = Case(
    name="residency",
    summary="the only region that may serve a model is killed: no other answers for it",
    fault="kill",
    nobody_left=True,
    choose_model=choose_model,
    simulated=True,
    alone=True,
    goals=all_down.goals,
    bounds="all-down",
    published=False,
    hides=all_down.HIDES,
    failures=all_down.failures,
    besides=all_down.besides,
)
