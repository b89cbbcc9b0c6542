"""What a fleet can serve and what it costs, from its stack file: sizes, use of pools, what is left after a loss, dollars.

The arithmetic is planning/; this module hands it the numbers of a fleet. It declares no resource and asks nobody.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from planning import cost, failover_budget, losses, prices, sizing
from planning.capacity import Nodes, Room
from planning.cost import Pool
from planning.division import division, policy_weights
from planning.failover_budget import Promise
from planning.losses import Left, Served
from planning.model_size import Shape
from planning.prices import HOURS_PER_MONTH, Price, Quote
from planning.sizing import Efficiency, Engine, Size
from specs.accelerators import ACCELERATORS, CPU, canonical
from specs.clusters import ClusterSpec
from specs.fleet import FleetBase, FleetSpec
from specs.gpu_pools import AcceleratorSpec, GpuPoolSpec
from specs.models import LoadSpec, ModelBase, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Site:
    """One model in one cluster."""

    cluster: str
    accelerator: AcceleratorSpec
    replicas: int
    size: Size | None
    """None on CPU, which is not sized."""
    efficiency: str
    """Where the shares that the times are computed with come from."""
    dollars_per_replica_hour: float | None
    """None without a price, 0 on CPU."""


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One model over all its clusters."""

    name: str
    sites: tuple[Site, ...]
    load: LoadSpec | None
    target: float
    needed: int | None
    """Replicas for the load, by the weights of the placement; None without a load, and where none serves within the objectives."""

    @property
    def replicas(self) -> int:
        return sum(each.replicas for each in self.sites)

    @property
    def concurrency(self) -> int | None:
        """Requests at once within the objectives, all replicas together."""
        if self.load is None or any(each.size is None for each in self.sites):
            return None
        return sum(each.replicas * each.size.speed.sequences for each in self.sites if each.size and each.size.speed)

    @property
    def capacity(self) -> float | None:
        """Requests per second within the objectives, all replicas together and full."""
        if self.load is None or any(each.size is None for each in self.sites):
            return None
        return sum(each.replicas * each.size.speed.requests_per_second for each in self.sites if each.size and each.size.speed)

    @property
    def dollars_per_month(self) -> float | None:
        """Of the GPUs that its replicas hold."""
        hourly = [each.dollars_per_replica_hour for each in self.sites if each.replicas]
        if any(each is None for each in hourly):
            return None
        return sum(each.replicas * (each.dollars_per_replica_hour or 0) for each in self.sites) * HOURS_PER_MONTH

    @property
    def dollars_per_million_tokens(self) -> float | None:
        """Of answers, at the declared load; None without one."""
        dollars = self.dollars_per_month
        if dollars is None or self.load is None or not dollars:
            return None
        return cost.per_million_tokens(dollars, self.load.requests_per_second, self.load.output_tokens)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is left when these clusters are away."""

    name: str
    """The cluster, or the region of several."""
    clusters: tuple[str, ...]
    left: tuple[Left, ...]


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    models: tuple[ModelPlan, ...]
    pools: tuple[Pool, ...]
    losses: tuple[Loss, ...]
    promises: tuple[Promise, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """What the prices stand for."""

    @cached_property
    def dollars_per_month(self) -> float:
        """Of all pools that have a price."""
        return sum(each.dollars_per_month or 0 for each in self.pools)


def plan(fleet: FleetSpec, today: dt.date) -> FleetPlan:
    """The plan of a fleet that keeps its rules. `today` decides which prices are old."""
    known = known_prices(fleet)
    models = tuple(_model_plan(fleet, model, known) for model in fleet.models)
    bought = tuple(pools(fleet, known))
    return FleetPlan(
        models=models,
        pools=bought,
        losses=tuple(_losses(fleet, models)),
        promises=tuple(failover_budget.promise(fleet, model) for model in fleet.models),
        warnings=tuple(_warnings(fleet, models, bought, today)),
        notes=tuple(dict.fromkeys(f"{pool.cluster} {pool.name}: {note}" for pool in bought if pool.quote for note in pool.quote.notes)),
    )


# Specs as the arithmetic takes them


def shape(model: ModelBase) -> Shape:
    """The architecture as it is served."""
    return Shape(facts=model.facts, runtime=model.runtime)


def engine(model: ModelBase, count: int) -> Engine:
    """A replica's vLLM on `count` GPUs."""
    return Engine(runtime=model.runtime, gpus=count)


def efficiency(fleet: FleetBase, model: str, accelerator: str) -> Efficiency:
    """What was measured of this model on this GPU type, else of any model, else the prior."""
    found = [each for each in fleet.planning.calibration if canonical(each.accelerator) == canonical(accelerator) and each.model in (model, None)]
    best = next((each for each in found if each.model == model), next(iter(found), None))
    return Efficiency() if best is None else Efficiency(memory=best.memory, compute=best.compute, source=best.source)


def size(fleet: FleetBase, model: ModelBase, accelerator: AcceleratorSpec) -> Size:
    """A replica on GPUs."""
    speeds = efficiency(fleet, model.name, accelerator.type)
    return sizing.size(shape(model), ACCELERATORS[accelerator.type], engine(model, accelerator.count), model.load, model.objectives, speeds)


def known_prices(fleet: FleetBase) -> tuple[Price, ...]:
    """Those of the stack file, then the catalogue's."""
    own = [Price(spec=each, source="planning.prices of the stack file") for each in fleet.planning.prices]
    return (*own, *prices.catalogue())


def pool_quote(cluster: ClusterSpec, pool: GpuPoolSpec, known: tuple[Price, ...]) -> Quote | None:
    """What a GPU of this pool costs, bought in the first of its ways."""
    return prices.quote(known, gpu=pool.accelerator, provider=cluster.provider, region=cluster.region, capacity=pool.capacity_types[0], gpus=pool.gpus_per_node)


def room(fleet: FleetBase) -> Room:
    """The nodes of all clusters, at the pools' largest, with the quotas that bound them."""
    found: dict[tuple[str, str], list[Nodes]] = {}
    for cluster in fleet.clusters:
        for pool in cluster.gpu_pools:
            # A quota that is listed twice still is one.
            quotas = tuple(dict.fromkeys(each for each in fleet.planning.quotas if each.binds(cluster, pool)))
            nodes = Nodes(count=pool.most_nodes, gpus_per_node=pool.gpus_per_node, standing=pool.least_nodes, quotas=quotas)
            found.setdefault((cluster.name, pool.accelerator), []).append(nodes)
    return found


# The parts of a plan


def _model_plan(fleet: FleetSpec, model: ModelSpec, known: tuple[Price, ...]) -> ModelPlan:
    divided = division(model.placement, model.replicas)
    sites = tuple(_site(fleet, model, name, replicas, known) for name, replicas in divided.items())
    return ModelPlan(name=model.name, sites=sites, load=model.load, target=fleet.planning.target_load, needed=_needed(fleet, model, sites))


def _site(fleet: FleetSpec, model: ModelSpec, cluster: str, replicas: int, known: tuple[Price, ...]) -> Site:
    accelerator = model.accelerator_in(cluster)
    if accelerator.type == CPU:
        return Site(cluster=cluster, accelerator=accelerator, replicas=replicas, size=None, efficiency="", dollars_per_replica_hour=0.0)
    dollars = dollars_per_gpu(fleet.by_name[cluster], accelerator.type, known)
    return Site(
        cluster=cluster,
        accelerator=accelerator,
        replicas=replicas,
        size=size(fleet, model, accelerator),
        efficiency=efficiency(fleet, model.name, accelerator.type).source,
        dollars_per_replica_hour=None if dollars is None else dollars * accelerator.count,
    )


def dollars_per_gpu(cluster: ClusterSpec, gpu: str, known: tuple[Price, ...]) -> float | None:
    """By the hour: the mean over the cluster's pools of this type, as nothing says which of them a replica is put in."""
    quotes = [(pool.gpus, pool_quote(cluster, pool, known)) for pool in cluster.gpu_pools if pool.accelerator == gpu and pool.gpus]
    if not quotes or any(quote is None for _, quote in quotes):
        return None
    return sum(gpus * quote.price.spec.dollars_per_gpu_hour for gpus, quote in quotes if quote) / sum(gpus for gpus, _ in quotes)


def _needed(fleet: FleetSpec, model: ModelSpec, sites: tuple[Site, ...]) -> int | None:
    """The least number of replicas whose division by the weights serves the load at the target."""
    asked = model.load
    rates = {each.cluster: each.size.speed.requests_per_second for each in sites if each.size and each.size.speed}
    if asked is None or not rates:
        return None
    wanted = asked.requests_per_second / fleet.planning.target_load

    def serves(replicas: int) -> bool:
        return sum(count * rates.get(name, 0.0) for name, count in division(model.placement, replicas).items()) >= wanted

    low, high = 0, 1
    while not serves(high):
        low, high = high, 2 * high
        if high > _MOST_REPLICAS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if serves(middle) else (middle, high)
    return high


# The largest `replicas` of a stack file, and some more.
_MOST_REPLICAS = 20_000


def pools(fleet: FleetSpec, known: tuple[Price, ...]) -> Iterator[Pool]:
    """Every pool, with the GPUs that the models use and what one costs."""
    used: dict[tuple[str, str], int] = {}
    for model in fleet.models:
        for name, replicas in division(model.placement, model.replicas).items():
            accelerator = model.accelerator_in(name)
            if accelerator.type != CPU:
                used[name, accelerator.type] = used.get((name, accelerator.type), 0) + replicas * accelerator.count
    for cluster in fleet.clusters:
        for pool in cluster.gpu_pools:
            # Of several pools of one type the first is filled first, as they are listed.
            wanted = used.get((cluster.name, pool.accelerator), 0)
            here = min(wanted, pool.gpus)
            used[cluster.name, pool.accelerator] = wanted - here
            yield Pool(
                cluster=cluster.name,
                name=pool.name,
                gpu=pool.accelerator,
                gpus_per_node=pool.gpus_per_node,
                capacity=pool.capacity_types[0],
                least_nodes=pool.least_nodes,
                most_nodes=pool.most_nodes,
                used_gpus=here,
                quote=pool_quote(cluster, pool, known),
            )


def _losses(fleet: FleetSpec, plans: tuple[ModelPlan, ...]) -> Iterator[Loss]:
    """Every cluster, and every region of several clusters: those fail together."""
    models = [_served(model, plan) for model, plan in zip(fleet.models, plans, strict=True)]
    nodes = room(fleet)
    regions: dict[str, list[str]] = {}
    for cluster in fleet.clusters:
        regions.setdefault(cluster.region, []).append(cluster.name)
    groups = {cluster.name: (cluster.name,) for cluster in fleet.clusters}
    groups |= {f"region {region}": tuple(names) for region, names in regions.items() if len(names) > 1}
    for name, lost in groups.items():
        touched = [each for each in losses.after(models, nodes, frozenset(lost)) if set(lost) & set(_weights(models, each.model))]
        yield Loss(name=name, clusters=lost, left=tuple(touched))


def _weights(models: list[Served], name: str) -> list[str]:
    return next(list(each.weights) for each in models if each.name == name)


def _served(model: ModelSpec, plan: ModelPlan) -> Served:
    runs_on: dict[str, tuple[str, int] | None] = {}
    for each in plan.sites:
        runs_on[each.cluster] = None if each.accelerator.type == CPU else (each.accelerator.type, each.accelerator.count)
    rates = {each.cluster: each.size.speed.requests_per_second if each.size.speed else 0.0 for each in plan.sites if each.size and plan.load}
    wanted = plan.load.requests_per_second if plan.load else None
    return Served(name=model.name, weights=policy_weights(model.placement), replicas=model.replicas, runs_on=runs_on, rates=rates, wanted=wanted)


def _warnings(fleet: FleetSpec, models: tuple[ModelPlan, ...], pools: tuple[Pool, ...], today: dt.date) -> Iterator[str]:
    for each in models:
        for site in each.sites:
            if site.size is not None and not site.size.serves:
                on = f"{site.accelerator.count} x {site.accelerator.type}"
                verb = "does not fit" if not site.size.memory.fits else "misses its objectives"
                yield f"{each.name} in {site.cluster} on {on} {verb}: {site.size.binding}: {site.size.explained}"
        if each.needed is not None and each.load is not None and each.needed > each.replicas:
            full = f"{each.load.requests_per_second:g} requests/s at {each.target:.0%}"
            yield f"{each.name} needs {each.needed} replicas for {full} of what they can do, and has {each.replicas}"
    unpriced = sorted({each.gpu for each in pools if each.quote is None and each.most_nodes})
    if unpriced:
        yield f"no price of {', '.join(unpriced)}: left out of every sum; add it to planning.prices"
    used = {each.quote.price for each in pools if each.quote}
    for source, date in prices.stale(used, today).items():
        yield f"prices of {date.isoformat()} are old ({source}): refresh the catalogue, or set planning.prices"
    for quota in fleet.planning.quotas:
        most = sum(pool.gpus for cluster in fleet.clusters for pool in cluster.gpu_pools if quota.binds(cluster, pool))
        if most > quota.gpus:
            yield f"pools may grow to {most} GPUs, and the quota is {quota}"
    for model in fleet.models:
        if model.facts.sliding_window is not None and model.facts.full_attention_layers is None:
            yield f"{model.name}: facts.slidingWindow counts for nothing without facts.fullAttentionLayers"


# What a preview says, and what a stack remembers


def describe(plan: ModelPlan) -> str:
    """One line for `pulumi preview`, which names the model beside it."""
    places = ", ".join(f"{each.replicas} on {_on(each.accelerator)} in {each.cluster}" for each in plan.sites if each.replicas)
    parts = [f"plan: {places}"]
    limits = dict.fromkeys(each.size.binding for each in plan.sites if each.size)
    if limits:
        parts.append(f"limit: {', '.join(limits)}")
    if plan.needed is not None:
        parts.append(f"{plan.needed} replicas are needed for the load")
    dollars = plan.dollars_per_month
    if dollars:
        parts.append(f"about ${dollars:,.0f} a month")
    return "; ".join(parts)


def describe_fleet(plan: FleetPlan) -> str:
    """One line about all of it."""
    broken = [f"{left.model} without {loss.name}" for loss in plan.losses for left in loss.left if left.unplaced or (left.served or 1) < 1]
    lost = "whichever cluster is lost, the others have room for its models" if not broken else f"not enough is left of {', '.join(broken)}"
    return f"plan: GPU nodes cost about ${plan.dollars_per_month:,.0f} a month; {lost}; `fleet plan` shows the tables"


def _on(accelerator: AcceleratorSpec) -> str:
    return accelerator.type if accelerator.type == CPU else f"{accelerator.count} x {accelerator.type}"


def output(fleet: FleetSpec, plan: FleetPlan) -> dict[str, Any]:
    """For the stack's output `plan`: what a later plan is compared with. No prices: they are asked again then."""
    return {
        "pools": [
            {
                "cluster": each.cluster,
                "name": each.name,
                "accelerator": each.gpu,
                "capacityType": each.capacity,
                "provider": fleet.by_name[each.cluster].provider or "",
                "region": fleet.by_name[each.cluster].region,
                "gpusPerNode": each.gpus_per_node,
                "leastNodes": each.least_nodes,
                "mostNodes": each.most_nodes,
                "usedGpus": each.used_gpus,
            }
            for each in plan.pools
        ],
        "models": {
            model.name: {
                each.cluster: {"accelerator": each.accelerator.type, "count": each.accelerator.count, "replicas": each.replicas} for each in model.sites
            }
            for model in plan.models
        },
    }
