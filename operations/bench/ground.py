"""What a benchmark is about to ask, checked whole before the first request: options, model, endpoints, tokenizer.

Raises FleetError for whatever would make it fail or measure something else than was asked for.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from components.serving import models
from core.errors import FleetError
from core.machine import here
from local.host_cluster import HostCluster
from operations.bench import engine
from operations.bench.result import FRONT_DOOR, REGIONAL_GATEWAY, BenchLoad, Machine, Objectives, Serving
from operations.token import headers
from planning.division import division
from specs.accelerators import CPU
from specs.fleet import FleetSpec
from specs.models import ModelSpec
from toolchain import paths

# An engine is slower at its first prompt of a length.
_WARMUPS = 2
_ASK_S = 60.0
_LONGEST_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person asked for."""

    model: str
    stack: str
    clusters: tuple[str, ...]
    """Empty: every cluster that serves the model, and the front door that the stack outputs name."""
    rate: float
    """inf: as fast as `concurrency` lets."""
    requests: int
    concurrency: int | None
    input_tokens: int
    output_tokens: int
    tokenizer: str | None
    json_file: Path | None
    token: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What follows from the options and the stack file alone."""

    options: Options
    fleet: FleetSpec
    model: ModelSpec
    serving: tuple[str, ...]
    """Clusters where a server stands behind the model, in failover order."""
    load: BenchLoad
    objectives: Objectives


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where requests are sent."""

    kind: Literal["front door", "regional gateway"]
    cluster: str
    region: str
    url: str
    """Without /v1: what vLLM calls the base URL."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.cluster}"


def check_options(options: Options) -> None:
    """Raises FleetError: one line for each option that is wrong."""
    wrong: list[str] = []
    for name, value in (
        ("--requests", options.requests),
        ("--concurrency", options.concurrency),
        ("--input-tokens", options.input_tokens),
        ("--output-tokens", options.output_tokens),
    ):
        if value is not None and value < 1:
            wrong.append(f"{name}: must be 1 or more, got: `{value}`")
    if math.isinf(options.rate) and options.rate > 0:
        if options.concurrency is None:
            wrong.append("--rate: `inf` needs --concurrency: without it every request is sent at once")
    elif not options.rate > 0:
        wrong.append(f"--rate: must be above 0, got: `{options.rate:g}`")
    elif options.requests / options.rate > _LONGEST_S:
        wrong.append(f"--requests: {options.requests} at {options.rate:g} a second take {options.requests / options.rate / 3600:.0f} hours at each endpoint")
    if options.json_file is not None and not options.json_file.absolute().parent.is_dir():
        wrong.append(f"--json: no such folder: `{options.json_file.absolute().parent}`")
    elif options.json_file is not None and options.json_file.is_dir():
        wrong.append(f"--json: must be a file, got the folder: `{options.json_file}`")
    if wrong:
        raise FleetError("\n".join(wrong))


def lay(options: Options, fleet: FleetSpec) -> Plan:
    """Asks nobody yet. Raises FleetError."""
    known = {each.name: each for each in fleet.models}
    if options.model not in known:
        raise FleetError(f"no model `{options.model}` in stack `{options.stack}`", hint=f"there are: {', '.join(known)}")
    model = known[options.model]
    for name in options.clusters:
        if name not in fleet.by_name:
            raise FleetError(f"--cluster: no cluster `{name}` in stack `{options.stack}`", hint=f"there are: {', '.join(each.name for each in fleet.clusters)}")
    served = _served(model, fleet)
    if not served:
        real = [each.name for each in fleet.models if _served(each, fleet)]
        raise FleetError(
            f"no server stands behind {model.name}: its GPUs are simulated, and its requests answer 503",
            hint=f"choose another: {', '.join(real) or 'none is real'}",
        )
    longest = model.runtime.max_model_length or model.facts.max_model_length
    if options.input_tokens + options.output_tokens > longest:
        raise FleetError(
            f"--input-tokens, --output-tokens: {model.name} takes {longest} tokens in all, got: `{options.input_tokens} + {options.output_tokens}`",
            hint="the model's chat template takes some of them too",
        )
    load = BenchLoad(
        requests=options.requests,
        rate=None if math.isinf(options.rate) else options.rate,
        concurrency=options.concurrency,
        input_tokens=options.input_tokens,
        output_tokens=options.output_tokens,
        warmups=_WARMUPS,
        # Another one each time: the engines may still have the prompts of the last benchmark.
        seed=int.from_bytes(os.urandom(3)),
    )
    declared = model.objectives
    return Plan(
        options=options,
        fleet=fleet,
        model=model,
        serving=served,
        load=load,
        objectives=Objectives(time_to_first_token_seconds=declared.time_to_first_token_seconds, inter_token_seconds=declared.inter_token_seconds),
    )


def _served(model: ModelSpec, fleet: FleetSpec) -> tuple[str, ...]:
    replicas = division(model.placement, model.replicas)

    def real(cluster: str) -> bool:
        return model.accelerator_in(cluster).type == CPU or not fleet.by_name[cluster].driver.capabilities.simulated_gpus

    return tuple(each for each in model.placement.order if replicas[each] > 0 and real(each))


def tokenizer_of(options: Options, model: ModelSpec) -> str:
    """Where vLLM's benchmark finds the tokenizer: a folder, or a repository of Hugging Face. Raises FleetError."""
    if options.tokenizer is not None:
        if options.tokenizer.startswith(("/", ".", "~")) and not Path(options.tokenizer).expanduser().is_dir():
            raise FleetError(f"--tokenizer: no such folder: `{options.tokenizer}`", hint="a model's folder, or ORGANISATION/MODEL of Hugging Face")
        folder = Path(options.tokenizer).expanduser()
        return str(folder.absolute()) if folder.is_dir() else options.tokenizer
    scheme, path = model.source.split("://", 1)
    # The model store of local clusters is a folder of this machine.
    names = [path.split("/", 1)[1].strip("/"), model.name] if scheme == "pvc" else [model.name]
    for name in names:
        folder = paths.STATE / "models" / name
        if any((folder / each).is_file() for each in ("tokenizer.json", "tokenizer_config.json")):
            return str(folder.resolve())
    if scheme == "hf":
        return path.split(":", 1)[0]
    raise FleetError(
        f"the tokenizer of {model.name} is not on this machine, its source is: `{model.source}`",
        hint="--tokenizer with the model's folder, or ORGANISATION/MODEL of Hugging Face",
    )


def endpoints(plan: Plan, outputs: Mapping[str, Any]) -> list[Endpoint]:
    """Front doors first. Raises FleetError."""
    model, fleet, chosen = plan.model, plan.fleet, plan.options.clusters
    found: Mapping[str, Any] = outputs["endpoints"]
    if model.name not in found["models"]:
        raise FleetError(f"{model.name} is declared and not deployed yet", hint="make up")
    doors: Mapping[str, str] = found["frontDoors"]
    # Not there where an older version made the last update.
    regional: Mapping[str, str] = found.get("regionalGateways", {})
    # The door that callers are given, unless others are named.
    own = str(found["models"][model.name]["openaiBaseUrl"])
    first = next((name for name, url in doors.items() if own.startswith(f"{url.rstrip('/')}/")), model.placement.order[0])
    wanted = chosen or (first,)
    direct = [each for each in plan.serving if not chosen or each in chosen]
    for name in dict.fromkeys([*wanted, *direct]):
        if name not in doors or name not in regional:
            raise FleetError(f"{name} is declared and not deployed yet", hint="make up")
        if fleet.by_name[name].driver.capabilities.on_this_machine and not HostCluster(name).alive():
            raise FleetError(f"{name} is not running", hint="make up starts it")

    def at(kind: Literal["front door", "regional gateway"], name: str, url: str) -> Endpoint:
        return Endpoint(kind=kind, cluster=name, region=fleet.by_name[name].region, url=f"{url.rstrip('/')}/{model.name}")

    return [*(at(FRONT_DOOR, each, doors[each]) for each in wanted), *(at(REGIONAL_GATEWAY, each, regional[each]) for each in direct)]


def check_answers(model: str, asked: Sequence[Endpoint], token: str) -> None:
    """Each endpoint answers a completion. Raises FleetError that names every one that does not."""
    wrong = [f"{each.name} does not answer for {model}: {told}" for each in asked if (told := _ask(model, each.url, token))]
    if wrong:
        raise FleetError("\n".join(wrong), hint="make status shows what is ready, make up waits for it")


def _ask(model: str, url: str, token: str) -> str:
    """What is wrong; empty where nothing is."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    try:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers(token), timeout=_ASK_S, trust_env=not engine.is_loopback(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{url}: {error or type(error).__name__}"
    return "" if answer.status_code == 200 else f"{url}: HTTP {answer.status_code} {answer.text.strip()[:200]}"


def served_by(plan: Plan) -> dict[str, Serving]:
    """How the model is declared in each cluster that serves it."""
    model, replicas = plan.model, division(plan.model.placement, plan.model.replicas)
    found: dict[str, Serving] = {}
    for each in plan.serving:
        accelerator = model.accelerator_in(each)
        found[each] = Serving(
            accelerator=accelerator.type,
            accelerators=accelerator.count,
            replicas=replicas[each],
            image=plan.fleet.runtimes.for_accelerator(accelerator.type).image,
            arguments=tuple(models.arguments(model, accelerator)),
        )
    return found


def machine() -> Machine:
    found = here()
    return Machine(cores=found.cores, memory_gib=round(found.memory_gib, 1), system=found.system, load=round(found.loads[0], 2))
