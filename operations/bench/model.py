"""`fleet bench MODEL`, done and printed. Its options are commands/bench.py."""

import argparse
import time
from collections.abc import Sequence
from contextlib import closing

from core.errors import FleetError
from core.exclusive import exclusive
from core.interrupts import heeding_sigterm
from core.progress import Progress
from operations import token
from operations.bench import engine, ground
from operations.bench.ground import Endpoint, Options, Plan
from operations.bench.result import BenchLoad, BenchResult, Measured, Percentiles, measured
from operations.drills.faults.journal import heal_left_over
from operations.stack import deployed, in_clear, require_backend
from operations.stack_file import read_fleet
from operations.status import table
from toolchain import paths
from toolchain.pins import PINS


def options_of(arguments: argparse.Namespace) -> Options:
    return Options(
        model=arguments.model,
        stack=arguments.stack,
        clusters=tuple(dict.fromkeys(arguments.cluster)),
        rate=arguments.rate,
        requests=arguments.requests,
        concurrency=arguments.concurrency,
        input_tokens=arguments.input_tokens,
        output_tokens=arguments.output_tokens,
        tokenizer=arguments.tokenizer,
        json_file=arguments.json,
        token=token.read(arguments.token_file),
    )


def bench(arguments: argparse.Namespace) -> None:
    options = options_of(arguments)
    ground.check_options(options)
    # A wrong name is told also where nothing runs.
    plan = ground.lay(options, read_fleet(options.stack))
    require_backend(options.stack)
    tokenizer = ground.tokenizer_of(options, plan.model)
    progress = Progress()
    # What an interrupted drill left would be measured too, and so would one that runs.
    with exclusive(paths.STATE / "up.lock", f"fleet bench {options.model}"), heeding_sigterm():
        heal_left_over(progress.say)
        outputs = in_clear(deployed(options.stack))
        token.require(outputs, options.token)
        asked = ground.endpoints(plan, outputs)
        with progress.stage("does every endpoint answer"):
            ground.check_answers(options.model, asked, options.token)
        result = measure(plan, asked, tokenizer, progress)
    print(render(result))
    if options.json_file is not None:
        try:
            options.json_file.write_text(result.to_json(), encoding="utf-8")
        except OSError as error:
            raise FleetError(f"--json: cannot be written: {error}") from None
        print(f"JSON: {options.json_file}")
    if failed := sum(each.failed for each in result.endpoints):
        asked_in_all = sum(each.ok + each.failed for each in result.endpoints)
        raise FleetError(f"{failed} of {asked_in_all} requests failed", hint="make status; where an endpoint is full: a lower --rate")


def measure(plan: Plan, asked: Sequence[Endpoint], tokenizer: str, progress: Progress) -> BenchResult:
    """Loads the endpoints in turn. Raises FleetError."""
    load, model = plan.load, plan.model.name
    plans = [engine.arguments(each.url, model, tokenizer, load, plan.objectives, place) for place, each in enumerate(asked)]
    names = [f"{each.name}: {describe(load)}" for each in asked]
    started, machine = time.time(), ground.machine()
    found: list[Measured] = []
    with progress.stage(f"vLLM {PINS.vllm} starts, as the caller"), closing(engine.run(plans, names, tokenizer, plan.options.token, progress.say)) as told:
        for each, one in zip(asked, told, strict=True):
            try:
                found.append(measured(one.result, one.errors, one.short, kind=each.kind, cluster=each.cluster, region=each.region, url=each.url))
            except ValueError as error:
                raise FleetError(f"{each.name}: {error}", hint="this vLLM is not the pinned one: make setup") from None
    return BenchResult(
        started=started,
        machine=machine,
        stack=plan.options.stack,
        model=model,
        source=plan.model.source,
        tokenizer=tokenizer,
        vllm=PINS.vllm,
        load=load,
        objectives=plan.objectives,
        serving=ground.served_by(plan),
        endpoints=tuple(found),
    )


def describe(load: BenchLoad) -> str:
    """One line for a person."""
    how = "without a pause" if load.rate is None else f"at {load.rate:g}/s, about {load.requests / load.rate:.0f} s"
    limit = "" if load.concurrency is None else f", {load.concurrency} at most under way"
    return f"{load.requests} requests {how}{limit}"


# Telling


def render(result: BenchResult) -> str:
    machine, load, objectives = result.machine, result.load, result.objectives
    about = [
        f"{result.model} by vLLM {result.vllm}, {load.input_tokens} tokens asked and {load.output_tokens} answered; {describe(load)} at each endpoint",
        f"{machine.cores} cores, {machine.memory_gib:.0f} GiB, {machine.system}; load before {machine.load:.2f}",
    ]
    limits = {"first token within": objectives.time_to_first_token_seconds, "every further one in the mean within": objectives.inter_token_seconds}
    kept = ", ".join(f"{name} {milliseconds(value)} ms" for name, value in limits.items() if value is not None)
    about.append(f"good: {kept}" if kept else "no goodput: the model declares neither objectives.timeToFirstTokenSeconds nor objectives.interTokenSeconds")
    parts = ["\n".join(about), table(throughput_rows(result)), table(latency_rows(result))]
    if told := [f"{each.kind} {each.cluster}: {count} failed: {why}" for each in result.endpoints for why, count in each.errors.items()]:
        parts.append("\n".join(told))
    return "\n\n".join(parts)


def throughput_rows(result: BenchResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("ENDPOINT", "REGION", "OK", "FAILED", "REQUESTS/S", "OUTPUT TOKENS/S", "GOOD", "GOODPUT/S")]
    for each in result.endpoints:
        good = ("-", "-") if each.good is None or each.goodput is None else (f"{each.good} of {each.ok + each.failed}", f"{each.goodput:.2f}")
        speeds = (f"{each.requests_per_second:.2f}", f"{each.output_tokens_per_second:.1f}")
        rows.append((f"{each.kind} {each.cluster}", each.region, str(each.ok), str(each.failed), *speeds, *good))
    return rows


def latency_rows(result: BenchResult) -> list[tuple[str, ...]]:
    heads = [f"{name} {which}" for name in ("FIRST TOKEN", "BETWEEN TOKENS", "PER TOKEN") for which in ("P50", "P95", "P99")]
    rows: list[tuple[str, ...]] = [("MILLISECONDS", *heads)]
    for each in result.endpoints:
        cells = [_three(one) for one in (each.first_token, each.between_tokens, each.per_output_token)]
        rows += [(f"{each.kind} {each.cluster}", *cells[0], *cells[1], *cells[2])]
    return rows


def _three(known: Percentiles | None) -> tuple[str, str, str]:
    if known is None:
        return "-", "-", "-"
    return milliseconds(known.p50), milliseconds(known.p95), milliseconds(known.p99)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
