"""What a failover of each model costs at worst, from its stack file: the worst case that objectives are checked against.

The arithmetic is planning/failover_time.py; this module hands it the numbers of a fleet and shows what comes back. It
declares no resource.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from planning import failover_time
from planning.failover_time import Capacity, Case, Parts, Requests, retry_attempts, total
from specs.fleet import FleetSpec
from specs.models import ModelSpec

# 0.405 is stored as a little more or less; that is no further millisecond.
_HAIR = 1e-6

# Faults by which a region dies. An engine that hangs costs more, and its region lives.
DEATHS = ("kill", "hang", "blackhole")

# Which fields to change where a part is too long. Parts that are allowances have none.
KNOBS: dict[str, tuple[str, ...]] = {
    "notice": ("failover.requests.roundTripMilliseconds",),
    "ping": ("failover.requests.pingIntervalMilliseconds", "failover.requests.pingTimeoutMilliseconds"),
    "connect": ("failover.requests.connectTimeoutMilliseconds", "failover.requests.pingTimeoutMilliseconds"),
    "waited": ("objectives.timeToFirstTokenSeconds",),
    "backoff": ("failover.requests.backoffMilliseconds",),
    "connection": ("failover.requests.roundTripMilliseconds",),
    "way": ("failover.requests.roundTripMilliseconds",),
    "status": ("failover.capacity.statusIntervalSeconds",),
    "threshold": ("failover.capacity.failureThresholdSeconds", "failover.capacity.statusIntervalSeconds"),
    "toleration": ("placement.evictAfterSeconds",),
    "eviction": ("failover.capacity.evictionsPerSecond",),
    "load": ("runtime.loadSeconds",),
}


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The worst cases of one model."""

    model: str
    cases: Mapping[str, Case]
    killed: Parts
    """Until lost replicas are ready elsewhere, where the region refuses connections."""
    silent: Parts
    """The same where it does not answer, or where it is cut off."""
    load_known: bool
    """Whether these two hold the time to load the model."""
    movable: bool
    """Whether there is another region to move replicas to."""
    streams: str
    """What becomes of an answer that has begun when its region dies."""

    @property
    def worst_death(self) -> Case | None:
        """The death of a region that delays requests most; None where it loses them."""
        deaths = [self.cases[name] for name in DEATHS]
        return None if any(each.added is None for each in deaths) else max(deaths, key=lambda each: total(each.added or ()))

    @property
    def worst_restore(self) -> Parts:
        return max(self.killed, self.silent, key=total)


def requests(fleet: FleetSpec, model: ModelSpec) -> Requests:
    """The numbers of one model's requests. A drill may set `waited` and `gap` to those of its own load."""
    regions = len({fleet.by_name[name].region for name in model.placement.weights if name in fleet.by_name})
    waited = model.objectives.time_to_first_token_seconds or 0.0
    return Requests(spec=fleet.failover.requests, regions=regions, attempts=retry_attempts(regions) + 1, waited=waited)


def capacity(fleet: FleetSpec, model: ModelSpec) -> Capacity:
    """The numbers of one model's replicas."""
    spec = fleet.failover.capacity
    return Capacity(spec=spec, evict_after=model.placement.evict_after(spec), models=len(fleet.models), load=model.runtime.load_seconds)


def promise(fleet: FleetSpec, model: ModelSpec) -> Promise:
    numbers, times = capacity(fleet, model), requests(fleet, model)
    return Promise(
        model=model.name,
        cases=failover_time.cases(times),
        killed=failover_time.restore(numbers, silent=False),
        silent=failover_time.restore(numbers, silent=True),
        load_known=numbers.load is not None,
        movable=times.regions > 1,
        streams=_streams(fleet, elsewhere=times.regions > 1),
    )


def _streams(fleet: FleetSpec, *, elsewhere: bool) -> str:
    streams = fleet.failover.streams
    if not streams.relay:
        return "end with a broken connection"
    return "go on in another region, or end with an error event" if streams.resume and elsewhere else "end with an error event"


def describe(promise: Promise) -> str:
    """One line for `pulumi preview`, which names the model beside it."""
    deaths = [(name, promise.cases[name]) for name in (*DEATHS, "engine-hang")]
    added = ", ".join(f"{name} {_time(total(case.added))}" for name, case in deaths if case.added is not None)
    first = f"requests come later by at most: {added}" if added else "requests fail while its only region is away"
    return f"failover: {first}; {_restored(promise)}; streams {promise.streams}"


def _restored(promise: Promise) -> str:
    if not promise.movable:
        return "its replicas can move nowhere"
    load = "" if promise.load_known else " and the time to load it (runtime.loadSeconds is not declared)"
    return f"replicas elsewhere after {_time(total(promise.killed))} (silent region: {_time(total(promise.silent))}){load}"


def output(promise: Promise) -> dict[str, Any]:
    """The same for the stack's output `failover`, in seconds: null where nothing bounds a time, left out where none passes."""
    restore: dict[str, Any] | None = None
    if promise.movable:
        parts = {"killed": _named(promise.killed), "silent": _named(promise.silent)}
        restore = {"killedSeconds": _seconds(promise.killed), "silentSeconds": _seconds(promise.silent), "loadKnown": promise.load_known, "parts": parts}
    return {"cases": {name: _case(case) for name, case in promise.cases.items()}, "restore": restore, "streams": promise.streams}


def _case(case: Case) -> dict[str, Any]:
    times = {"addedSeconds": case.added, "leftSeconds": case.left, "backSeconds": case.back, "refusedSeconds": case.refused}
    shown: dict[str, Any] = {name: _seconds(parts) for name, parts in times.items() if parts != ()}
    if case.added:
        shown["addedParts"] = _named(case.added)
    return {**shown, "failed": case.failed, "fails": case.fails}


def _seconds(parts: Parts | None) -> float | None:
    return None if parts is None else round(total(parts), 3)


def _named(parts: Parts) -> dict[str, float]:
    """Seconds by name of the part; `notice` may come twice. Parts that take no time are left out."""
    names = dict.fromkeys(each.name for each in parts if each.seconds)
    return {name: round(sum(each.seconds for each in parts if each.name == name), 3) for name in names}


def rounded_up(seconds: float) -> str:
    """Rounded up: a bound that is shown must not be shorter than the computed one."""
    digits = 3 if seconds < 1 else 1 if seconds < 10 else 0
    return f"{math.ceil(seconds * 10**digits - _HAIR) / 10**digits:g}"


def _time(seconds: float) -> str:
    return f"{float(rounded_up(seconds)) * 1000:g} ms" if seconds < 1 else f"{rounded_up(seconds)} s"


def table(promises: Iterable[Promise]) -> str:
    """Markdown: for each model the cases and their parts."""
    return "\n".join(line for each in promises for line in _tables(each))


def _tables(promise: Promise) -> Iterator[str]:
    yield f"#### {promise.model}\n"
    yield "| case | later by | left after | back after | refused after | failed requests |\n|---|---|---|---|---|---|"
    for name, case in promise.cases.items():
        cells = (_cell(case.added), _cell(case.left), _cell(case.back), _cell(case.refused))
        yield f"| {name} | {' | '.join(cells)} | {case.fails} |"
    yield ""
    if not promise.movable:
        yield "Its replicas can move nowhere.\n"
        return
    yield "| replicas elsewhere | region killed | region silent | by |\n|---|---|---|---|"
    for dead, silent in zip(promise.killed, promise.silent, strict=True):
        why = dead.why if dead.why == silent.why else f"{dead.why}; silent: {silent.why}"
        yield f"| {dead.name} | {_time(dead.seconds)} | {_time(silent.seconds)} | {why} |"
    yield f"| **sum** | **{_time(total(promise.killed))}** | **{_time(total(promise.silent))}** | {'' if promise.load_known else 'without the load'} |\n"


def _cell(parts: Parts | None) -> str:
    return "no bound" if parts is None else _time(total(parts)) if parts else ""
