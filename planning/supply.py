"""What the clusters of a fleet offer a model: GPUs that it may run on, what they cost, how many requests a replica answers there.

Which of it is taken is choice.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from planning import fleet_plan
from planning.capacity import Room, largest_node
from planning.model_size import split_problems
from planning.prices import Price
from planning.sizing import Size
from planning.solver import Key, Option, Wanted, key
from specs.accelerators import ACCELERATORS, CPU, canonical
from specs.clusters import ClusterSpec
from specs.fleet import FleetBase
from specs.gpu_pools import AcceleratorSpec
from specs.models import ModelEntry
from specs.placement import PlacementBase
from specs.types import LATENCY_CLASSES

# GPUs of a stage that are tried. More than 8 are in one machine nowhere.
_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Market:
    """What the clusters of a fleet offer, and what of it is gone."""

    fleet: FleetBase

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        return fleet_plan.known_prices(self.fleet)

    @cached_property
    def room(self) -> Room:
        return fleet_plan.room(self.fleet)

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


def refusal(market: Market, placement: PlacementBase, cluster: ClusterSpec, gpu: str) -> tuple[str, str] | None:
    """(field of the placement, reason) why a model may not run on this GPU type there; None where it may."""
    if placement.jurisdictions and cluster.jurisdiction not in placement.jurisdictions:
        return "jurisdictions", f"it is in `{cluster.jurisdiction}`" if cluster.jurisdiction else "it has no jurisdiction"
    farthest = placement.latency_class
    if farthest is not None and LATENCY_CLASSES.index(cluster.latency_class) > LATENCY_CLASSES.index(farthest):
        return "latencyClass", f"it is of the class `{cluster.latency_class}`"
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


def _options(market: Market, model: ModelEntry, kept: frozenset[Key]) -> Iterator[Option]:
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


def _of_type(market: Market, model: ModelEntry, cluster: ClusterSpec, kind: str, own: AcceleratorSpec | None, kept: frozenset[Key]) -> Iterator[Option]:
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


def wanted_of(market: Market, model: ModelEntry, current: frozenset[Key] = frozenset()) -> Wanted:
    """What the model asks of a choice. current: where it is now."""
    placement, load = model.placement, model.load
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
