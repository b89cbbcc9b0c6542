"""What a drill is about to do, checked whole before anything is touched: stack, model, region, doors.

Raises FleetError for whatever would make it fail or prove nothing.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from components.mesh.regions import own_first
from core.errors import FleetError
from local.host_cluster import HostCluster, all_clusters
from operations.drills.cases import CASES, EVERY, Case, Doors, shortest
from operations.drills.faults import mock_engine, packet_filter
from operations.status import FleetState
from operations.token import headers
from planning import failover_budget, failover_time
from planning.division import division
from planning.failover_time import retry_attempts
from specs.accelerators import CPU
from specs.fleet import FleetSpec
from specs.models import ModelSpec

_ASK_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person asked for. None: chosen by the drill."""

    case: str
    stack: str = "local"
    cluster: str | None = None
    model: str | None = None
    rate: float | None = None
    requests: int | None = None
    stream: bool = False
    tokens: int | None = None
    doors: tuple[str, ...] = ()
    stand_in: bool = False
    baseline: bool = False
    repeat: int = 1
    json_file: Path | None = None
    report: Path | None = None
    not_local: bool = False
    """A fleet that is not on this machine alone may be drilled."""
    token: str = field(default="", repr=False)
    meant: str | None = None
    """The cluster that was confirmed beforehand."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One drill, ready to be done."""

    options: Options
    case: Case
    fleet: FleetSpec
    model: ModelSpec
    """The model whose placement and objectives are meant; with stand-ins it is they who answer."""
    victim: str
    serving: tuple[str, ...]
    """In failover order."""
    doors: tuple[str, ...]
    urls: Mapping[str, str]
    """Front door of every cluster."""
    regions: Mapping[str, str]
    stand_ins: bool
    ask_victim_first: bool
    """Stand-ins only: no door outside asks the victim first, so all do."""
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Name of the model in paths."""
        return mock_engine.DECLARED if self.stand_ins else self.model.name

    def url(self, door: str, model: str | None = None) -> str:
        return f"{self.urls[door]}/{model or self.path}/v1/chat/completions"


# Options that contradict each other, before anything is read


def check_options(options: Options) -> None:
    """Raises FleetError: one line for each option that is wrong."""
    wrong: list[str] = []
    if options.case not in CASES and options.case != EVERY:
        wrong.append(f"case: must be one of {', '.join([*CASES, EVERY])}, got: `{options.case}`")
    if options.rate is not None and not 0 < options.rate <= 100_000:
        wrong.append(f"--rate: must be above 0, got: `{options.rate:g}`")
    if options.requests is not None and options.requests < 1:
        wrong.append(f"--requests: must be 1 or more, got: `{options.requests}`")
    if options.tokens is not None and options.tokens < 1:
        wrong.append(f"--tokens: must be 1 or more, got: `{options.tokens}`")
    if options.repeat < 1:
        wrong.append(f"--repeat: must be 1 or more, got: `{options.repeat}`")
    if options.baseline and not options.stand_in:
        wrong.append("--baseline: needs --stand-in: a second model with other settings is put beside the first")
    case = CASES.get(options.case)
    if options.baseline and case and not case.published:
        told = [each.name for each in CASES.values() if each.published]
        wrong.append(f"--baseline: tells nothing in the case `{options.case}`; it does in {', '.join(told)}")
    if options.meant and not options.not_local:
        wrong.append("--yes-i-mean: is for fleets that are not local, and needs --not-local")
    if options.meant and options.cluster and options.meant != options.cluster:
        wrong.append(f"--yes-i-mean: must be the cluster of --cluster `{options.cluster}`, got: `{options.meant}`")
    if options.case == EVERY and (options.doors or options.cluster):
        wrong.append("all: every case chooses its own region and doors; leave out --cluster and --doors")
    for name, path in (("--json", options.json_file), ("--report", options.report)):
        if path is not None and not path.absolute().parent.is_dir():
            wrong.append(f"{name}: no such folder: `{path.absolute().parent}`")
    if wrong:
        raise FleetError("\n".join(wrong))


def allow(options: Options, fleet: FleetSpec) -> None:
    """Only a fleet that is wholly on this machine may be broken without being asked. Raises FleetError."""
    others = [each.name for each in fleet.clusters if each.driver.kind != "local"]
    if not others:
        return
    what = f"stack `{options.stack}` is not on this machine alone: {', '.join(others)}"
    if not options.not_local:
        raise FleetError(f"{what}; a drill harms what it runs on", hint="if that is what you want: --not-local --cluster NAME")
    if options.cluster is None:
        raise FleetError(f"{what}; the cluster to harm must be named", hint="--cluster NAME")
    if options.case != "overload" and options.cluster in others:
        raise FleetError(
            f"{options.case} cannot be made in {options.cluster}, which is not local: its processes, packets and gateways are out of reach",
            hint="only `overload` is load alone; or drill the case on the stack `local`",
        )
    if options.meant == options.cluster:
        return
    if not sys.stdin.isatty():
        raise FleetError("a drill outside the local fleet must be confirmed", hint=f"in a terminal, or by --yes-i-mean {options.cluster}")
    print(f"{what}\nThe drill `{options.case}` will harm {options.cluster}. Its name, to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != options.cluster:
        raise FleetError("not confirmed, nothing was touched")


# The choice of model, region and doors


def lay(options: Options, fleet: FleetSpec, outputs: Mapping[str, Any]) -> Ground:
    """Chooses what was left open. Raises FleetError; asks nobody yet."""
    case = CASES[options.case]
    model = _model(options, case, fleet)
    simulated = model.accelerator.type != CPU and all(fleet.by_name[each].driver.kind == "local" for each in model.placement.weights)
    notes: list[str] = []
    stand_ins = options.stand_in
    if simulated and not stand_ins:
        if case.name not in ("replace", "residency"):
            raise FleetError(
                f"no server stands behind {model.name}: its GPUs are simulated, and its requests answer 503",
                hint=f"--stand-in puts servers of ours in its place, or choose another: {', '.join(_real(fleet)) or 'none is real'}",
            )
        stand_ins = True
        notes.append(f"The GPUs of {model.name} are simulated: stand-ins answer in its place, in the same regions.")
    elif stand_ins:
        notes.append("Servers of ours answer in place of the model, behind the same gateways.")
    if stand_ins and any(each.name in (mock_engine.DECLARED, mock_engine.PUBLISHED) for each in fleet.models):
        raise FleetError(f"the stack has a model that is named as a stand-in: `{mock_engine.DECLARED}`", hint="give it another name")
    if stand_ins and any(each.driver.kind != "local" for each in fleet.clusters):
        raise FleetError("stand-ins are processes of local clusters; this stack has others", hint="leave out --stand-in")
    regions = {each.name: each.region for each in fleet.clusters}
    urls: Mapping[str, str] = outputs["endpoints"]["frontDoors"]
    serving = tuple(name for name in model.placement.order if division(model.placement, model.replicas)[name] > 0)
    victim = _victim(options, case, model, fleet, serving)
    if case.alone:
        serving = (victim,)
    elif len({regions[each] for each in serving}) < 2:
        raise FleetError(
            f"{model.name} is served in one region only, {regions[serving[0]]}: there is nowhere to go", hint="a drill needs a model in two regions"
        )
    if stand_ins and not case.alone and case.name != "replace":
        # The harmed region first, and one more: so that the doors of all others ask it, whatever the model's own order is.
        other = next(each for each in serving if regions[each] != regions[victim])
        serving = (victim, other) if len(urls) > 2 else (victim, *(each for each in serving if each != victim))
    doors, first = _doors(options, case, victim, serving, regions, stand_ins=stand_ins)
    ground = Ground(
        options=options,
        case=case,
        fleet=fleet,
        model=model,
        victim=victim,
        serving=serving,
        doors=doors,
        urls=urls,
        regions=regions,
        stand_ins=stand_ins,
        ask_victim_first=first,
        notes=tuple(notes),
    )
    _possible(ground)
    return ground


def _real(fleet: FleetSpec) -> list[str]:
    return [each.name for each in fleet.models if each.accelerator.type == CPU]


def _model(options: Options, case: Case, fleet: FleetSpec) -> ModelSpec:
    known = {each.name: each for each in fleet.models}
    if options.model is not None:
        if options.model not in known:
            raise FleetError(f"no model `{options.model}` in stack `{options.stack}`", hint=f"there are: {', '.join(known)}")
        return known[options.model]
    if case.name == "residency":
        bound = [each for each in fleet.models if each.placement.jurisdictions]
        if not bound:
            raise FleetError("residency: no model of the stack is bound to a jurisdiction", hint="placement.jurisdictions of a model binds it")
        return bound[0]
    if case.name == "replace":
        # A simulated model is ready at once: what is measured is the fleet, not the loading of weights.
        quick = [each for each in fleet.models if each.accelerator.type != CPU and len(each.placement.weights) > 1]
        if quick:
            return quick[0]
    movable = [each for each in fleet.models if len(each.placement.weights) > 1]
    if not movable:
        raise FleetError(f"stack `{options.stack}` has no model in two regions: there is nowhere to go")
    return next((each for each in movable if each.accelerator.type == CPU), movable[0])


def _victim(options: Options, case: Case, model: ModelSpec, fleet: FleetSpec, serving: Sequence[str]) -> str:
    """The cluster that is harmed: the one that requests go to first, unless another is named."""
    if len({each.region for each in fleet.clusters}) < 2:
        raise FleetError("the fleet has one region: nothing can take over", hint="a drill needs two regions or more")
    if options.cluster is None:
        return serving[0]
    if options.cluster not in fleet.by_name:
        raise FleetError(f"no cluster `{options.cluster}` in stack `{options.stack}`", hint=f"there are: {', '.join(each.name for each in fleet.clusters)}")
    if options.cluster not in serving and case.doors is not Doors.VICTIM_FIRST:
        raise FleetError(f"{options.cluster} does not serve {model.name}: nothing would happen", hint=f"it is served in {', '.join(serving)}")
    return options.cluster


def _doors(options: Options, case: Case, victim: str, serving: Sequence[str], regions: Mapping[str, str], *, stand_ins: bool) -> tuple[tuple[str, ...], bool]:
    """(clusters whose doors are used, whether stand-ins must ask the victim first)."""
    unknown = [each for each in options.doors if each not in regions]
    if unknown:
        raise FleetError(f"--doors: no cluster `{unknown[0]}`", hint=f"there are: {', '.join(regions)}")
    if case.doors is Doors.VICTIM_FIRST:
        if options.doors:
            raise FleetError(f"--doors: in the case `{case.name}` callers know every door", hint="leave it out")
        return (victim, *(each for each in regions if each != victim)), False
    if options.doors:
        if case.doors is Doors.OUTSIDE and victim in options.doors:
            raise FleetError(f"--doors: the door of {victim} is harmed with its region, got: `{','.join(options.doors)}`", hint="name others")
        return options.doors, False
    if case.doors is Doors.ALL:
        return tuple(regions), False
    eligible = tuple(each for each in regions if each != victim or case.doors is Doors.ASKING)
    order = [regions[each] for each in serving]
    asking = tuple(each for each in eligible if own_first(order, regions[each])[0] == regions[victim])
    if asking:
        return asking, False
    if stand_ins:
        return eligible, True
    raise FleetError(
        f"no front door outside {victim} sends requests there first: nothing would happen to them",
        hint=f"harm {serving[0]}, or use --stand-in, or name doors by --doors",
    )


def _possible(ground: Ground) -> None:
    """What only some machines and models can do."""
    case, options = ground.case, ground.options
    if case.name == "blackhole" and (why := packet_filter.refusal()):
        raise FleetError(f"blackhole: {why}", hint="the case `hang` shows the same to callers: connections stay open and nobody answers")
    if case.name == "overload" and not ground.stand_ins and ground.model.runtime.max_queued is None:
        raise FleetError(f"{ground.model.name} refuses no request, however many wait: runtime.maxQueued is not set", hint="set it, or use --stand-in")
    if options.rate is not None and options.requests is not None and options.requests / options.rate < shortest(case):
        least = shortest(case)
        raise FleetError(
            f"--requests: {options.requests} at {options.rate:g} a second last {options.requests / options.rate:.0f} s, and `{case.name}` takes {least:.0f} s",
            hint=f"--requests {round(least * options.rate)}",
        )
    clusters = {each.name: each for each in all_clusters()}
    for name in ground.urls:
        if ground.fleet.by_name[name].driver.kind == "local" and (name not in clusters or not clusters[name].alive()):
            raise FleetError(f"{name} is not running", hint="make up starts it")
    hub = ground.fleet.hub.name
    if case.name in ("hub-down", "replace") and (hub not in clusters or not clusters[hub].alive()):
        raise FleetError(f"{case.name}: the hub is not running on this machine", hint="make up starts a local one")


# What is there


def check_state(ground: Ground, state: FleetState) -> None:
    """The model is ready where it has to be. Raises FleetError."""
    if ground.stand_ins and ground.case.name != "replace":
        return
    model = ground.model.name
    for name in ground.serving:
        cluster = state.clusters[name]
        ready = cluster.models[model].ready if model in cluster.models else 0
        if cluster.error:
            raise FleetError(f"{name} does not answer: {cluster.error}", hint="make up")
        if not ready:
            raise FleetError(f"{model} has no ready replica in {name}", hint="make status shows what is ready, make up waits for it")


def check_doors(ground: Ground, models: Sequence[str]) -> None:
    """Each door answers a completion of each model. Raises FleetError that names the first that does not."""
    for model in models:
        for door in ground.doors:
            url = ground.url(door, model)
            body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
            try:
                answer = httpx.post(url, json=body, headers=headers(ground.options.token), timeout=_ASK_S, trust_env=False)
            except httpx.HTTPError as error:
                raise FleetError(f"the front door of {door} is not reachable: {url}: {error}", hint="make status, .venv/bin/fleet logs " + door) from None
            if answer.status_code != 200:
                raise FleetError(f"the front door of {door} does not answer for {model}: HTTP {answer.status_code} {answer.text.strip()[:200]}")


# What is promised


def computed(ground: Ground, rate: float, waited: float) -> dict[str, float | None]:
    """Worst cases in seconds, from the declared settings and this load. `waited`: for its first token without a fault."""
    case = ground.case.name
    numbers = failover_budget.requests(ground.fleet, ground.model)
    regions = len({ground.regions[each] for each in ground.serving})
    numbers = replace(numbers, regions=regions, attempts=retry_attempts(regions) + 1, gap=len(ground.doors) / rate, waited=waited)
    found: dict[str, float | None] = {}
    # A killed region that is to be replaced is a killed region to callers.
    promised = failover_time.cases(numbers).get({"replace": "kill", "residency": "all-down"}.get(case, case))
    if promised is not None:
        parts = {"added": promised.added, "left": promised.left, "back": promised.back, "refused": promised.refused}
        found = {name: None if each is None else failover_time.total(each) for name, each in parts.items() if each != ()}
    if case == "replace":
        capacity = failover_budget.capacity(ground.fleet, ground.model)
        found["replaced"] = None if capacity.load is None else failover_time.total(failover_time.restore(capacity, silent=False))
    return found


def objectives(model: ModelSpec) -> dict[str, float]:
    declared: dict[str, Any] = model.objectives.model_dump(by_alias=True, exclude_none=True)
    return {name: float(value) for name, value in declared.items()}


def members(ground: Ground) -> tuple[HostCluster, ...]:
    """Every local cluster with a front door."""
    return tuple(HostCluster(name) for name in ground.urls if ground.fleet.by_name[name].driver.kind == "local")


def what(ground: Ground) -> str:
    """What is broken, and where."""
    where = ", ".join(ground.serving) if ground.case.name == "all-down" else ground.victim
    return f"{ground.case.text} ({where})"


def describe(ground: Ground) -> str:
    """One line for a person."""
    behind = "stand-ins" if ground.stand_ins else "vLLM"
    return f"{ground.case.name}: {what(ground)}; {ground.model.name} on {behind} in {', '.join(ground.serving)}; doors {', '.join(ground.doors)}"
