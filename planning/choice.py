"""What a stack file leaves open is chosen here: accelerator, replicas and clusters of a model. FleetEntry in, FleetSpec out.

The arithmetic is planning/choice.py. A choice that was kept (stacks/choices.<env>.yaml) is used as it stands while it is possible, so
that neither a price nor another model moves what is deployed: docs/decisions/0012-planner.md. The rest of the program sees complete
models and does not know what was chosen.
"""

import datetime as dt
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from planning import losses, solver
from planning.capacity import Packing, Place, Room
from planning.conflicts import contradictions
from planning.division import divide, division, policy_weights
from planning.losses import Served
from planning.prices import HOURS_PER_MONTH
from planning.solver import Key, Option, Placed, Placement, Wanted, hourly, key
from planning.supply import Market, wanted_of
from specs.accelerators import CPU
from specs.base import Problem, Spec
from specs.fleet import FleetBase, FleetEntry, FleetSpec
from specs.gpu_pools import AcceleratorSpec
from specs.models import ModelEntry, ModelSpec, Replicas
from specs.placement import PlacementClusterSpec, PlacementSpec

# Rounds in which room is kept back for what moves after a loss.
_ROUNDS = 30
# Numbers of replicas that are tried, from two numbers on, where a model is to be spread.
_NUMBERS = 8


class KeptModel(Spec):
    """What was chosen for one model."""

    chosen: dt.date
    replicas: Replicas
    clusters: Annotated[tuple[PlacementClusterSpec, ...], Field(min_length=1)]
    """With the weights and GPUs that were chosen."""


class Kept(Spec):
    """Choices that stand: the file stacks/choices.<env>.yaml."""

    models: dict[str, KeptModel] = Field(default_factory=dict[str, KeptModel])


NOTHING_KEPT = Kept()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen for one model."""

    model: str
    placement: Placement
    kept: dt.date | None
    """Since when it stands; None for a new one."""
    gone: str
    """Why what was kept is not used; empty where it is, and where there was nothing."""
    options: int
    """Ways to run a replica that were looked at."""

    @property
    def dollars_per_month(self) -> float:
        return hourly(self.placement) * HOURS_PER_MONTH


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A fleet with everything decided."""

    fleet: FleetSpec
    choices: tuple[Choice, ...]
    problems: tuple[Problem, ...]
    """Of models for which there is no choice: they are not in the fleet."""
    places: tuple[int, ...]
    """Of each model of the fleet its place in the stack file."""
    market: Market


# The choice

# Chooses what is not fixed, beside what is; None where that cannot be.
_Rest = Callable[[Mapping[str, Placement]], dict[str, Placement] | None]


def resolve(entry: FleetEntry, kept: Kept = NOTHING_KEPT, *, anew: bool = False) -> Resolved:
    """Decides what a stack file leaves open. anew: kept choices may be moved, where that saves enough."""
    market = Market(entry)
    complete = {model.name: _complete(model) for model in entry.models if model.complete}
    wanted = {model.name: wanted_of(market, model, frozenset(_keys(model, kept.models.get(model.name)))) for model in entry.models if not model.complete}
    taken = solver.taken_by(_lies(market, each) for each in complete.values())
    standing: dict[str, Placement] = {}
    gone: dict[str, str] = {}
    for name, each in wanted.items():
        if name in kept.models:
            placement, why = _as_kept(each, kept.models[name], market, solver.together(taken, solver.taken_by(standing.values())))
            if placement is None:
                gone[name] = why
            else:
                standing[name] = placement
    entries = {model.name: model for model in entry.models}
    lacking = _missing(market, [*complete.values(), *(_completed(market, entries[name], each) for name, each in standing.items())], standing.keys())[1]
    for name in [name for name in standing if name in lacking and _tier(entries[name])]:
        gone[name] = "its replicas would not find room any more after the loss of a region"
        del standing[name]

    def choose_rest(fixed: Mapping[str, Placement]) -> dict[str, Placement] | None:
        rest = [each for name, each in wanted.items() if name not in fixed]
        if not rest:
            return dict(fixed)
        found = _with_standby(market, entry, rest, complete, fixed, solver.together(taken, solver.taken_by(fixed.values())))
        return None if found is None else {**fixed, **found}

    chosen = _anew(standing, choose_rest, market.fleet.planning.move_above_percent / 100) if anew else choose_rest(standing)
    problems: list[Problem] = []
    if chosen is None:
        chosen = standing
        rest = [each for name, each in wanted.items() if name not in standing]
        problems = list(contradictions(market, entry, rest, solver.together(taken, solver.taken_by(standing.values()))))
    models: list[ModelSpec] = []
    places: list[int] = []
    for at, model in enumerate(entry.models):
        if model.name in complete or model.name in chosen:
            models.append(complete.get(model.name) or _completed(market, model, chosen[model.name]))
            places.append(at)
    values = {name: getattr(entry, name) for name in FleetBase.model_fields}
    choices = [
        Choice(
            model=name,
            placement=chosen[name],
            kept=kept.models[name].chosen if name in standing and _counts(standing[name]) == _counts(chosen[name]) else None,
            gone=gone.get(name, ""),
            options=len(model.options),
        )
        for name, model in wanted.items()
        if name in chosen
    ]
    fleet = FleetSpec.model_construct(_fields_set=set(entry.model_fields_set), **values, models=tuple(models))
    return Resolved(fleet=fleet, choices=tuple(choices), problems=tuple(problems), places=tuple(places), market=market)


def _anew(standing: Mapping[str, Placement], choose_rest: _Rest, least: float) -> dict[str, Placement] | None:
    """All models chosen again; those that would save less than the share `least` stay where they are."""
    fixed: dict[str, Placement] = {}
    while True:
        found = choose_rest(fixed)
        if found is None:
            return choose_rest(standing)
        stay = {name for name, placement in standing.items() if hourly(found[name]) > (1 - least) * hourly(placement)} - set(fixed)
        if not stay:
            return found
        fixed |= {name: standing[name] for name in stay}


def _complete(model: ModelEntry) -> ModelSpec:
    """Of an entry with nothing open."""
    return _spec(model, accelerator=model.accelerator, replicas=model.replicas, clusters=model.placement.clusters)


def _spec(model: ModelEntry, **chosen: Any) -> ModelSpec:
    clusters = chosen.pop("clusters")
    fields = {name: getattr(model.placement, name) for name in PlacementSpec.model_fields if name != "clusters"}
    placement = PlacementSpec.model_construct(_fields_set=model.placement.model_fields_set | {"clusters"}, **fields, clusters=clusters)
    values = {name: getattr(model, name) for name in ModelSpec.model_fields if name not in {*chosen, "placement"}}
    return ModelSpec.model_construct(_fields_set=model.model_fields_set | {*chosen, "placement"}, **values, **chosen, placement=placement)


def _completed(market: Market, model: ModelEntry, placement: Placement) -> ModelSpec:
    """The entry with what was chosen."""
    order = {cluster.name: at for at, cluster in enumerate(market.fleet.clusters)}
    main = max(placement, key=lambda each: (each.replicas, -order[each.option.cluster])).option
    accelerator = model.accelerator or _accelerator(main)
    written = model.placement.clusters
    shares = {each.option.cluster: each for each in placement}
    clusters: list[PlacementClusterSpec] = []
    for name, weight in {each.name: each.weight for each in written}.items() if written else ((name, each.replicas) for name, each in shares.items()):
        here = _accelerator(shares[name].option) if name in shares else accelerator
        own = here if here != accelerator else None
        clusters.append(PlacementClusterSpec.model_construct(name=name, weight=weight, accelerator=own))
    return _spec(model, accelerator=accelerator, replicas=sum(each.replicas for each in placement), clusters=tuple(clusters))


def _accelerator(option: Option) -> AcceleratorSpec:
    return AcceleratorSpec(type=option.gpu or CPU, count=option.count)


def _lies(market: Market, model: ModelSpec) -> Placement:
    """A decided model as a placement: its rates and prices do not matter."""
    placed: list[Placed] = []
    for name, replicas in division(model.placement, model.replicas).items():
        cluster = market.fleet.by_name.get(name)
        accelerator = model.accelerator_in(name)
        if cluster is not None and replicas:
            gpu = "" if accelerator.type == CPU else accelerator.type
            option = Option(cluster=name, region=cluster.region, gpu=gpu, count=accelerator.count, rate=0.0, dollars=0.0)
            placed.append(Placed(option=option, replicas=replicas))
    return tuple(placed)


# What was kept


def _keys(model: ModelEntry, kept: KeptModel | None) -> Iterator[Key]:
    for each in kept.clusters if kept else ():
        accelerator = each.accelerator or model.accelerator
        if accelerator is not None:
            yield each.name, "" if accelerator.type == CPU else accelerator.type, accelerator.count


def _as_kept(model: Wanted, kept: KeptModel, market: Market, taken: solver.Taken) -> tuple[Placement | None, str]:
    """The kept placement, or why it cannot stand any more."""
    placement = _same_placement(model, kept)
    if placement is None:
        return None, "its clusters or GPUs are no longer available, or do not keep the objectives"
    if model.replicas is not None and model.replicas != kept.replicas:
        return None, f"`replicas` is {model.replicas} now, and was {kept.replicas}"
    if not solver.keeps(model, placement):
        return None, f"its {kept.replicas} replicas do not answer the load, or lie in too few clusters"
    if not solver.fits(placement, market.room, taken):
        return None, "the nodes there have no room for it any more"
    return placement, ""


def _same_placement(model: Wanted, kept: KeptModel) -> Placement | None:
    weights = model.weights or {each.name: each.weight for each in kept.clusters}
    options = {key(each): each for each in model.options}
    accelerators = {each.name: each.accelerator for each in kept.clusters}
    placed: list[Placed] = []
    for name, replicas in divide(kept.replicas, solver.tie_free(weights)).items():
        accelerator = accelerators.get(name)
        if not replicas:
            continue
        option = options.get((name, "" if accelerator.type == CPU else accelerator.type, accelerator.count)) if accelerator else None
        if option is None:
            return None
        placed.append(Placed(option=option, replicas=replicas))
    return tuple(placed)


def _counts(placement: Placement) -> dict[tuple[str, str, int], int]:
    return {key(each.option): each.replicas for each in placement}


def keep(resolved: Resolved, today: dt.date) -> Kept:
    """What to write into the file of choices: those of this fleet; the date of one that did not change stays."""
    specs = {model.name: model for model in resolved.fleet.models}
    models: dict[str, KeptModel] = {}
    for each in resolved.choices:
        spec = specs[each.model]
        clusters = [
            PlacementClusterSpec.model_construct(name=cluster.name, weight=cluster.weight, accelerator=spec.accelerator_in(cluster.name))
            for cluster in spec.placement.clusters
        ]
        models[each.model] = KeptModel.model_construct(chosen=each.kept or today, replicas=spec.replicas, clusters=tuple(clusters))
    return Kept.model_construct(models=models)


# What is ready for a loss


def _with_standby(
    market: Market, entry: FleetEntry, models: Sequence[Wanted], complete: Mapping[str, ModelSpec], standing: Mapping[str, Placement], taken: solver.Taken
) -> dict[str, Placement] | None:
    """Chooses so that the replicas of a lost region find room elsewhere.

    Also those of the models that are decided already, unless they find none as it is.
    """
    entries = {model.name: model for model in entry.models}

    def missing(placements: Mapping[str, Placement], asked: Set[str]) -> tuple[dict[Place, list[int]], set[str]]:
        placed = (_completed(market, entries[name], each) for name, each in {**standing, **placements}.items())
        return _missing(market, [*complete.values(), *placed], asked)

    first = solver.choose(models, market.room, taken)
    if first is None:
        return None
    lacking = partial(missing, asked=entries.keys() - missing({}, entries.keys())[1])
    found, left = _kept_back(market, models, taken, first, lacking)
    few = solver.exact(models)
    if not left and (found is first or not few):
        return found
    tried = [_spread(market, models, taken, start, lacking) for start in ((found, first) if few else (found,))]
    return min((each for each, left in tried if not left), key=lambda each: sum(map(hourly, each.values())), default=None)


# GPUs of replicas that find no room after a loss, and the models that they are of.
_Lacking = Callable[[Mapping[str, Placement]], tuple[dict[Place, list[int]], set[str]]]


def _kept_back(
    market: Market, models: Sequence[Wanted], taken: solver.Taken, found: dict[str, Placement], lacking: _Lacking
) -> tuple[dict[str, Placement], int]:
    """Keeps room back where replicas find none, until all of them do. Else the best of its answers, and the GPUs that it lacks."""
    reserved: dict[Place, list[int]] = {}
    best, least = found, sys.maxsize
    for _ in range(_ROUNDS):
        missing, short = lacking(found)
        if (gpus := _gpus(missing)) < least:
            best, least = found, gpus
        if not missing:
            break
        for place, sizes in missing.items():
            reserved.setdefault(place, []).extend(sizes)
        # Those that find no room move away; the others stay, unless there is no other way.
        moving = [each for each in models if each.name in short] or models
        stay = {name: placement for name, placement in found.items() if name not in {each.name for each in moving}}
        moved = solver.choose(moving, market.room, solver.together(taken, reserved, solver.taken_by(stay.values())))
        if moved is None:
            stay, moved = {}, solver.choose(models, market.room, solver.together(taken, reserved))
        if moved is None:
            break
        found = {**stay, **moved}
    return best, least


def _gpus(missing: Mapping[Place, Sequence[int]]) -> int:
    return sum(map(sum, missing.values()))


def _spread(market: Market, models: Sequence[Wanted], taken: solver.Taken, found: dict[str, Placement], lacking: _Lacking) -> tuple[dict[str, Placement], int]:
    """One model after another is spread, over more replicas where need be, so that what is left of it has room for all of it."""
    missing, short = lacking(found)
    for model in [each for each in models if each.name in short]:
        if not missing:
            break
        others = solver.together(taken, solver.taken_by(placement for other, placement in found.items() if other != model.name))
        # Few on the fastest GPUs, or some more than are the cheapest.
        fewest = max(model.least_clusters, math.ceil(model.rate / max(each.rate for each in model.options)))
        more = sum(each.replicas for each in found[model.name])
        numbers = [model.replicas] if model.replicas else sorted({start + step for start in (fewest, more) for step in range(_NUMBERS)})
        ready = {key(each): _fitting(market.room, others, each, numbers[-1]) for each in model.options}
        best, chosen = (_gpus(missing), math.inf), {}
        for replicas in numbers:
            if not best[0] and not solver.exact(models):
                break
            moved = solver.choose([replace(model, replicas=replicas, ready=ready)], market.room, others)
            if moved is None or (not best[0] and hourly(moved[model.name]) >= best[1]):
                continue
            there = {**found, **moved}
            rest = lacking(there)[0]
            if (judged := (_gpus(rest), hourly(moved[model.name]))) < best:
                best, missing, chosen = judged, rest, moved
        found = {**found, **chosen}
    return found, _gpus(missing)


def _fitting(room: Room, taken: solver.Taken, option: Option, most: int) -> int:
    """Replicas, `most` at most, that find a node beside what is taken."""
    if not option.gpu:
        return most
    packing = Packing(room)
    packing.put(taken)
    return sum(packing.take((option.cluster, option.gpu), option.count) for _ in range(most))


def _missing(market: Market, models: Sequence[ModelSpec], asked: Set[str]) -> tuple[dict[Place, list[int]], set[str]]:
    """GPUs of replicas that would find no room, the most of any region's loss; and whose they are."""
    found: dict[Place, list[int]] = {}
    short: set[str] = set()
    for tier in ("warm", "cold"):
        names = {each.name for each in models if each.name in asked and _tier(each) == tier}
        if not names:
            continue
        served = [_served(each) for each in models]
        for region in dict.fromkeys(cluster.region for cluster in market.fleet.clusters):
            lost = frozenset(cluster.name for cluster in market.fleet.clusters if cluster.region == region)
            here: dict[Place, list[int]] = {}
            # Nobody knows who of those that come takes the last node: where one of these may go there must be room for all.
            going: dict[Place, set[str]] = {}
            for model in models:
                for cluster in model.placement.weights if model.name in names and lost & model.placement.weights.keys() else ():
                    going.setdefault((cluster, model.accelerator_in(cluster).type), set()).add(model.name)
            for left, model in zip(losses.after(served, market.room, lost, grows=tier == "cold"), models, strict=True):
                for cluster, kind, replicas in left.short:
                    if (cluster, kind) in going:
                        here.setdefault((cluster, kind), []).extend([model.accelerator_in(cluster).count] * replicas)
                        short |= {model.name, *going[cluster, kind]}
            for place, sizes in here.items():
                found[place] = max(found.get(place, []), sizes, key=sum)
    return found, short


def _tier(model: ModelEntry | ModelSpec) -> str | None:
    """A time in which capacity is to be back needs room for it, whatever answers until then."""
    if model.placement.standby == "warm":
        return "warm"
    return "cold" if model.placement.standby == "cold" or model.objectives.restore_seconds is not None else None


def _served(model: ModelSpec) -> Served:
    runs_on: dict[str, tuple[str, int] | None] = {}
    for name in model.placement.weights:
        accelerator = model.accelerator_in(name)
        runs_on[name] = None if accelerator.type == CPU else (accelerator.type, accelerator.count)
    return Served(name=model.name, weights=policy_weights(model.placement), replicas=model.replicas, runs_on=runs_on, rates={}, wanted=None)


# What is said of a choice


def describe(each: Choice) -> str:
    """One line for `pulumi preview`, which names the model beside it."""
    places = ", ".join(f"{one.replicas} on {_on(one.option)} in {one.option.cluster}" for one in each.placement)
    if each.kept is not None:
        return f"chosen by the planner on {each.kept.isoformat()} and kept: {places}"
    before = f"; what was kept is given up: {each.gone}" if each.gone else ""
    return f"chosen by the planner: {places}{before}; `fleet plan --choose` keeps it"


def _on(option: Option) -> str:
    return f"{option.count} x {option.gpu}" if option.gpu else CPU


def second_best(resolved: Resolved, entry: FleetEntry, each: Choice) -> Placement | None:
    """What would be taken if the choice were not to be had, with the rest of the fleet as it is."""
    model = next(one for one in entry.models if one.name == each.model)
    others = [_lies(resolved.market, one) for one in resolved.fleet.models if one.name != each.model]
    return solver.second_best(wanted_of(resolved.market, model), each.placement, resolved.market.room, solver.taken_by(others))
