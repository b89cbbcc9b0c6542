"""Why a model has no place: the fewest things that its stack file says and that cannot all be kept."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from planning import solver
from planning.serving_rules import load_fits
from planning.solver import Wanted
from planning.supply import Market, wanted_of
from specs.base import NOTHING, Problem
from specs.fleet import FleetEntry
from specs.models import ModelEntry, ObjectivesSpec
from specs.placement import PlacementEntry

_PLENTY = 1_000_000
# Looks for a smaller crowd: of large fleets each takes a second.
_TRIES = 12
# Of a crowd so many are named.
_NAMED = 10
# What a contradiction may be made of besides what is said of the model itself.
_POOLS = "the nodes of the GPU pools"
_QUOTAS = "the quotas of `planning.quotas`"


def contradictions(market: Market, entry: FleetEntry, models: Sequence[Wanted], taken: solver.Taken) -> Iterator[Problem]:
    """For each model that has no place by itself the smallest set of its constraints that contradict each other."""
    entries = {model.name: (at, model) for at, model in enumerate(entry.models)}
    blamed = False
    for wanted in models:
        at, model = entries[wanted.name]
        if too_long := list(load_fits(at, model)):
            blamed = True
            yield from too_long
            continue
        values = {**_constraints(model), **({_QUOTAS: ""} if market.fleet.planning.quotas else {}), _POOLS: ""}
        found = solver.smallest_contradiction(list(values), lambda names, model=model: _possible(market, model, names, taken))
        if found is None:
            continue
        blamed = True
        listed = [f"`{name}` {value}" if value else name for name, value in values.items() if name in found]
        if not found:
            hint = "add a pool of larger GPUs, or set `runtime.maxModelLength` or `runtime.quantization`" if market.room else "the fleet has no GPU pool"
            yield Problem(("models", at), f"model `{model.name}` fits on no GPU type of the fleet", NOTHING, hint)
        elif len(listed) == 1:
            yield Problem(("models", at), f"model `{model.name}` has no place: no cluster keeps {listed[0]}", NOTHING, "change it, or add GPUs")
        else:
            these = f"{', '.join(listed[:-1])} and {listed[-1]}"
            yield Problem(("models", at), f"model `{model.name}` has no place: {these} contradict each other", NOTHING, "change one of them")
    if blamed:
        return
    if solver.choose(models, market.room, taken) is None:
        crowd = _crowd(market, models, taken)
        rule = f"models {_names(crowd)} have a place each, but not all together"
    else:
        # Each has a place, and so have all: it is the loss of a region that they do not stand, or that others would not beside them.
        crowd = [each for each in models if "placement.standby" in _constraints(entries[each.name][1])] or list(models)
        # Not proven where replicas move: docs/decisions/0012-planner.md.
        rule = f"no place is found for {_names(crowd)} that survives the loss of a region"
    more = "add nodes, raise a quota" if market.fleet.planning.quotas else "add nodes"
    yield Problem(("models", entries[crowd[0].name][0]), rule, NOTHING, f"{more}, or lower a load, an objective or `placement.standby`")


def _names(crowd: Sequence[Wanted]) -> str:
    named = ", ".join(f"`{each.name}`" for each in crowd[:_NAMED])
    return named if len(crowd) <= _NAMED else f"{named} and {len(crowd) - _NAMED} more"


def _constraints(model: ModelEntry) -> dict[str, str]:
    """Names as in the stack file, with their values, in the order in which they are blamed last."""
    placement, objectives, load = model.placement, model.objectives, model.load
    written = {
        "placement.minimumClusters": str(placement.minimum_clusters) if placement.minimum_clusters > 1 else "",
        "placement.standby": placement.standby or ("cold (for `restoreSeconds`)" if objectives.restore_seconds is not None else ""),
        "placement.jurisdictions": ", ".join(placement.jurisdictions),
        "placement.latencyClass": placement.latency_class or "",
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
    return {name: value for name, value in written.items() if value}


def _possible(market: Market, model: ModelEntry, names: frozenset[str], taken: solver.Taken) -> bool:
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
    more = {**({"count": _PLENTY} if rich else {}), **({"quotas": ()} if _QUOTAS not in names else {})}
    room = {place: [replace(each, **more) for each in nodes] for place, nodes in market.room.items()}
    return solver.choose([wanted_of(market, changed)], room, {} if rich else taken) is not None


def _crowd(market: Market, models: Sequence[Wanted], taken: solver.Taken) -> list[Wanted]:
    """Of models that have no place all together a part that has none either. Of few models none of the part can be left out."""
    crowd = list(models)
    step, tries = len(crowd), _TRIES
    while step > 1:
        step //= 2
        at = 0
        while at < len(crowd) and tries:
            tries -= 1
            rest = [*crowd[:at], *crowd[at + step :]]
            if rest and solver.choose(rest, market.room, taken) is None:
                crowd = rest
            else:
                at += step
    return crowd
