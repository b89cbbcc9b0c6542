"""What a fleet still serves after some of its clusters are lost: by GPU type, node and placement. No times: those are
failover_time.py.

Replicas that run stay where they are. Those of lost clusters go where Karmada's division puts them, as far as the nodes there,
at the pools' largest, have room. Nodes of a lost cluster still count for quotas: nobody knows whether they are gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from planning.capacity import Packing, Room
from planning.division import divide


@dataclass(frozen=True, kw_only=True)
class Served:
    """One model of the fleet."""

    name: str
    weights: Mapping[str, int]
    """By cluster, as Karmada gets them."""
    replicas: int
    runs_on: Mapping[str, tuple[str, int] | None]
    """By cluster: GPU type and count of a replica there; None where it needs no GPU."""
    rates: Mapping[str, float]
    """Requests per second of a replica, by cluster; empty where unknown."""
    wanted: float | None
    """Requests per second that callers ask."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of one model."""

    model: str
    running: int
    """Replicas that were elsewhere and serve on."""
    moved: int
    """That find room in other clusters."""
    unplaced: int
    served: float | None
    """Share of the wanted load that running and moved replicas answer, 1 at most; None where a rate or the load is unknown."""
    short: tuple[tuple[str, str, int], ...]
    """Cluster and GPU type where room is missing, and for how many replicas."""


def after(models: Sequence[Served], room: Room, lost: frozenset[str], *, grows: bool = True) -> list[Left]:
    """Each model once the clusters `lost` are away. grows: whether nodes may come for what moves, or only those are there that run."""
    before = {model.name: _divided(model, frozenset()) for model in models}
    rest = {model.name: _divided(model, lost) if lost & model.weights.keys() else before[model.name] for model in models}
    packing = Packing(room)
    _place(packing, [(model, name, before[model.name].get(name, 0)) for model in models for name in model.weights if name in lost])
    # Who runs already keeps its place: those first, then those who come, the largest first.
    staying = [(model, name, min(before[model.name].get(name, 0), count)) for model in models for name, count in rest[model.name].items()]
    coming = [(model, name, count - min(before[model.name].get(name, 0), count)) for model in models for name, count in rest[model.name].items()]
    stay = _place(packing, staying)
    packing.grows = grows
    come = _place(packing, coming)
    found: list[Left] = []
    for model in models:
        placed = {name: stay.get((model.name, name), 0) + come.get((model.name, name), 0) for name in rest[model.name]}
        running = sum(stay.get((model.name, name), 0) for name in placed)
        moved = sum(come.get((model.name, name), 0) for name in placed)
        short = [(name, _type(model, name), count - placed[name]) for name, count in rest[model.name].items() if placed[name] < count]
        served = _served(model, placed)
        found.append(Left(model=model.name, running=running, moved=moved, unplaced=model.replicas - running - moved, served=served, short=tuple(short)))
    return found


def _divided(model: Served, lost: frozenset[str]) -> dict[str, int]:
    return divide(model.replicas, {name: weight for name, weight in model.weights.items() if name not in lost})


def _type(model: Served, cluster: str) -> str:
    runs_on = model.runs_on[cluster]
    return runs_on[0] if runs_on else ""


def _served(model: Served, placed: Mapping[str, int]) -> float | None:
    if not model.wanted or any(name not in model.rates for name, count in placed.items() if count):
        return None
    return min(1.0, sum(count * model.rates[name] for name, count in placed.items() if count) / model.wanted)


def _place(packing: Packing, wanted: Iterable[tuple[Served, str, int]]) -> dict[tuple[str, str], int]:
    """Replicas that found a node, by model and cluster: the largest first."""
    placed: dict[tuple[str, str], int] = {}
    for model, cluster, count in sorted(wanted, key=lambda each: -(each[0].runs_on[each[1]] or ("", 0))[1]):
        runs_on = model.runs_on[cluster]
        placed[model.name, cluster] = count if runs_on is None else sum(packing.take((cluster, runs_on[0]), runs_on[1]) for _ in range(count))
    return placed
