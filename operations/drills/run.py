"""A drill from its first request to its last: load, fault, mending, and the result. What it means is analysis.py.

Whatever happens in between, what was broken is mended before this returns or raises; what cannot be mended stays noted for
the next `fleet drill` or `fleet up` (operations/drills/faults/local.py).
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from components.mesh.regions import FLEET_HOST, Endpoint
from components.mesh.routes import ModelRoutes, pods_entry, resolved
from core.errors import FleetError
from core.interrupts import undisturbed
from core.machine import here
from kube.client import Kube, KubeError
from local.gateways import ADDRESS, FRONT_DOOR, REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from local.node_agent import mesh as node_mesh
from operations import status
from operations.drills import ground as grounds
from operations.drills import published
from operations.drills.cases import TAIL_S, Doors, Scene, shortest, timing
from operations.drills.faults import local as faults
from operations.drills.faults import mock_engine
from operations.drills.faults.local import Journal
from operations.drills.ground import Ground
from operations.drills.load import Load, Record, Traffic, shifted
from operations.drills.load import run as load_run
from operations.drills.result import DrillResult, LoadPlan
from operations.drills.watch import Watch
from operations.token import headers
from specs import labels
from specs.accelerators import CPU

MAIN, PUBLISHED = "main", "published"

# Per second, where nobody chose. vLLM on CPU is tried with less and less until the machine serves it.
_STAND_IN_RATE, _STREAM_RATE, _OVERLOAD_RATE, _VLLM_RATE, _LEAST_RATE = 100.0, 25.0, 20.0, 50.0, 2.0
_VLLM_SECONDS = 90.0
_TIMEOUT_S = 20.0
_CALIBRATION_S = 4.0
# Tokens of an answer, and how long a stand-in takes for one: a stream must be under way when the fault comes.
_TOKENS, _STREAM_TOKENS = 8, 64
_TOKEN_MS, _STREAM_TOKEN_MS, _OVERLOAD_TOKEN_MS = 5.0, 20.0, 25.0
# Requests of the drill's three loads in `overload`, as multiples of the rate: in all they need 1, 2 and 4 times what the
# first needs, and a region takes 1.5 times of that.
_SURGES = (1.0, 2.0)
_ROOM = 1.5

_SETTLED_S = 420.0
_PUBLISHED_S = 30.0
_HEALTHY_S = 240.0
_REPLACED_S = 420.0
_POLL_S = 0.05
_SLOW_POLL_S = 0.5
# The load may have to go on until a region is back.
_LONGEST_LOAD_S = 3600.0

Say = Callable[[str], None]


@dataclass
class Clock:
    """Marks on the clock of the load."""

    load: Load
    marks: dict[str, float] = field(default_factory=dict[str, float])

    def mark(self, name: str) -> None:
        self.marks.setdefault(name, round(self.load.now(), 6))


def settle(outputs: Mapping[str, Any], say: Say) -> None:
    """Waits until every model is ready as declared: a drill before may have left some to start. Raises FleetError."""
    deadline = time.monotonic() + _SETTLED_S
    told: list[str] = []
    while missing := status.gather(dict(outputs)).missing():
        if missing != told:
            say(f"waiting for {'; '.join(missing)}")
            told = missing
        if time.monotonic() > deadline:
            raise FleetError(f"not ready after {_SETTLED_S:.0f} s: {'; '.join(missing)}", hint="make status, make up")
        time.sleep(_SLOW_POLL_S)


def drill(ground: Ground, outputs: Mapping[str, Any], number: int, say: Say) -> list[DrillResult]:
    """One run of one case: a result for each load. Raises FleetError, and FaultError where something is not mended."""
    journal = Journal()
    if all(each.driver.kind == "local" for each in ground.fleet.clusters):
        settle(outputs, say)
    grounds.check_state(ground, status.gather(dict(outputs)))
    machine = str(here())
    try:
        if ground.stand_ins:
            _put_stand_ins(ground, journal, say)
        models = [ground.path, *([mock_engine.PUBLISHED] if ground.options.baseline else [])]
        grounds.check_doors(ground, models)
        rate, waited = calibrate(ground, say)
        stage = Stage(ground, dict(outputs), journal, rate, say)
        records, clock, watch = stage.play()
        return [_result(ground, label, records[label], clock, watch, rate, waited, machine, number) for label in records]
    finally:
        if journal.steps():
            with undisturbed(say):
                journal.undo(say=lambda told: say(f"  {told}"))


# Stand-ins


def first_rate(ground: Ground) -> float:
    """Requests per second, of all loads together, that are tried first."""
    if ground.options.rate is not None:
        return ground.options.rate
    if not ground.stand_ins:
        return _VLLM_RATE
    if ground.case.name == "overload":
        return _OVERLOAD_RATE
    return _STREAM_RATE if ground.options.stream else _STAND_IN_RATE


def engine(ground: Ground, rate: float) -> mock_engine.Engine:
    """How the stand-ins of a drill compute, given the requests per second."""
    stream = ground.options.stream
    tokens = ground.options.tokens or (_STREAM_TOKENS if stream else _TOKENS)
    stall = ground.fleet.failover.requests.stall_seconds
    if ground.case.name == "overload":
        seconds = tokens * _OVERLOAD_TOKEN_MS / 1000
        return mock_engine.Engine(token_milliseconds=_OVERLOAD_TOKEN_MS, tokens=tokens, capacity=max(2, math.ceil(_ROOM * rate * seconds)), stall_seconds=stall)
    return mock_engine.Engine(token_milliseconds=_STREAM_TOKEN_MS if stream else _TOKEN_MS, tokens=tokens, stall_seconds=stall)


def objects(ground: Ground, cluster: str) -> list[dict[str, Any]]:
    """What the member `cluster` holds of the models of the drill."""
    member, region = HostCluster(cluster), ground.regions[cluster]
    endpoints = [Endpoint(region=ground.regions[each], address=ADDRESS, port=HostCluster(each).port(REGIONAL_GATEWAY)) for each in ground.serving]
    routes = ModelRoutes(model=mock_engine.DECLARED, endpoints=endpoints, failover=ground.fleet.failover.requests, streams=ground.fleet.failover.streams)
    # A door that is in none of the regions asks them in the model's order.
    own = region if not ground.ask_victim_first or cluster == ground.victim else ""
    found = [pods_entry(mock_engine.DECLARED, [mock_engine.address(member, mock_engine.DECLARED)]), *resolved(routes, cluster, own)]
    if ground.options.baseline:
        found += [
            pods_entry(mock_engine.PUBLISHED, [mock_engine.address(member, mock_engine.PUBLISHED)]),
            *published.objects(mock_engine.PUBLISHED, endpoints, cluster, region),
        ]
    return found


def _put_stand_ins(ground: Ground, journal: Journal, say: Say) -> None:
    """In every region, also in those that may not serve the model: that nothing goes there must not be for want of a server."""
    members = grounds.members(ground)
    journal.note(faults.remove_stand_ins_step(members))
    models = [mock_engine.DECLARED, *([mock_engine.PUBLISHED] if ground.options.baseline else [])]
    mock_engine.start(members, models, engine(ground, first_rate(ground)))
    for each in members:
        mock_engine.publish(each, objects(ground, each.name))
    say(f"stand-ins in {', '.join(each.name for each in members)}")
    deadline = time.monotonic() + _PUBLISHED_S
    waiting = [(door, model) for model in models for door in ground.doors]
    while waiting:
        waiting = [(door, model) for door, model in waiting if _first_answer(ground, door, model) != _first_of(ground, door)]
        if time.monotonic() > deadline:
            door, model = waiting[0]
            raise FleetError(f"{model} is not answered by {_first_of(ground, door)} through the front door of {door} after {_PUBLISHED_S:.0f} s")
        time.sleep(_POLL_S)


def _first_of(ground: Ground, door: str) -> str:
    """The cluster that a door asks first."""
    own = [each for each in ground.serving if ground.regions[each] == ground.regions[door]]
    return own[0] if own and not ground.ask_victim_first else ground.serving[0]


def _first_answer(ground: Ground, door: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.post(ground.url(door, model), json=body, headers=headers(ground.options.token), timeout=5, trust_env=False)
        if answer.status_code == 200:
            return answer.headers.get("x-fleet-cluster", "")
    return ""


# Load


def _traffic(ground: Ground, label: str, rate: float, requests: int) -> Traffic:
    model = mock_engine.PUBLISHED if label == PUBLISHED else ground.path
    stream = ground.options.stream
    return Traffic(
        label=label,
        model=model,
        targets=[(door, ground.url(door, model)) for door in ground.doors],
        rate=rate,
        requests=requests,
        stream=stream,
        max_tokens=ground.options.tokens or (_STREAM_TOKENS if stream else _TOKENS),
        timeout_seconds=_TIMEOUT_S,
        switch_doors=ground.case.doors is Doors.VICTIM_FIRST,
        token=ground.options.token,
    )


def _labels(ground: Ground) -> list[str]:
    return [MAIN, PUBLISHED] if ground.options.baseline else [MAIN]


def keeps_up(records: Sequence[Record]) -> str:
    """Why the machine does not serve these requests as they come; empty where it does."""
    bad = [each for each in records if each["outcome"] != "ok"]
    if bad:
        return f"{len(bad)} of {len(records)} requests failed: {bad[0]['outcome']} {bad[0].get('error') or bad[0].get('status') or ''}".rstrip()
    took = [each["end"] - each["due"] for each in records]
    half = len(took) // 2
    before, after = sorted(took[:half]), sorted(took[half:])
    if before and after[len(after) // 2] > 2 * before[half // 2] + 0.05:
        return f"answers take longer and longer: {before[half // 2] * 1000:.0f} ms, then {after[len(after) // 2] * 1000:.0f} ms"
    return ""


def calibrate(ground: Ground, say: Say) -> tuple[float, float]:
    """(requests per second, the longest wait for a first token without a fault). Raises FleetError where it is too much."""
    # The room of stand-ins is made for their rate.
    fixed = ground.options.rate is not None or ground.case.name == "overload"
    rate = first_rate(ground)
    while True:
        # The first moments of a process say nothing of the later ones.
        each_rate = rate / len(_labels(ground))
        count = max(6, round(each_rate * _CALIBRATION_S))
        plans = [_traffic(ground, label, each_rate, count) for label in _labels(ground)]
        load_run([replace(each, requests=max(6, count // 4)) for each in plans])
        records = [each for each in load_run(plans) if each["label"] == MAIN]
        why = keeps_up(records)
        if not why:
            waits = sorted(each["firstToken"] - each["due"] for each in records if each["firstToken"] is not None)
            say(f"{rate:g} requests/s without a fault: median {waits[len(waits) // 2] * 1000:.0f} ms, worst {waits[-1] * 1000:.0f} ms")
            return rate, waits[-1]
        if fixed or rate / 2 < _LEAST_RATE:
            raise FleetError(f"this machine does not serve {rate:g} requests/s without a fault: {why}", hint=f"--rate {max(1, round(rate / 2))}")
        say(f"{rate:g} requests/s are too many: {why}")
        rate /= 2


def planned(ground: Ground, rate: float) -> int:
    """Requests of each load, so that every part has its time."""
    least = math.ceil(shortest(ground.case) * rate)
    if ground.options.requests is None:
        return max(least, ground.case.requests if ground.stand_ins else round(_VLLM_SECONDS * rate))
    return max(least, ground.options.requests)


# The run itself


class Stage:
    """What is needed while it happens."""

    def __init__(self, ground: Ground, outputs: dict[str, Any], journal: Journal, rate: float, say: Say) -> None:
        self.ground, self.outputs, self.journal, self.say = ground, outputs, journal, say
        self.rate = rate
        # Two loads share the rate.
        self.each_rate = rate / len(_labels(ground))
        self.requests = planned(ground, self.each_rate)
        self.times = timing(ground.case, self.requests / self.each_rate)
        # Now: asked for later, a cluster that was removed meanwhile would get a folder again.
        self.ready_urls = ready_urls(ground)

    def play(self) -> tuple[dict[str, list[Record]], Clock, Watch]:
        ground = self.ground
        most = round(_LONGEST_LOAD_S * self.each_rate)
        hosts = {MAIN: FLEET_HOST.format(model=ground.path), PUBLISHED: FLEET_HOST.format(model=mock_engine.PUBLISHED)}
        ports = {HostCluster(each).port(REGIONAL_GATEWAY): each for each in ground.serving if HostCluster(each).exists()}
        watched = [each.name for each in grounds.members(ground) if each.name in ground.doors]
        with Load([_traffic(ground, label, self.each_rate, most) for label in _labels(ground)]) as load:
            clock = Clock(load)
            with Watch(watched, {label: hosts[label] for label in _labels(ground)}, ports, load.now) as watch:
                self.say(f"load began: {self.rate:g} requests/s, fault after {self.times.fault:.0f} s")
                load.wait(self.times.fault - 1)
                surges = self.surge(load, clock) if ground.case.fault is None else self.harm(load, clock)
                load.wait(max(self.times.end, clock.marks.get("healthy", clock.marks["heal"]) + TAIL_S))
                clock.mark("end")
                records = load.finish(_TIMEOUT_S + 10)
        by_label: dict[str, list[Record]] = {label: [] for label in _labels(ground)}
        for each in records:
            by_label[each["label"]].append(each)
        by_label[MAIN] = sorted([*by_label[MAIN], *surges], key=lambda each: each["due"])
        return by_label, clock, watch

    def harm(self, load: Load, clock: Clock) -> list[Record]:
        """Makes the fault, lets it last, and mends it."""
        ground, times = self.ground, self.times
        assert ground.case.fault is not None
        fault = ground.case.fault(self._scene())
        mender: threading.Thread | None = None
        failed: list[BaseException] = []

        def mend() -> None:
            # Told by the thread that waits for it.
            try:
                fault.heal(lambda told: self.say(f"  {told}"))
            except Exception as error:  # noqa: BLE001
                failed.append(error)

        try:
            fault.prepare(clock.mark)
            load.wait(times.fault)
            clock.mark("fault")
            fault.inject()
            if ground.case.name in ("all-down", "residency"):
                clock.mark("all-down")
            self.say(f"done: {grounds.what(ground)}")
            if ground.case.name == "replace":
                self._await_replaced(load, clock)
            else:
                fault.last(times.heal - load.now(), clock.mark)
            clock.mark("heal")
            mender = threading.Thread(target=mend, daemon=True)
            mender.start()
            self._await_healthy(load, clock, failed)
            self.say("can serve again")
        finally:
            with undisturbed(self.say):
                if mender is not None:
                    mender.join()
                if mender is None or failed:
                    fault.heal(lambda told: self.say(f"  {told}"))
        return []

    def _scene(self) -> Scene:
        ground = self.ground
        return Scene(
            journal=self.journal,
            victim=HostCluster(ground.victim),
            members=grounds.members(ground),
            serving=tuple(HostCluster(each) for each in ground.serving),
            hub=HostCluster(ground.fleet.hub.name),
            model="" if ground.stand_ins else ground.model.name,
        )

    def _await_healthy(self, load: Load, clock: Clock, failed: Sequence[BaseException]) -> None:
        """Until what was harmed can serve, asked directly. `failed`: the mending has failed, so there is nothing to wait for."""
        deadline = time.monotonic() + _HEALTHY_S
        while not all(_ok(url) for url in self.ready_urls):
            if failed:
                return
            if time.monotonic() > deadline:
                raise FleetError(f"{self.ground.victim} cannot serve {self.ground.path} {_HEALTHY_S:.0f} s after the mending began")
            load.wait(load.now() + _POLL_S)
        clock.mark("healthy")

    # Overload

    def surge(self, load: Load, clock: Clock) -> list[Record]:
        """Two further loads, one after the other, until the time of the mending; their records on the clock of the first."""
        times = self.times
        middle = times.fault + (times.heal - times.fault) / 2
        most = round(_LONGEST_LOAD_S * self.each_rate)
        first, second = ([_traffic(self.ground, f"surge-{place}", share * self.each_rate, most)] for place, share in enumerate(_SURGES, start=1))
        load.wait(times.fault)
        clock.mark("fault")
        with Load(first) as one:
            self.say("more than one region takes")
            load.wait(middle)
            clock.mark("all-down")
            with Load(second) as two:
                self.say("more than all regions take")
                load.wait(times.heal)
                clock.mark("heal")
                records = [(one.begin, one.finish(_TIMEOUT_S + 10)), (two.begin, two.finish(_TIMEOUT_S + 10))]
        return [each for begin, told in records for each in shifted(told, begin - load.begin)]

    # Replacement

    def _await_replaced(self, load: Load, clock: Clock) -> None:
        """Until the replicas of the lost region are ready elsewhere, and hub and mesh tell the same of it."""
        deadline = time.monotonic() + _REPLACED_S
        while "agreed" not in clock.marks:
            load.wait(load.now() + _SLOW_POLL_S)
            state = status.gather(self.outputs)
            if state.hub.members.get(self.ground.victim) is False:
                clock.mark("lost")
            if replaced(state, self.ground):
                clock.mark("replaced")
                if agree(state, self.ground, _in_mesh(self.ground)):
                    clock.mark("agreed")
            if time.monotonic() > deadline:
                self.say(f"{self.ground.model.name} is not replaced {_REPLACED_S:.0f} s after the loss of {self.ground.victim}")
                return


def ready_urls(ground: Ground) -> list[str]:
    """Where what is harmed says by itself that it can serve."""
    if ground.case.fault is None:
        return []
    if ground.case.doors is Doors.VICTIM_FIRST:
        return [f"http://{ADDRESS}:{HostCluster(ground.victim).port(FRONT_DOOR)}/{ground.path}/v1/models"]
    asked = ground.serving if ground.case.name == "all-down" else (ground.victim,)
    return [f"http://{ADDRESS}:{HostCluster(each).port(REGIONAL_GATEWAY)}/{ground.path}/fleet/ready" for each in asked]


def replaced(state: status.FleetState, ground: Ground) -> bool:
    """The hub has the model elsewhere and Ready, and every replica is ready there."""
    name = ground.model.name
    scheduled = state.hub.scheduled.get(name, {})
    there = [cluster for cluster, count in scheduled.items() if count and cluster != ground.victim]
    ready = sum(state.clusters[each].models[name].ready for each in there if name in state.clusters[each].models)
    return not scheduled.get(ground.victim) and bool(there) and ready >= ground.model.replicas and state.hub.ready.get(name, False)


def agree(state: status.FleetState, ground: Ground, in_mesh: Mapping[str, int] | None) -> bool:
    """Where the hub has replicas, as many are ready, and where the mesh knows pods there are as many; nowhere else are any.

    in_mesh: endpoints by living cluster, None where pods are simulated and the mesh has none.
    """
    name = ground.model.name
    scheduled = {cluster: count for cluster, count in state.hub.scheduled.get(name, {}).items() if count}
    ready = {each.name: each.models[name].ready for each in state.clusters.values() if not each.error and name in each.models and each.models[name].ready}
    return scheduled == ready and (in_mesh is None or {cluster: count for cluster, count in in_mesh.items() if count} == ready)


def _in_mesh(ground: Ground) -> Mapping[str, int] | None:
    if ground.model.accelerator.type != CPU:
        return None
    found: dict[str, int] = {}
    selector = f"serving.kserve.io/inferenceservice={ground.model.name}"
    for each in grounds.members(ground):
        with contextlib.suppress(KubeError), Kube.from_kubeconfig(each.kubeconfig, timeout=2) as api:
            found[each.name] = len(api.list(node_mesh.API_VERSION, node_mesh.KIND, labels.NAMESPACE_MODELS, label_selector=selector))
    return found


def _ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def longest_wait(records: Sequence[Record], fault: float, before: float) -> float:
    """For a first token, of requests that were answered before the fault, and of those `before` this load."""
    return max([before, *(each["firstToken"] - each["due"] for each in records if each["firstToken"] is not None and each["end"] <= fault)])


def _result(
    ground: Ground, label: str, records: Sequence[Record], clock: Clock, watch: Watch, rate: float, waited: float, machine: str, number: int
) -> DrillResult:
    each_rate = rate / len(_labels(ground))
    declared = label == MAIN
    traffic = _traffic(ground, label, each_rate, planned(ground, each_rate))
    engine_told = engine(ground, rate)
    behind = [
        f"A stand-in takes {engine_told.token_milliseconds:g} ms per token"
        + (f" and {engine_told.capacity} requests at once." if engine_told.capacity else ".")
    ]
    return DrillResult(
        case=ground.case.name,
        stack=ground.options.stack,
        victim="" if ground.case.name == "all-down" else ground.victim,
        model=ground.model.name,
        clusters=ground.serving,
        regions=ground.regions,
        backend="stand-in" if ground.stand_ins else "vllm",
        settings="declared" if declared else "published",
        load=LoadPlan(
            doors=ground.doors,
            requests=traffic.requests,
            rate=each_rate,
            stream=traffic.stream,
            max_tokens=traffic.max_tokens,
            timeout_seconds=traffic.timeout_seconds,
            switch_doors=traffic.switch_doors,
        ),
        started=clock.load.begin,
        marks=clock.marks,
        requests=records,
        samples=watch.samples[label],
        computed=grounds.computed(ground, each_rate, longest_wait(records, clock.marks["fault"], waited)) if declared else {},
        objectives=grounds.objectives(ground.model) if declared else {},
        resume=declared and ground.fleet.failover.streams.resume,
        run=number,
        machine=machine,
        notes=[*ground.notes, *(behind if ground.stand_ins else [])],
    )
