"""A plan as tables for a terminal and for a pull request, and as JSON. What is in it is planning/fleet_plan.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from operations.plan.deployed import Difference
from operations.status import table
from planning import failover_budget
from planning.choice import Choice
from planning.cost import Pool
from planning.failover_time import total
from planning.fleet_plan import FleetPlan, ModelPlan, Site
from planning.losses import Left
from planning.model_size import GIB
from planning.prices import HOURS_PER_MONTH
from planning.solver import Placement, hourly
from specs.accelerators import CPU

# Of the JSON. A reader refuses another one.
VERSION = 1

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    title: str
    rows: list[Row]
    """The first has the heads."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A choice of the planner, and what else there was."""

    choice: Choice
    second: Placement | None
    """None: there is no other."""
    saving: float
    """Dollars a month that moving a kept choice would save."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that `fleet plan` tells."""

    stack: str
    plan: FleetPlan
    choices: tuple[Explained, ...]
    difference: Difference | None
    """Against what is deployed; None where nothing is."""
    remarks: tuple[str, ...]


def tables(outcome: Outcome) -> list[Table]:
    plan = outcome.plan
    every = [
        Table("Models", list(_model_rows(plan))),
        Table("Load and cost of the models", list(_load_rows(plan))),
        Table("What the planner chose", list(_choice_rows(outcome.choices))),
        Table("GPU pools", list(_pool_rows(plan))),
        Table("What is left when a cluster is lost", list(_loss_rows(plan))),
        Table("Failover at worst", list(_failover_rows(plan))),
    ]
    return [each for each in every if len(each.rows) > 1]


def text(outcome: Outcome) -> str:
    plan = outcome.plan
    parts = [f"{each.title}\n{table(each.rows)}" for each in tables(outcome)]
    parts.append("\n".join([_sum(plan), *_difference(outcome.difference)]))
    parts += ["\n".join(f"warning: {each}" for each in plan.warnings)] if plan.warnings else []
    parts += ["\n".join(_notes(outcome))]
    return "\n\n".join(parts)


def markdown(outcome: Outcome) -> str:
    lines = [f"### Plan of `{outcome.stack}`", "", _sum(outcome.plan), ""]
    lines += [*(f"- {_escaped(each)}" for each in _difference(outcome.difference)), ""]
    if outcome.plan.warnings:
        lines += [*(f"- :warning: {_escaped(each)}" for each in outcome.plan.warnings), ""]
    for each in tables(outcome):
        head, *rest = each.rows
        lines += [f"**{each.title}**", "", _line(tuple(cell.lower() for cell in head)), f"|{'---|' * len(head)}", *map(_line, rest), ""]
    lines += ["<details><summary>Assumptions</summary>", "", *(f"- {_escaped(each)}" for each in _notes(outcome)), "", "</details>"]
    return "\n".join(lines)


def _line(cells: Row) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _model_rows(plan: FleetPlan) -> Iterator[Row]:
    yield "MODEL", "CLUSTER", "GPUS", "REPLICAS", "KV CACHE", "FULL LENGTH", "AT ONCE", "FIRST TOKEN", "PER TOKEN", "REQUESTS/S", "LIMIT", ""
    for model in plan.models:
        for site in model.sites:
            yield model.name, site.cluster, _gpus(site), str(site.replicas), *_size_cells(site)


def _gpus(site: Site) -> str:
    return site.accelerator.type if site.size is None else f"{site.accelerator.count} x {site.accelerator.type}"


def _size_cells(site: Site) -> Row:
    size = site.size
    if size is None:
        return "-", "-", "-", "-", "-", "-", "not sized", ""
    speed = size.speed
    cache = f"{max(0, size.memory.cache_tokens):,} tokens"
    times = (
        ("-", "-", "-", "-") if speed is None else (str(speed.sequences), _ms(speed.first_token), _ms(speed.between_tokens), f"{speed.requests_per_second:.2f}")
    )
    return cache, str(size.full_length), *times, size.binding, size.explained


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _load_rows(plan: FleetPlan) -> Iterator[Row]:
    yield "MODEL", "LOAD", "REPLICAS", "NEEDED", "AT ONCE", "CAPACITY", "$/MONTH", "$/MILLION TOKENS"
    for each in plan.models:
        asked = "not declared" if each.load is None else f"{each.load.requests_per_second:g}/s of {each.load.input_tokens} + {each.load.output_tokens} tokens"
        capacity = "-" if each.capacity is None else f"{each.capacity:.2f}/s"
        cells = ("-" if each.needed is None else str(each.needed), "-" if each.concurrency is None else str(each.concurrency), capacity)
        yield each.name, asked, str(each.replicas), *cells, dollars(each.dollars_per_month), _cents(each.dollars_per_million_tokens)


def dollars(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:,.0f}"


def _cents(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:,.2f}"


def _choice_rows(choices: tuple[Explained, ...]) -> Iterator[Row]:
    yield "MODEL", "CHOSEN", "$/MONTH", "WHY", "SECOND BEST", "$/MONTH MORE"
    for each in choices:
        second = ("there is none", "-") if each.second is None else (_places(each.second), f"{_more(each):+,.0f}")
        yield each.choice.model, _places(each.choice.placement), dollars(each.choice.dollars_per_month), _why(each), *second


def _more(each: Explained) -> float:
    return hourly(each.second or ()) * HOURS_PER_MONTH - each.choice.dollars_per_month


def _places(placement: Placement) -> str:
    return ", ".join(f"{each.replicas} on {each.option.count} x {each.option.gpu or CPU} in {each.option.cluster}" for each in placement)


def _why(each: Explained) -> str:
    chosen = each.choice
    if chosen.kept is not None:
        moving = f"moving would save {dollars(each.saving)}" if round(each.saving) else "moving would not save enough"
        return f"kept since {chosen.kept.isoformat()}; {moving}"
    before = f"; given up: {chosen.gone}" if chosen.gone else ""
    return f"the cheapest of {chosen.options} ways to run a replica that fit and keep the objectives{before}"


def _pool_rows(plan: FleetPlan) -> Iterator[Row]:
    yield "CLUSTER", "POOL", "GPU", "NODES", "GPUS", "USED", "BOUGHT", "$/GPU-HOUR", "PRICE OF", "$/MONTH", "AT MOST"
    for each in plan.pools:
        bounds = str(each.nodes) if each.least_nodes == each.most_nodes else f"{each.nodes} ({each.least_nodes}..{each.most_nodes})"
        price = ("-", "-") if each.quote is None else (f"{each.quote.price.spec.dollars_per_gpu_hour:.3f}", each.quote.price.spec.date.isoformat())
        gpus = each.most_nodes * each.gpus_per_node
        used = f"{each.used_gpus} ({each.used_gpus / gpus:.0%})" if gpus else "-"
        costs = (dollars(each.dollars_per_month), dollars(each.most_dollars_per_month))
        yield each.cluster, each.name, each.gpu, bounds, str(gpus), used, each.capacity, *price, *costs


def _loss_rows(plan: FleetPlan) -> Iterator[Row]:
    yield "LOST", "MODEL", "SERVE ON", "REPLACED", "NO ROOM", "OF THE LOAD", "MISSING"
    for loss in plan.losses:
        for left in loss.left:
            served = "-" if left.served is None else f"{left.served:.0%}"
            yield loss.name, left.model, str(left.running), str(left.moved), str(left.unplaced), served, _missing(left)


def _missing(left: Left) -> str:
    if left.short:
        return ", ".join(f"{kind} in {cluster}" for cluster, kind, _ in left.short)
    return "a cluster to go to" if left.unplaced else ""


def _failover_rows(plan: FleetPlan) -> Iterator[Row]:
    yield "MODEL", "REQUESTS LATER BY", "REPLICAS ELSEWHERE AFTER", "STREAMS"
    for each in plan.promises:
        death = each.worst_death
        later = f"{failover_budget.rounded_up(total(death.added or ()))} s" if death else "fail: one region"
        unknown = "" if each.load_known else " + load"
        restored = f"{failover_budget.rounded_up(total(each.worst_restore))} s{unknown}" if each.movable else "never: one region"
        yield each.model, later, restored, each.streams


def _sum(plan: FleetPlan) -> str:
    by_type: dict[str, float] = {}
    for each in plan.pools:
        by_type[each.capacity] = by_type.get(each.capacity, 0) + (each.dollars_per_month or 0)
    parts = ", ".join(f"{kind} {dollars(amount)}" for kind, amount in by_type.items())
    return f"GPU nodes cost about ${dollars(plan.dollars_per_month)} a month" + (f": {parts}" if len(by_type) > 1 else "")


def _difference(found: Difference | None) -> list[str]:
    if found is None:
        return ["Nothing of this stack is deployed from here: there is nothing to compare with."]
    change = found.now - found.before
    cost = f"deployed ${dollars(found.before)} a month, by the same prices: {change:+,.0f}" if round(change) else "The cost is that of what is deployed."
    return [cost[0].upper() + cost[1:], *found.changes]


def _notes(outcome: Outcome) -> Iterator[str]:
    plan = outcome.plan
    yield "times are means, estimated from the GPU's data sheet and a share of it; `fleet plan --bench FILE` replaces the shares by measured ones"
    sources = sorted({site.efficiency for model in plan.models for site in model.sites if site.efficiency})
    if sources:
        yield f"shares: {'; '.join(sources)}"
    yield "cost: GPU nodes alone, by list prices, 730 hours a month, the first of a pool's ways to buy"
    grouped: dict[str, list[str]] = {}
    for note in plan.notes:
        pool, _, what = note.partition(": ")
        grouped.setdefault(what, []).append(pool)
    for what, pools in grouped.items():
        yield f"{what} ({', '.join(pools)})"
    yield from outcome.remarks


# JSON


def document(outcome: Outcome) -> dict[str, Any]:
    """Seconds, bytes, dollars; null where something is unknown."""
    plan, difference = outcome.plan, outcome.difference
    return {
        "version": VERSION,
        "stack": outcome.stack,
        "models": {each.name: _model(each) for each in plan.models},
        "choices": {each.choice.model: _choice(each) for each in outcome.choices},
        "pools": [_pool(each) for each in plan.pools],
        "losses": [{"lost": each.name, "clusters": list(each.clusters), "models": {left.model: _left(left) for left in each.left}} for each in plan.losses],
        "failover": {each.model: failover_budget.output(each) for each in plan.promises},
        "dollarsPerMonth": round(plan.dollars_per_month, 2),
        "deployed": None if difference is None else {"dollarsPerMonth": round(difference.before, 2), "changes": list(difference.changes)},
        "warnings": list(plan.warnings),
        "notes": list(_notes(outcome)),
    }


def _choice(each: Explained) -> dict[str, Any]:
    return {
        "placement": _placement(each.choice.placement),
        "keptSince": each.choice.kept.isoformat() if each.choice.kept else None,
        "why": _why(each),
        "dollarsPerMonth": round(each.choice.dollars_per_month, 2),
        "savingOfMoving": round(each.saving, 2),
        "second": None if each.second is None else {"placement": _placement(each.second), "moreDollarsPerMonth": round(_more(each), 2)},
    }


def _placement(placement: Placement) -> list[dict[str, Any]]:
    return [
        {"cluster": each.option.cluster, "accelerator": each.option.gpu or CPU, "count": each.option.count, "replicas": each.replicas} for each in placement
    ]


def _model(model: ModelPlan) -> dict[str, Any]:
    return {
        "replicas": model.replicas,
        "needed": model.needed,
        "concurrency": model.concurrency,
        "requestsPerSecond": _rounded(model.capacity, 3),
        "dollarsPerMonth": _rounded(model.dollars_per_month, 2),
        "dollarsPerMillionTokens": _rounded(model.dollars_per_million_tokens, 4),
        "clusters": {each.cluster: _site(each) for each in model.sites},
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _site(site: Site) -> dict[str, Any]:
    shown: dict[str, Any] = {"accelerator": site.accelerator.type, "count": site.accelerator.count, "replicas": site.replicas}
    size = site.size
    if size is None:
        return shown
    held, speed = size.memory, size.speed
    parts = {"usable": held.usable, "weights": held.weights, "activations": held.activations, "other": held.other, "cache": held.cache}
    times: dict[str, Any] | None = None
    if speed is not None:
        times = {
            "sequences": speed.sequences,
            "firstTokenSeconds": round(speed.first_token, 4),
            "betweenTokensSeconds": round(speed.between_tokens, 5),
            "requestsPerSecond": round(speed.requests_per_second, 4),
        }
    return {
        **shown,
        "serves": size.serves,
        "binding": size.binding,
        "explained": size.explained,
        "gibPerGpu": {name: round(value / GIB, 2) for name, value in parts.items()},
        "cacheTokens": held.cache_tokens,
        "fullLengthSequences": size.full_length,
        "speed": times,
        "shares": site.efficiency,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    quote = pool.quote
    price = None
    if quote is not None:
        spec = quote.price.spec
        price = {"dollarsPerGpuHour": spec.dollars_per_gpu_hour, "date": spec.date.isoformat(), "source": quote.price.source, "notes": list(quote.notes)}
    return {
        "cluster": pool.cluster,
        "name": pool.name,
        "accelerator": pool.gpu,
        "capacityType": pool.capacity,
        "nodes": pool.nodes,
        "mostNodes": pool.most_nodes,
        "gpusPerNode": pool.gpus_per_node,
        "usedGpus": pool.used_gpus,
        "price": price,
        "dollarsPerMonth": _rounded(pool.dollars_per_month, 2),
        "mostDollarsPerMonth": _rounded(pool.most_dollars_per_month, 2),
    }


def _left(left: Left) -> dict[str, Any]:
    return {"running": left.running, "moved": left.moved, "unplaced": left.unplaced, "served": _rounded(left.served, 4), "missing": _missing(left)}
