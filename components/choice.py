"""What a stack file leaves open is chosen here: accelerator, replicas and clusters of a model. FleetEntry in, FleetSpec out.

The arithmetic is planning/choice.py. A choice that was kept (stacks/choices.<env>.yaml) is used as it stands while it is possible, so
that neither a price nor another model moves what is deployed: docs/decisions/0012-planner.md. The rest of the program sees complete
models and does not know what was chosen.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import Field

from components import fleet_plan
from components.clusters import ClusterSpec
from components.fleet_spec import FleetBase, FleetEntry, FleetSpec
from components.gpu_pools import AcceleratorSpec, nodes_of
from components.placement import PlacementClusterSpec, PlacementEntry, PlacementSpec, division, policy_weights
from components.serving import ModelEntry, ModelSpec, ObjectivesSpec
from components.spec import NOTHING, Problem, Spec
from planning import choice, losses
from planning.accelerators import ACCELERATORS, CPU, canonical
from planning.capacity import Nodes, largest_node
from planning.choice import Option, Placed, Placement, Wanted, hourly, key
from planning.division import divide
from planning.losses import Served
from planning.model_size import split_problems
from planning.prices import HOURS_PER_MONTH, Price
from planning.sizing import Size

# GPUs of a replica that are tried. More than 8 are one machine nowhere.
_COUNTS = (1, 2, 4, 8)
# Rounds in which room is kept back for what moves after a loss.
_ROUNDS = 8
_PLENTY = 1_000_000
# What a contradiction may be made of besides what the stack file says of the model itself.
_POOLS = "the nodes of the GPU pools"


class KeptModel(Spec):
    """What was chosen for one model."""

    chosen: dt.date
    replicas: int
    clusters: tuple[PlacementClusterSpec, ...]
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
    market: "Market"


@dataclass(frozen=True)
class Market:
    """What the clusters of a fleet offer, and what of it is gone."""

    fleet: FleetBase

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        return fleet_plan.known_prices(self.fleet)

    @cached_property
    def room(self) -> dict[tuple[str, str], list[Nodes]]:
        """Nodes by cluster and GPU type, at the pools' largest."""
        return {
            (cluster.name, kind): nodes_of(cluster.gpu_pools, kind)
            for cluster in self.fleet.clusters
            for kind in dict.fromkeys(pool.accelerator for pool in cluster.gpu_pools)
        }

    @cached_property
    def standing(self) -> dict[tuple[str, str], list[Nodes]]:
        """The same of nodes that run without being asked for."""
        found: dict[tuple[str, str], list[Nodes]] = {}
        for cluster in self.fleet.clusters:
            for pool in cluster.gpu_pools:
                least = pool.most_nodes if pool.nodes is not None else pool.min_nodes or 0
                found.setdefault((cluster.name, pool.accelerator), []).append(Nodes(count=least, gpus_per_node=pool.gpus_per_node))
        return found

    @cached_property
    def _dollars(self) -> dict[tuple[str, str], float | None]:
        return {(name, kind): fleet_plan.dollars_per_gpu(self.fleet.by_name[name], kind, self.prices) for name, kind in self.room}

    def dollars(self, cluster: str, gpu: str) -> float | None:
        """Of a GPU by the hour; None without a price."""
        return self._dollars.get((cluster, gpu))

    @cached_property
    def _sizes(self) -> dict[Any, Size]:
        return {}

    def size(self, model: ModelEntry, accelerator: AcceleratorSpec) -> Size:
        asked = (model.name, accelerator, model.objectives, model.load)
        if asked not in self._sizes:
            self._sizes[asked] = fleet_plan.size(self.fleet, model, accelerator)
        return self._sizes[asked]


# Where a model may run


def refusal(market: Market, placement: PlacementEntry | PlacementSpec, cluster: ClusterSpec, gpu: str) -> tuple[str, str] | None:
    """(field of the placement, reason) why a model may not run on this GPU type there; None where it may."""
    if placement.jurisdictions and cluster.jurisdiction not in placement.jurisdictions:
        return "jurisdictions", f"it is in `{cluster.jurisdiction}`" if cluster.jurisdiction else "it has no jurisdiction"
    lacking = [f"{name}: {value}" for name, value in placement.labels.items() if cluster.labels.get(name) != value]
    if lacking:
        return "labels", f"it lacks the label `{lacking[0]}`"
    if gpu == CPU:
        return None
    if placement.accelerators and canonical(gpu) not in map(canonical, placement.accelerators):
        return "accelerators", f"`{gpu}` is not among them"
    if placement.gpu_memory_gib is not None and ACCELERATORS[gpu].memory_gib < placement.gpu_memory_gib:
        return "gpuMemoryGiB", f"`{gpu}` has {ACCELERATORS[gpu].memory_gib:g} GiB"
    dollars = market.dollars(cluster.name, gpu)
    if placement.dollars_per_gpu_hour is not None and dollars is not None and dollars > placement.dollars_per_gpu_hour:
        return "dollarsPerGpuHour", f"`{gpu}` costs {dollars:.3f} there"
    return None


def _options(market: Market, model: ModelEntry, kept: frozenset[tuple[str, str, int]]) -> Iterator[Option]:
    """Every way to run a replica that fits, keeps the objectives and is worth its money, and those that were kept."""
    written = {each.name: each for each in model.placement.clusters}
    names = [name for name in (written or market.fleet.by_name) if name in market.fleet.by_name]
    # In the order of the stack file, whichever list they come from.
    for cluster in [each for each in market.fleet.clusters if each.name in names]:
        place = written.get(cluster.name)
        own = (place.accelerator if place else None) or model.accelerator
        kinds = [own.type] if own else list(dict.fromkeys(pool.accelerator for pool in cluster.gpu_pools))
        for kind in kinds:
            if refusal(market, model.placement, cluster, kind) is None:
                yield from _of_type(market, model, cluster, kind, own, kept)


def _of_type(
    market: Market, model: ModelEntry, cluster: ClusterSpec, kind: str, own: AcceleratorSpec | None, kept: frozenset[tuple[str, str, int]]
) -> Iterator[Option]:
    if kind == CPU:
        yield Option(cluster=cluster.name, region=cluster.region, gpu="", count=1, rate=1.0, dollars=0.0)
        return
    dollars = market.dollars(cluster.name, kind)
    largest = largest_node(market.room.get((cluster.name, kind), []))
    counts = [own.count] if own else [each * model.runtime.stages for each in _COUNTS if not _unsplit(model, each)]
    best: list[Option] = []
    for count in counts:
        if count > largest or dollars is None:
            continue
        found = market.size(model, AcceleratorSpec(type=kind, count=count))
        if found.serves:
            rate = found.speed.requests_per_second if found.speed else 1.0
            option = Option(cluster=cluster.name, region=cluster.region, gpu=kind, count=count, rate=rate, dollars=dollars * count)
            # Larger is only worth it where it answers more for its money.
            cheaper = not best or option.dollars / option.rate < min(each.dollars / each.rate for each in best) - 1e-9
            if cheaper or key(option) in kept:
                best.append(option)
    yield from best


def _unsplit(model: ModelEntry, tensor: int) -> bool:
    facts = model.facts
    neurons = None if model.runtime.expert_parallel else facts.intermediate_size
    return bool(
        split_problems(
            tensor,
            attention_heads=facts.attention_heads,
            key_value_heads=facts.key_value_heads,
            intermediate_size=neurons,
            vocabulary_size=facts.vocabulary_size,
        )
    )


def _wanted(market: Market, model: ModelEntry, kept: KeptModel | None) -> Wanted:
    placement, load = model.placement, model.load
    current = frozenset(_keys(model, kept)) if kept else frozenset[tuple[str, str, int]]()
    options = tuple(_options(market, model, current))
    on_cpu = any(not each.gpu for each in options)
    # Without a load, and on CPU, which is not sized, replicas are counted.
    counted = load is None or on_cpu
    asked = 1.0 if load is None or counted else load.requests_per_second
    return Wanted(
        name=model.name,
        options=tuple(replace(each, rate=1.0) for each in options) if counted else options,
        rate=float(placement.minimum_clusters) if counted else asked / market.fleet.planning.target_load,
        replicas=model.replicas,
        weights={each.name: each.weight for each in placement.clusters if each.name in market.fleet.by_name} or None,
        least_clusters=placement.minimum_clusters,
        survivors_rate=asked if placement.standby == "hot" else None,
        current=current,
        loyalty=market.fleet.planning.move_above_percent / 100,
    )


def _keys(model: ModelEntry, kept: KeptModel) -> Iterator[tuple[str, str, int]]:
    for each in kept.clusters:
        accelerator = each.accelerator or model.accelerator
        if accelerator is not None:
            yield each.name, "" if accelerator.type == CPU else accelerator.type, accelerator.count


# The choice


def resolve(entry: FleetEntry, kept: Kept = NOTHING_KEPT, *, anew: bool = False) -> Resolved:
    """Decides what a stack file leaves open. anew: kept choices may be moved, where that saves enough."""
    market = Market(entry)
    complete = {model.name: _complete(model) for model in entry.models if model.complete}
    wanted = {model.name: _wanted(market, model, kept.models.get(model.name)) for model in entry.models if not model.complete}
    taken = choice.taken_by(_lies(market, each) for each in complete.values())
    chosen: dict[str, Placement] = {}
    gone: dict[str, str] = {}
    for name, each in wanted.items():
        if not anew and name in kept.models:
            placement, why = _as_kept(each, kept.models[name], market, choice.together(taken, choice.taken_by(chosen.values())))
            if placement is None:
                gone[name] = why
            else:
                chosen[name] = placement
    standing = set(chosen)
    open_models = [each for name, each in wanted.items() if name not in chosen]
    problems: list[Problem] = []
    if open_models:
        held = choice.together(taken, choice.taken_by(chosen.values()))
        found = _with_standby(market, entry, open_models, complete, chosen, held)
        if found is None:
            problems = list(_contradictions(market, entry, open_models, held))
        else:
            chosen |= found
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
            kept=kept.models[name].chosen if name in standing or (name in kept.models and _same(model, kept.models[name], chosen[name])) else None,
            gone=gone.get(name, ""),
            options=len(model.options),
        )
        for name, model in wanted.items()
        if name in chosen
    ]
    fleet = FleetSpec.model_construct(_fields_set=set(entry.model_fields_set), **values, models=tuple(models))
    return Resolved(fleet=fleet, choices=tuple(choices), problems=tuple(problems), places=tuple(places), market=market)


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


def _as_kept(model: Wanted, kept: KeptModel, market: Market, taken: choice.Taken) -> tuple[Placement | None, str]:
    """The kept placement, or why it cannot stand any more."""
    placement = _same_placement(model, kept)
    if placement is None:
        return None, "its clusters or GPUs are not to be had any more, or do not keep the objectives"
    if model.replicas is not None and model.replicas != kept.replicas:
        return None, f"`replicas` is {model.replicas} now, and was {kept.replicas}"
    if not choice.keeps(model, placement):
        return None, f"its {kept.replicas} replicas do not answer the load, or lie in too few clusters"
    if not choice.fits(placement, market.room, taken):
        return None, "the nodes there have no room for it any more"
    return placement, ""


def _same_placement(model: Wanted, kept: KeptModel) -> Placement | None:
    weights = model.weights or {each.name: each.weight for each in kept.clusters}
    options = {key(each): each for each in model.options}
    accelerators = {each.name: each.accelerator for each in kept.clusters}
    placed: list[Placed] = []
    for name, replicas in divide(kept.replicas, choice.tie_free(weights)).items():
        accelerator = accelerators.get(name)
        if not replicas:
            continue
        option = options.get((name, "" if accelerator.type == CPU else accelerator.type, accelerator.count)) if accelerator else None
        if option is None:
            return None
        placed.append(Placed(option=option, replicas=replicas))
    return tuple(placed)


def _same(model: Wanted, kept: KeptModel, chosen: Placement) -> bool:
    before = _same_placement(model, kept)
    return before is not None and _counts(before) == _counts(chosen)


def _counts(placement: Placement) -> dict[tuple[str, str, int], int]:
    return {key(each.option): each.replicas for each in placement}


def keep(resolved: Resolved, today: dt.date) -> Kept:
    """What to write into the file of choices: those of this fleet; the date of one that did not change stays."""
    specs = {model.name: model for model in resolved.fleet.models}
    models: dict[str, KeptModel] = Field(default_factory=dict[str, KeptModel])
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
    market: Market, entry: FleetEntry, models: Sequence[Wanted], complete: Mapping[str, ModelSpec], standing: Mapping[str, Placement], taken: choice.Taken
) -> dict[str, Placement] | None:
    """Chooses, and keeps room back where replicas of a lost region would find none, until all of them do."""
    entries = {model.name: model for model in entry.models}
    reserved: dict[tuple[str, str], list[int]] = {}
    for _ in range(_ROUNDS):
        found = choice.choose(models, market.room, choice.together(taken, reserved))
        if found is None:
            return None
        specs = [*complete.values(), *(_completed(market, entries[name], each) for name, each in {**standing, **found}.items())]
        missing = _missing(market, specs, {each.name for each in models})
        if not missing:
            return found
        for place, sizes in missing.items():
            reserved.setdefault(place, []).extend(sizes)
    return None


def _missing(market: Market, models: Sequence[ModelSpec], asked: set[str]) -> dict[tuple[str, str], list[int]]:
    """GPUs of replicas that would find no room, by cluster and type: the most of any region's loss."""
    found: dict[tuple[str, str], list[int]] = {}
    for tier, room in (("warm", market.standing), ("cold", market.room)):
        names = {each.name for each in models if each.name in asked and _tier(each) == tier}
        if not names:
            continue
        nodes: dict[str, dict[str, list[Nodes]]] = {}
        for (cluster, kind), several in room.items():
            nodes.setdefault(cluster, {})[kind] = several
        served = [_served(each) for each in models]
        for region in dict.fromkeys(cluster.region for cluster in market.fleet.clusters):
            lost = frozenset(cluster.name for cluster in market.fleet.clusters if cluster.region == region)
            here: dict[tuple[str, str], list[int]] = {}
            for left, model in zip(losses.after(served, nodes, lost), models, strict=True):
                for cluster, kind in left.short if left.model in names else ():
                    here.setdefault((cluster, kind), []).append(model.accelerator_in(cluster).count)
            for place, sizes in here.items():
                found[place] = max(found.get(place, []), sizes, key=sum)
    return found


def _tier(model: ModelSpec) -> str | None:
    """A time in which capacity is to be back needs room for it."""
    return model.placement.standby or ("cold" if model.objectives.restore_seconds is not None else None)


def _served(model: ModelSpec) -> Served:
    runs_on: dict[str, tuple[str, int] | None] = {}
    for name in model.placement.weights:
        accelerator = model.accelerator_in(name)
        runs_on[name] = None if accelerator.type == CPU else (accelerator.type, accelerator.count)
    return Served(name=model.name, weights=policy_weights(model.placement), replicas=model.replicas, runs_on=runs_on, rates={}, wanted=None)


# What contradicts


def _contradictions(market: Market, entry: FleetEntry, models: Sequence[Wanted], taken: choice.Taken) -> Iterator[Problem]:
    """For each model that has no place by itself the smallest set of its constraints that contradict each other."""
    entries = {model.name: (at, model) for at, model in enumerate(entry.models)}
    blamed = False
    for wanted in models:
        at, model = entries[wanted.name]
        values = _constraints(model)
        found = choice.smallest_contradiction(list(values), lambda names, model=model: _possible(market, model, names, taken))
        if found is None:
            continue
        blamed = True
        listed = [f"`{name}` {value}" if value else name for name, value in values.items() if name in found]
        if not found:
            hint = "add a pool of larger GPUs, or set `runtime.maxModelLength` or `runtime.quantization`"
            yield Problem(("models", at), f"model `{model.name}` fits on no GPU type of the fleet", NOTHING, hint)
        elif len(listed) == 1:
            yield Problem(("models", at), f"model `{model.name}` has no place: no cluster keeps {listed[0]}", NOTHING, "change it, or add GPUs")
        else:
            these = f"{', '.join(listed[:-1])} and {listed[-1]}"
            yield Problem(("models", at), f"model `{model.name}` has no place: {these} contradict each other", NOTHING, "change one of them")
    if not blamed:
        yield _crowd(market, models, taken, {name: at for name, (at, _) in entries.items()})


def _constraints(model: ModelEntry) -> dict[str, str]:
    """Names as in the stack file, with their values, in the order in which they are blamed last."""
    placement, objectives, load = model.placement, model.objectives, model.load
    written = {
        "placement.minimumClusters": str(placement.minimum_clusters) if placement.minimum_clusters > 1 else "",
        "placement.standby": placement.standby or ("cold (for `restoreSeconds`)" if objectives.restore_seconds is not None else ""),
        "placement.jurisdictions": ", ".join(placement.jurisdictions),
        "placement.labels": ", ".join(f"{name}: {value}" for name, value in placement.labels.items()),
        "placement.accelerators": ", ".join(placement.accelerators),
        "placement.gpuMemoryGiB": f"{placement.gpu_memory_gib:g}" if placement.gpu_memory_gib is not None else "",
        "placement.dollarsPerGpuHour": f"{placement.dollars_per_gpu_hour:g}" if placement.dollars_per_gpu_hour is not None else "",
        "placement.clusters": ", ".join(each.name for each in placement.clusters),
        "accelerator": f"{model.accelerator.count} x {model.accelerator.type}" if model.accelerator else "",
        "replicas": str(model.replicas) if model.replicas is not None else "",
        "load": f"{load.requests_per_second:g} requests/s" if load else "",
        "objectives.timeToFirstTokenSeconds": f"{objectives.time_to_first_token_seconds:g}" if objectives.time_to_first_token_seconds and load else "",
        "objectives.interTokenSeconds": f"{objectives.inter_token_seconds:g}" if objectives.inter_token_seconds and load else "",
    }
    return {**{name: value for name, value in written.items() if value}, _POOLS: ""}


def _possible(market: Market, model: ModelEntry, names: frozenset[str], taken: choice.Taken) -> bool:
    """Whether the model has a place with only these of its constraints."""
    placement, objectives = model.placement, model.objectives
    dropped: dict[str, Any] = {}
    free = PlacementEntry().model_copy(update={"minimum_clusters": 1})
    for field, info in PlacementEntry.model_fields.items():
        if f"placement.{info.alias}" not in names:
            dropped[field] = getattr(free, field)
    goals: dict[str, Any] = {"restore_seconds": objectives.restore_seconds if "placement.standby" in names else None}
    for field in ("time_to_first_token_seconds", "inter_token_seconds"):
        goals[field] = getattr(objectives, field) if f"objectives.{ObjectivesSpec.model_fields[field].alias}" in names else None
    # A load is what the objectives are judged at: without it as a constraint the smallest is asked.
    load = model.load if "load" in names or model.load is None else model.load.model_copy(update={"requests_per_second": 1e-6})
    changed = model.model_copy(
        update={
            "placement": placement.model_copy(update=dropped),
            "objectives": objectives.model_copy(update=goals),
            "load": load,
            "accelerator": model.accelerator if "accelerator" in names else None,
            "replicas": model.replicas if "replicas" in names else None,
        }
    )
    rich = _POOLS not in names
    room = {place: [replace(each, count=_PLENTY) for each in nodes] for place, nodes in market.room.items()} if rich else market.room
    wanted = _wanted(market, changed, None)
    return choice.choose([wanted], room, {} if rich else taken) is not None


def _crowd(market: Market, models: Sequence[Wanted], taken: choice.Taken, places: Mapping[str, int]) -> Problem:
    """Each has a place, all together have none: a smallest crowd of them."""
    crowd = list(models)
    for each in models:
        rest = [other for other in crowd if other is not each]
        if rest and choice.choose(rest, market.room, taken) is None:
            crowd = rest
    names = ", ".join(f"`{each.name}`" for each in crowd)
    what = f"models {names} have a place each, but not all together" if len(crowd) > 1 else f"model {names} has no place that survives the loss of a region"
    return Problem(("models", places[crowd[0].name]), what, NOTHING, "add nodes, or lower a load or an objective")


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
    return choice.second_best(_wanted(resolved.market, model, None), each.placement, resolved.market.room, choice.taken_by(others))
