"""What changes against what is deployed: from the stack's outputs, at today's prices, so that a new price is no change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from planning import prices
from planning.cost import Pool
from planning.fleet_plan import FleetPlan, known_prices
from specs.fleet import FleetSpec


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Dollars a month before and now, and what is different."""

    before: float
    now: float
    changes: tuple[str, ...]


def compare(fleet: FleetSpec, plan: FleetPlan, outputs: Mapping[str, Any]) -> Difference | None:
    """None where the outputs hold no plan: nothing is deployed, or by a program that knew none."""
    deployed = outputs.get("plan")
    if not deployed:
        return None
    before = [_pool(fleet, each) for each in deployed["pools"]]
    changes = (*_pools(before, plan.pools), *_models(deployed["models"], plan))
    return Difference(before=sum(each.dollars_per_month or 0 for each in before), now=plan.dollars_per_month, changes=changes)


def _pool(fleet: FleetSpec, told: Mapping[str, Any]) -> Pool:
    # Numbers come back from the engine as floats.
    gpus = int(told["gpusPerNode"])
    quote = prices.quote(
        known_prices(fleet),
        gpu=told["accelerator"],
        provider=told["provider"] or None,
        region=told["region"],
        capacity=told["capacityType"],
        gpus=gpus,
    )
    return Pool(
        cluster=told["cluster"],
        name=told["name"],
        gpu=told["accelerator"],
        gpus_per_node=gpus,
        capacity=told["capacityType"],
        least_nodes=int(told["leastNodes"]),
        most_nodes=int(told["mostNodes"]),
        used_gpus=int(told["usedGpus"]),
        quote=quote,
    )


def _pools(before: list[Pool], now: tuple[Pool, ...]) -> Iterator[str]:
    old, new = ({(each.cluster, each.name): each for each in pools} for pools in (before, now))
    for key in dict.fromkeys((*old, *new)):
        name = f"pool {key[1]} of {key[0]}"
        if key not in new:
            yield f"{name}: removed, {old[key].nodes} nodes with {old[key].gpus_per_node} {old[key].gpu}"
        elif key not in old:
            yield f"{name}: new, {new[key].nodes} nodes with {new[key].gpus_per_node} {new[key].gpu}"
        elif (was := _described(old[key])) != (becomes := _described(new[key])):
            yield f"{name}: {was} -> {becomes}"


def _described(pool: Pool) -> str:
    return f"{pool.nodes} nodes with {pool.gpus_per_node} {pool.gpu}, {pool.capacity}"


def _models(before: Mapping[str, Any], plan: FleetPlan) -> Iterator[str]:
    now = {model.name: {each.cluster: (each.accelerator.type, each.accelerator.count, each.replicas) for each in model.sites} for model in plan.models}
    old = {
        model: {cluster: (str(each["accelerator"]), int(each["count"]), int(each["replicas"])) for cluster, each in sites.items()}
        for model, sites in before.items()
    }
    for name in dict.fromkeys((*old, *now)):
        if name not in now:
            yield f"model {name}: removed"
        elif name not in old:
            yield f"model {name}: new"
        else:
            for cluster in dict.fromkeys((*old[name], *now[name])):
                was, becomes = old[name].get(cluster), now[name].get(cluster)
                if was != becomes:
                    yield f"model {name} in {cluster}: {_place(was)} -> {_place(becomes)}"


def _place(place: tuple[str, int, int] | None) -> str:
    return "none" if place is None else f"{place[2]} on {place[1]} x {place[0]}"
