"""`fleet bench gateway`: what the two doors and the stream relay cost a request, and where the time goes.

The same server is asked directly, through the regional gateway alone, through both doors, and through both doors and the
relay. Requests go to the four in turn, so that all of them see the same machine at the same moment. The server is a mock engine
that computes nothing, in a local fleet that runs: what is measured is the way, not the engine. Prints tables, writes JSON.

Added latency is measured at a rate that leaves the machine idle most of the time. The highest rate is the one that is still
served within `_IN_TIME_S` at the 99th percentile; the load generator computes on the same cores, so only the ratio counts.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from components.mesh import routes
from components.mesh.regions import Endpoint
from components.mesh.routes import ModelRoutes
from core.errors import FleetError
from core.exclusive import exclusive
from core.machine import here
from core.progress import Progress
from kube.client import KubeError
from local.gateways import ADDRESS, EGRESS, FRONT_DOOR, REGIONAL_GATEWAY, STREAM_RELAY
from local.host_cluster import HostCluster, UnitError
from operations.drills import load
from operations.drills.analysis import Request, Spread, spread
from operations.drills.faults import mock_engine
from operations.drills.faults.journal import Journal, heal_left_over
from operations.drills.faults.undo import remove_mock_engines_step
from operations.drills.load import Traffic
from operations.stack_file import read_fleet
from operations.status import table
from specs.fleet import FleetSpec
from toolchain import paths

DIRECT, REGIONAL, DOORS, RELAY = "direct", "regional gateway", "both doors", "both doors and relay"

# The goals, for DOORS against DIRECT.
P50_GOAL_S, P99_GOAL_S = 0.001, 0.005

_RESULTS = paths.REPO / "bench-results"
_MODEL = mock_engine.DECLARED
# Requests per second to each of the ways, and tokens of an answer.
_RATE, _TOKENS = 40.0, 16
# The highest rate: where the search begins, how long a rate is tried, and how often the last step is halved.
_FIRST_RATE, _TRY_S, _HALVINGS = 200.0, 2.0, 3
_IN_TIME_S = 0.050
_READY_S = 30.0
_IDLE_S = 4.0

# How often a request of each way passes each process.
PASSES: Mapping[str, Mapping[str, int]] = {
    DIRECT: {"mock-engine": 1},
    REGIONAL: {"mock-engine": 1, REGIONAL_GATEWAY: 1},
    DOORS: {"mock-engine": 1, REGIONAL_GATEWAY: 1, FRONT_DOOR: 1},
    # Into the front door, to the relay, into the front door's egress.
    RELAY: {"mock-engine": 1, REGIONAL_GATEWAY: 1, FRONT_DOOR: 2, STREAM_RELAY: 1},
}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one way at a modest rate, all rounds together; of streams, their first tokens."""

    way: str
    requests: int
    failed: int
    latency: Spread | None

    def added(self, direct: "Latency", which: str) -> float | None:
        """By how much a percentile, `p50` or `p99`, is above that of the direct way."""
        if self.latency is None or direct.latency is None:
            return None
        return getattr(self.latency, which) - getattr(direct.latency, which)


def latencies(records: Sequence[Mapping[str, Any]], ways: Sequence[str], *, stream: bool) -> list[Latency]:
    """From the records of a load whose doors are named after the ways."""
    requests = [Request.from_record(each) for each in records]
    found: list[Latency] = []
    for way in ways:
        mine = [each for each in requests if each.door == way]
        took = spread(each.first_token_latency if stream else each.latency for each in mine)
        found.append(Latency(way=way, requests=len(mine), failed=sum(not each.ok for each in mine), latency=took))
    return found


def in_time(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rate was served: nothing failed, and 99 of 100 answers ended soon after they were due."""
    requests = [Request.from_record(each) for each in records]
    took = spread(each.latency for each in requests)
    return took is not None and all(each.ok for each in requests) and took.p99 <= _IN_TIME_S


def highest(served: Callable[[float], bool], first: float = _FIRST_RATE, halvings: int = _HALVINGS) -> float:
    """The highest rate that is served: doubled until one is not, then the step between halved. 0.0 where not even the first is."""
    good, rate = 0.0, first
    while served(rate):
        good, rate = rate, rate * 2
    if not good:
        return 0.0
    # In the middle of the logarithms: every step is the same share.
    bad = rate
    for _ in range(halvings):
        middle = (good * bad) ** 0.5
        good, bad = (middle, bad) if served(middle) else (good, middle)
    return good


def computing(used: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """Seconds of a processor for one pass of a request through each process. `counts`: requests of each way."""
    passed = {name: sum(PASSES[way].get(name, 0) * count for way, count in counts.items()) for name in used}
    return {name: max(0.0, seconds) / passed[name] for name, seconds in used.items() if passed[name]}


# The ground


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A region with a mock engine behind its gateways, and another one to fail over to, as every model has."""

    own: HostCluster
    clusters: tuple[HostCluster, ...]
    urls: Mapping[str, str]
    processes: Mapping[str, str]
    """Unit of each process that is named in PASSES."""


def lay(fleet: FleetSpec) -> Ground:
    """Raises FleetError where no two local regions run."""
    local = [each for each in fleet.clusters if each.driver.capabilities.on_this_machine]
    if len({each.region for each in local}) < 2:
        raise FleetError("needs a local fleet of two regions", hint="use the stack `local`")
    own, other = local[0], next(each for each in local if each.region != local[0].region)
    clusters = tuple(HostCluster(each.name) for each in (own, other))
    for each in clusters:
        if not each.exists() or not each.alive():
            raise FleetError(f"{each.name} is not running", hint="make up starts it")
    first = clusters[0]
    relay = fleet.failover.streams.relay
    base = f"http://{ADDRESS}:"
    path = f"/{_MODEL}/v1/chat/completions"
    urls = {
        DIRECT: f"{base}{mock_engine.address(first, _MODEL)[1]}/v1/chat/completions",
        REGIONAL: f"{base}{first.port(REGIONAL_GATEWAY)}{path}",
        # What the relay sends to: the same front door without it.
        DOORS: f"{base}{first.port(EGRESS if relay else FRONT_DOOR)}{path}",
        **({RELAY: f"{base}{first.port(FRONT_DOOR)}{path}"} if relay else {}),
    }
    units = {"mock-engine": mock_engine.unit_name(_MODEL), REGIONAL_GATEWAY: REGIONAL_GATEWAY, FRONT_DOOR: FRONT_DOOR}
    return Ground(own=first, clusters=clusters, urls=urls, processes={**units, **({STREAM_RELAY: STREAM_RELAY} if relay else {})})


def put_up(ground: Ground, fleet: FleetSpec) -> None:
    """Starts the mock engines and leads the gateways to them; waits until every way answers."""
    mock_engine.start(ground.clusters, [_MODEL], mock_engine.Engine(token_milliseconds=0, tokens=_TOKENS))
    places = {each.name: each.region for each in fleet.clusters}
    endpoints = [Endpoint(region=places[each.name], address=ADDRESS, port=each.port(REGIONAL_GATEWAY)) for each in ground.clusters]
    way = ModelRoutes(model=_MODEL, endpoints=endpoints, failover=fleet.failover.requests, streams=fleet.failover.streams)
    for each in ground.clusters:
        behind = routes.pods_entry(_MODEL, [mock_engine.address(each, _MODEL)])
        mock_engine.publish(each, [behind, *routes.resolved(way, each.name, places[each.name])])
    deadline = time.monotonic() + _READY_S
    for name, url in ground.urls.items():
        # Also from the right region: a front door asks its own once it has seen it healthy.
        while (told := _ask(url)) not in ({"200"} if name == DIRECT else {f"200 {ground.own.name}"}):
            if time.monotonic() > deadline:
                raise FleetError(f"request path `{name}` does not answer: {url}: {told}", hint=f"see `fleet logs {ground.own.name}`")
            time.sleep(0.1)


def _ask(url: str) -> str:
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    try:
        answer = httpx.post(url, json=body, timeout=5, trust_env=False)
        return f"{answer.status_code} {answer.headers.get(routes.HEADER_CLUSTER, '')}".rstrip()
    except httpx.HTTPError as error:
        return str(error)


# Measuring


def _traffic(urls: Mapping[str, str], rate: float, requests: int, *, stream: bool) -> Traffic:
    """`rate` and `requests`: of all ways together."""
    return Traffic(label="bench", model=_MODEL, targets=list(urls.items()), rate=rate, requests=requests, stream=stream, max_tokens=_TOKENS)


def measure_latency(ground: Ground, rounds: int, seconds: float, *, stream: bool) -> list[list[Latency]]:
    """For each round the latency of each way."""
    ways = list(ground.urls)
    rate = _RATE * len(ways)
    found: list[list[Latency]] = []
    for _ in range(rounds):
        records = load.run([_traffic(ground.urls, rate, round(rate * seconds), stream=stream)])
        found.append(latencies(records, ways, stream=stream))
    return found


def pooled(rounds: Sequence[Sequence[Latency]]) -> list[Latency]:
    """Each way with the middle of its rounds: one round that something else disturbed does not count."""
    return [sorted(of_way, key=lambda each: each.latency.p50 if each.latency else 0.0)[len(of_way) // 2] for of_way in zip(*rounds, strict=True)]


def measure_rate(ground: Ground, way: str, *, stream: bool) -> float:
    urls = {way: ground.urls[way]}

    def served(rate: float) -> bool:
        # Twice: what else the machine does for a moment is not the way's fault.
        return any(in_time(load.run([_traffic(urls, rate, round(rate * _TRY_S), stream=stream)])) for _ in range(2))

    return highest(served)


def _used(ground: Ground) -> dict[str, float]:
    """Seconds of a processor that each process has used since its start."""
    pids = {status.name: status.pid for status in ground.own.status()}
    used: dict[str, float] = {}
    for name, unit in ground.processes.items():
        if pid := pids.get(unit):
            # utime and stime; the name before them is in parentheses and may hold spaces.
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            used[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items() if name in before}


def measure(ground: Ground, progress: Progress, rounds: int, seconds: float) -> dict[str, Any]:
    with progress.stage("at rest"):
        before = _used(ground)
        time.sleep(_IDLE_S)
        resting = {name: value / _IDLE_S for name, value in _difference(_used(ground), before).items()}
    ways = list(ground.urls)
    result: dict[str, Any] = {}
    for kind, stream in (("whole answers", False), ("streams", True)):
        with progress.stage(f"latency, {kind}: {rounds} rounds of {seconds:g} s, {_RATE:g} requests/s on each of {len(ways)} ways"):
            before, begun = _used(ground), time.monotonic()
            measured = measure_latency(ground, rounds, seconds, stream=stream)
            lasted = time.monotonic() - begun
            used = {name: value - resting.get(name, 0.0) * lasted for name, value in _difference(_used(ground), before).items()}
        counts = {way: sum(each.requests for each in of_way) for way, of_way in zip(ways, zip(*measured, strict=True), strict=True)}
        rates: dict[str, float] = {}
        for way in ways:
            with progress.stage(f"highest rate, {kind}, {way}"):
                rates[way] = measure_rate(ground, way, stream=stream)
        result[kind] = {"latency": pooled(measured), "rounds": measured, "rates": rates, "computing": computing(used, counts)}
    return result


# Telling


def rows_of(of_kind: Mapping[str, Any]) -> list[tuple[str, ...]]:
    direct: Latency = of_kind["latency"][0]
    rows: list[tuple[str, ...]] = [("WAY", "P50", "P99", "ADDED P50", "ADDED P99", "FAILED", "HIGHEST RATE", "RATIO")]
    for each in of_kind["latency"]:
        rate, first = of_kind["rates"][each.way], of_kind["rates"][direct.way]
        added = ("", "") if each is direct else (milliseconds(each.added(direct, "p50")), milliseconds(each.added(direct, "p99")))
        known = each.latency
        shown = (milliseconds(known.p50 if known else None), milliseconds(known.p99 if known else None))
        rows.append((each.way, *shown, *added, f"{each.failed} of {each.requests}", f"{rate:,.0f}/s", f"{rate / first:.2f}" if first else "-"))
    return rows


def where_rows(of_kind: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What each further part adds, and what it computes for one pass."""
    parts = {REGIONAL: REGIONAL_GATEWAY, DOORS: FRONT_DOOR, RELAY: f"{STREAM_RELAY} and the way back"}
    process = {REGIONAL: REGIONAL_GATEWAY, DOORS: FRONT_DOOR, RELAY: STREAM_RELAY}
    rows: list[tuple[str, ...]] = [("PART", "ADDS P50", "ADDS P99", "COMPUTES PER PASS")]
    taken: Latency | None = None
    for each in of_kind["latency"]:
        if taken is not None:
            spent = of_kind["computing"].get(process[each.way])
            rows.append((parts[each.way], milliseconds(each.added(taken, "p50")), milliseconds(each.added(taken, "p99")), milliseconds(spent)))
        taken = each
    rows.append(("mock-engine", "", "", milliseconds(of_kind["computing"].get("mock-engine"))))
    return rows


def milliseconds(seconds: float | None) -> str:
    return "not measured" if seconds is None else f"{seconds * 1000:.2f} ms"


def goals(of_kind: Mapping[str, Any]) -> list[tuple[str, float | None, float, bool]]:
    """(name, measured, goal, kept) of both doors against the direct way. What was not measured is not kept."""
    found = {each.way: each for each in of_kind["latency"]}
    rows: list[tuple[str, float | None, float, bool]] = []
    for which, goal in (("p50", P50_GOAL_S), ("p99", P99_GOAL_S)):
        value = found[DOORS].added(found[DIRECT], which)
        rows.append((f"added {which} of {DOORS}", value, goal, value is not None and value <= goal and not found[DOORS].failed))
    return rows


def to_json(result: Mapping[str, Any], machine: str) -> dict[str, Any]:
    def plain(each: Latency) -> dict[str, Any]:
        known = each.latency
        told = None if known is None else {"p50": known.p50, "p95": known.p95, "p99": known.p99, "worst": known.worst}
        return {"way": each.way, "requests": each.requests, "failed": each.failed, "seconds": told}

    return {
        "machine": machine,
        "requestsPerSecondOnEachWay": _RATE,
        "tokens": _TOKENS,
        **{
            kind: {
                "latency": [plain(each) for each in of_kind["latency"]],
                "rounds": [[plain(each) for each in of_round] for of_round in of_kind["rounds"]],
                "highestRates": of_kind["rates"],
                "processorSecondsPerPass": of_kind["computing"],
                "goals": [{"name": name, "seconds": value, "goalSeconds": goal, "kept": kept} for name, value, goal, kept in goals(of_kind)],
            }
            for kind, of_kind in result.items()
        },
    }


def bench(stack: str, rounds: int, seconds: float) -> None:
    """Raises FleetError where a goal is not met, or nothing could be measured."""
    progress = Progress()
    told = str(here())
    try:
        fleet = read_fleet(stack)
        with exclusive(paths.STATE / "up.lock", "fleet bench gateway"):
            heal_left_over(progress.say)
            ground = lay(fleet)
            journal = Journal()
            step = remove_mock_engines_step(ground.clusters)
            journal.note(step)
            try:
                with progress.stage("mock engines"):
                    put_up(ground, fleet)
                result = measure(ground, progress, rounds, seconds)
            finally:
                journal.undo([step])
    except (KubeError, UnitError) as error:
        raise FleetError(str(error)) from None
    print(f"{told}\n")
    for kind, of_kind in result.items():
        print(f"{kind}{': time to the first token' if kind == 'streams' else ''}\n{table(rows_of(of_kind))}\n\n{table(where_rows(of_kind))}\n")
    judged = [(kind, *goal) for kind, of_kind in result.items() for goal in goals(of_kind)]
    rows: list[tuple[str, ...]] = [("GOAL", "OF", "MEASURED", "AT MOST", "")]
    rows += [(name, kind, milliseconds(value), milliseconds(goal), "kept" if kept else "NOT KEPT") for kind, name, value, goal, kept in judged]
    print(table(rows))
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "gateway.json").write_text(json.dumps(to_json(result, told), indent=2))
    print(f"JSON: {(_RESULTS / 'gateway.json').relative_to(paths.REPO)}")
    if missed := [f"{name} ({kind})" for kind, name, _, _, kept in judged if not kept]:
        raise FleetError(f"goals missed: {', '.join(missed)}")
