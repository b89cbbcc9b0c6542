"""Makes a plan of a drill: chooses model, region and front doors where nobody did. Raises FleetError; nothing is contacted yet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from components.mesh.regions import own_first
from core.errors import FleetError
from local.host_cluster import HostCluster
from operations.drills import preflight
from operations.drills.case import Case, Doors, Harm, Options, Plan
from operations.drills.cases import CASES
from operations.drills.faults import mock_engine
from planning import failover_budget, failover_time
from planning.division import division
from planning.failover_time import retry_attempts
from specs.accelerators import CPU
from specs.fleet import FleetSpec
from specs.models import ModelSpec


def resolve(options: Options, fleet: FleetSpec, outputs: Mapping[str, Any]) -> Plan:
    """Raises FleetError for whatever would make the drill fail or prove nothing."""
    case = CASES[options.case]
    urls: Mapping[str, str] = outputs["endpoints"]["frontDoors"]
    regions = {each.name: each.region for each in fleet.clusters}
    model = _model(options, case, fleet)
    mocked, notes = _answering(options, case, model, fleet)
    placed = tuple(name for name in model.placement.order if division(model.placement, model.replicas)[name] > 0)
    victim = _victim(options, case, model, fleet, placed)
    serving = _serving(case, model, victim, placed, regions, mocked=mocked, front_doors=len(urls))
    doors, victim_first = _doors(options, case, victim, serving, regions, mocked=mocked)
    plan = Plan(
        options=options,
        case=case,
        fleet=fleet,
        model=model,
        victim=victim,
        serving=serving,
        doors=doors,
        urls=urls,
        regions=regions,
        mocked=mocked,
        victim_first=victim_first,
        notes=notes,
    )
    preflight.check_possible(plan)
    return plan


def _simulated(model: ModelSpec, fleet: FleetSpec) -> bool:
    """Its GPUs are simulated: no server stands behind it."""
    return model.accelerator.type != CPU and all(fleet.by_name[each].driver.capabilities.simulated_gpus for each in model.placement.weights)


def _answering(options: Options, case: Case, model: ModelSpec, fleet: FleetSpec) -> tuple[bool, tuple[str, ...]]:
    """(whether mock engines answer in place of the model, what a reader must know of it)."""
    if not options.mock_engine and not _simulated(model, fleet):
        return False, ()
    if not options.mock_engine and not case.simulated:
        raise FleetError(
            f"no server stands behind {model.name}: its GPUs are simulated, and its requests answer 503",
            hint=f"--mock-engine puts servers of ours in its place, or choose another: {', '.join(_real(fleet)) or 'none is real'}",
        )
    if any(each.name in (mock_engine.DECLARED, mock_engine.PUBLISHED) for each in fleet.models):
        raise FleetError(f"the stack has a model that is named as a mock engine: `{mock_engine.DECLARED}`", hint="give it another name")
    if not all(each.driver.capabilities.on_this_machine for each in fleet.clusters):
        raise FleetError("mock engines are processes of local clusters; this stack has others", hint="leave out --mock-engine")
    if options.mock_engine:
        return True, ("Mock engines answer in place of the model, behind the same gateways.",)
    return True, (f"The GPUs of {model.name} are simulated: mock engines answer in its place, in the same regions.",)


def _real(fleet: FleetSpec) -> list[str]:
    return [each.name for each in fleet.models if each.accelerator.type == CPU]


def _model(options: Options, case: Case, fleet: FleetSpec) -> ModelSpec:
    known = {each.name: each for each in fleet.models}
    if options.model is not None:
        if options.model not in known:
            raise FleetError(f"no model `{options.model}` in stack `{options.stack}`", hint=f"there are: {', '.join(known)}")
        return known[options.model]
    if case.choose_model and (own := case.choose_model(fleet)):
        return own
    movable = [each for each in fleet.models if len(each.placement.weights) > 1]
    if not movable:
        raise FleetError(f"stack `{options.stack}` has no model in two regions: nothing can take over")
    return next((each for each in movable if each.accelerator.type == CPU), movable[0])


def _victim(options: Options, case: Case, model: ModelSpec, fleet: FleetSpec, serving: Sequence[str]) -> str:
    """The cluster that is harmed: the one that requests go to first, unless another is named."""
    if len({each.region for each in fleet.clusters}) < 2:
        raise FleetError("the fleet has one region: nothing can take over", hint="a drill needs two regions or more")
    if options.cluster is None:
        return serving[0]
    if options.cluster not in fleet.by_name:
        raise FleetError(f"no cluster `{options.cluster}` in stack `{options.stack}`", hint=f"there are: {', '.join(each.name for each in fleet.clusters)}")
    if options.cluster not in serving and case.doors is not Doors.VICTIM_FIRST:
        raise FleetError(f"{options.cluster} does not serve {model.name}: nothing would happen", hint=f"it is served in {', '.join(serving)}")
    return options.cluster


def _serving(
    case: Case, model: ModelSpec, victim: str, placed: tuple[str, ...], regions: Mapping[str, str], *, mocked: bool, front_doors: int
) -> tuple[str, ...]:
    """Clusters that serve the model during the drill, in failover order."""
    if case.alone:
        return (victim,)
    if len({regions[each] for each in placed}) < 2:
        raise FleetError(f"{model.name} is served in one region only, {regions[placed[0]]}: nothing can take over", hint="a drill needs a model in two regions")
    if not mocked or case.own_replicas:
        return placed
    # The harmed region first, and one more: so that the front doors of all others send requests there, whatever the model's own order is.
    if front_doors > 2:
        return victim, next(each for each in placed if regions[each] != regions[victim])
    return victim, *(each for each in placed if each != victim)


def _doors(options: Options, case: Case, victim: str, serving: Sequence[str], regions: Mapping[str, str], *, mocked: bool) -> tuple[tuple[str, ...], bool]:
    """(clusters whose doors are used, whether mock engines must be asked in the victim's region first)."""
    unknown = [each for each in options.doors if each not in regions]
    if unknown:
        raise FleetError(f"--doors: no cluster `{unknown[0]}`", hint=f"there are: {', '.join(regions)}")
    if case.doors is Doors.VICTIM_FIRST:
        if options.doors:
            raise FleetError(f"--doors: in the case `{case.name}` callers know every door", hint="leave it out")
        return (victim, *(each for each in regions if each != victim)), False
    if options.doors:
        if case.doors is Doors.OUTSIDE and victim in options.doors:
            raise FleetError(f"--doors: the door of {victim} is harmed with its region, got: `{','.join(options.doors)}`", hint="name others")
        return options.doors, False
    if case.doors is Doors.ALL:
        return tuple(regions), False
    eligible = tuple(each for each in regions if each != victim or case.doors is Doors.ASKING)
    order = [regions[each] for each in serving]
    asking = tuple(each for each in eligible if own_first(order, regions[each])[0] == regions[victim])
    if asking:
        return asking, False
    if mocked:
        return eligible, True
    raise FleetError(
        f"no front door outside {victim} sends requests there first: nothing would happen to them",
        hint=f"harm {serving[0]}, or use --mock-engine, or name doors by --doors",
    )


# Worst cases


def computed(plan: Plan, rate: float, waited: float) -> dict[str, float | None]:
    """Worst cases in seconds, from the declared settings and this load. `waited`: for its first token without a fault."""
    case = plan.case
    numbers = failover_budget.requests(plan.fleet, plan.model)
    regions = len({plan.regions[each] for each in plan.serving})
    numbers = replace(numbers, regions=regions, attempts=retry_attempts(regions) + 1, gap=len(plan.doors) / rate, waited=waited)
    found: dict[str, float | None] = {}
    if case.bounds is not None:
        worst = failover_time.cases(numbers)[case.bounds]
        parts = {"added": worst.added, "left": worst.left, "back": worst.back, "refused": worst.refused}
        found = {name: None if each is None else failover_time.total(each) for name, each in parts.items() if each != ()}
    return {**found, **case.more_bounds(plan)}


def objectives(model: ModelSpec) -> dict[str, float]:
    declared: dict[str, Any] = model.objectives.model_dump(by_alias=True, exclude_none=True)
    return {name: float(value) for name, value in declared.items()}


def members(plan: Plan) -> tuple[HostCluster, ...]:
    """Every cluster with a front door whose processes are on this machine."""
    return tuple(HostCluster(name) for name in plan.urls if plan.fleet.by_name[name].driver.capabilities.on_this_machine)


def harmed(plan: Plan) -> str:
    """What is broken, and where."""
    where = ", ".join(plan.serving) if plan.case.harm is Harm.EVERY_REGION else plan.victim
    return f"{plan.case.summary} ({where})"


def describe(plan: Plan) -> str:
    """One line for a person."""
    behind = "mock engines" if plan.mocked else "vLLM"
    return f"{plan.case.name}: {harmed(plan)}; {plan.model.name} on {behind} in {', '.join(plan.serving)}; front doors {', '.join(plan.doors)}"
