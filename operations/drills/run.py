"""A drill from its first request to its last: load, fault, recovery, and the result. What it means is analysis.py.

Whatever happens in between, what was broken is undone before this returns or raises; what cannot be undone stays noted for the next
`fleet drill` or `fleet up` (faults/journal.py).
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from components.mesh.regions import FLEET_HOST
from components.mesh.routes import READY
from core.errors import FleetError
from core.interrupts import undisturbed
from core.machine import here
from local.gateways import ADDRESS, FRONT_DOOR, REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from operations import status
from operations.drills import mocks, preflight
from operations.drills.case import TAIL_S, Harm, Live, Plan, Say, timing
from operations.drills.faults import make, mock_engine
from operations.drills.faults.fault import Scene
from operations.drills.faults.journal import Journal
from operations.drills.load import TIMEOUT_S, Clock, Load, Record
from operations.drills.plan import computed, harmed, members, objectives
from operations.drills.result import DrillResult, LoadPlan
from operations.drills.traffic import MAIN, PUBLISHED, calibrate, labels, planned, traffic
from operations.drills.watch import Watch

_SETTLED_S = 420.0
_HEALTHY_S = 240.0
_POLL_S = 0.05
_SLOW_POLL_S = 0.5
# The load may have to go on until a region is back.
_LONGEST_LOAD_S = 3600.0


def drill(plan: Plan, outputs: Mapping[str, Any], number: int, say: Say) -> list[DrillResult]:
    """One run of one case: a result for each load. Raises FleetError, and FaultError where something could not be undone."""
    journal = Journal()
    if all(each.driver.capabilities.on_this_machine for each in plan.fleet.clusters):
        # A drill before may have left some to start.
        status.await_models(dict(outputs), say, _SETTLED_S, "make status, make up")
    preflight.check_state(plan, status.gather(dict(outputs)))
    machine = str(here())
    try:
        if plan.mocked:
            mocks.start(plan, journal, say)
        models = [plan.path, *([mock_engine.PUBLISHED] if plan.options.baseline else [])]
        preflight.check_doors(plan, models)
        rate, waited = calibrate(plan, say)
        stage = Stage(plan, dict(outputs), journal, rate, say)
        records, clock, watch = stage.play()
        return [_result(plan, label, records[label], clock, watch, rate, waited, machine, number) for label in records]
    finally:
        if journal.steps():
            with undisturbed(say):
                journal.undo(say=lambda told: say(f"  {told}"))


class Stage:
    """What is needed while it happens."""

    def __init__(self, plan: Plan, outputs: dict[str, Any], journal: Journal, rate: float, say: Say) -> None:
        self.plan, self.outputs, self.journal, self.say = plan, outputs, journal, say
        self.rate = rate
        # Two loads share the rate.
        self.each_rate = rate / len(labels(plan))
        self.requests = planned(plan, self.each_rate)
        self.times = timing(plan.case, self.requests / self.each_rate)
        # Now: asked for later, a cluster that was removed meanwhile would get a folder again.
        self.ready_urls = ready_urls(plan)

    def play(self) -> tuple[dict[str, list[Record]], Clock, Watch]:
        plan = self.plan
        most = round(_LONGEST_LOAD_S * self.each_rate)
        hosts = {MAIN: FLEET_HOST.format(model=plan.path), PUBLISHED: FLEET_HOST.format(model=mock_engine.PUBLISHED)}
        ports = {HostCluster(each).port(REGIONAL_GATEWAY): each for each in plan.serving if HostCluster(each).exists()}
        watched = [each.name for each in members(plan) if each.name in plan.doors]
        with Load([traffic(plan, label, self.each_rate, most) for label in labels(plan)]) as load:
            clock = Clock(load)
            with Watch(watched, {label: hosts[label] for label in labels(plan)}, ports, load.now) as watch:
                self.say(f"load began: {self.rate:g} requests/s, fault after {self.times.fault:.0f} s")
                load.wait(self.times.fault - 1)
                surges = plan.case.surge(self._live(load, clock)) if plan.case.surge else self.harm(load, clock)
                load.wait(max(self.times.end, clock.marks.get("healthy", clock.marks["heal"]) + TAIL_S))
                clock.mark("end")
                records = load.finish(TIMEOUT_S + 10)
        by_label: dict[str, list[Record]] = {label: [] for label in labels(plan)}
        for each in records:
            by_label[each["label"]].append(each)
        by_label[MAIN] = sorted([*by_label[MAIN], *surges], key=lambda each: each["due"])
        return by_label, clock, watch

    def harm(self, load: Load, clock: Clock) -> list[Record]:
        """Makes the fault, lets it last, and undoes it."""
        plan, times = self.plan, self.times
        assert plan.case.fault is not None
        fault = make(plan.fleet.by_name[plan.victim].driver, plan.case.fault, self._scene())
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
            if plan.case.nobody_left:
                clock.mark("all-down")
            self.say(f"done: {harmed(plan)}")
            if plan.case.during:
                plan.case.during(self._live(load, clock))
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
        plan = self.plan
        return Scene(
            journal=self.journal,
            victim=HostCluster(plan.victim),
            members=members(plan),
            serving=tuple(HostCluster(each) for each in plan.serving),
            hub=HostCluster(plan.fleet.hub.name),
            model="" if plan.mocked else plan.model.name,
        )

    def _live(self, load: Load, clock: Clock) -> Live:
        most = round(_LONGEST_LOAD_S * self.each_rate)

        def further(label: str, share: float) -> Load:
            return Load([traffic(self.plan, label, share * self.each_rate, most)])

        return Live(plan=self.plan, outputs=self.outputs, load=load, clock=clock, times=self.times, say=self.say, further=further)

    def _await_healthy(self, load: Load, clock: Clock, failed: Sequence[BaseException]) -> None:
        """Until what was harmed can serve, asked directly. `failed`: the undo has failed, so there is nothing to wait for."""
        deadline = time.monotonic() + _HEALTHY_S
        while not all(_ok(url) for url in self.ready_urls):
            if failed:
                return
            if time.monotonic() > deadline:
                raise FleetError(f"{self.plan.victim} cannot serve {self.plan.path} {_HEALTHY_S:.0f} s after the recovery began")
            load.wait(load.now() + _POLL_S)
        clock.mark("healthy")


def ready_urls(plan: Plan) -> list[str]:
    """Where what is harmed says by itself that it can serve."""
    if plan.case.harm is Harm.FRONT_DOOR:
        return [f"http://{ADDRESS}:{HostCluster(plan.victim).port(FRONT_DOOR)}/{plan.path}/v1/models"]
    return [f"http://{ADDRESS}:{HostCluster(each).port(REGIONAL_GATEWAY)}/{plan.path}{READY}" for each in plan.case.harmed(plan)]


def _ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def longest_wait(records: Sequence[Record], fault: float, before: float) -> float:
    """For a first token, of requests that were answered before the fault, and of those `before` this load."""
    return max([before, *(each["firstToken"] - each["due"] for each in records if each["firstToken"] is not None and each["end"] <= fault)])


def _result(
    plan: Plan, label: str, records: Sequence[Record], clock: Clock, watch: Watch, rate: float, waited: float, machine: str, number: int
) -> DrillResult:
    each_rate = rate / len(labels(plan))
    declared = label == MAIN
    sent = traffic(plan, label, each_rate, planned(plan, each_rate))
    mock = mocks.engine(plan, rate)
    behind = [f"A mock engine takes {mock.token_milliseconds:g} ms per token" + (f" and {mock.capacity} requests at once." if mock.capacity else ".")]
    return DrillResult(
        case=plan.case.name,
        stack=plan.options.stack,
        victim="" if plan.case.harm is Harm.EVERY_REGION else plan.victim,
        model=plan.model.name,
        clusters=plan.serving,
        regions=plan.regions,
        backend="stand-in" if plan.mocked else "vllm",
        settings="declared" if declared else "published",
        load=LoadPlan(
            doors=plan.doors,
            requests=sent.requests,
            rate=each_rate,
            stream=sent.stream,
            max_tokens=sent.max_tokens,
            timeout_seconds=sent.timeout_seconds,
            switch_doors=sent.switch_doors,
        ),
        started=clock.load.begin,
        marks=clock.marks,
        requests=records,
        samples=watch.samples[label],
        computed=computed(plan, each_rate, longest_wait(records, clock.marks["fault"], waited)) if declared else {},
        objectives=objectives(plan.model) if declared else {},
        resume=declared and plan.fleet.failover.streams.resume,
        run=number,
        machine=machine,
        notes=[*plan.notes, *(behind if plan.mocked else [])],
    )
