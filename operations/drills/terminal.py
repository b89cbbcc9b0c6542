"""A drill as text: verdict, phases and figures, for a terminal, a log and the Markdown report alike."""

from collections.abc import Iterable, Iterator, Sequence

from operations.drills.analysis import Analysis, Phase, Spread
from operations.drills.goals import NOT_MEASURED, seconds
from operations.drills.result import DrillResult
from operations.drills.verdict import Verdict
from operations.status import table


def headline(result: DrillResult) -> str:
    """`kill of us-west: tiny-chat on mock engines, 10,000 requests at 50/s through us-east, eu-west`."""
    load = result.load
    what = "streams" if load.stream else "requests"
    victim = f" of {result.victim}" if result.victim else ""
    where = f"through {', '.join(load.doors)}" + (" (callers change doors)" if load.switch_doors else "")
    return f"{result.case}{victim}: {result.model} on {backend(result)}, {load.requests:,} {what} at {load.rate:g}/s {where}{compared(result)}"


def backend(result: DrillResult) -> str:
    return "vLLM" if result.backend == "vllm" else "mock engines"


def compared(result: DrillResult) -> str:
    return "" if result.settings == "declared" else ", settings as published in articles"


GOALS = ("goal", "wanted", "measured", "computed", "")
PHASES = (
    *("phase", "seconds", "requests", "lost", "cut", "error events", "resumed"),
    *("p50", "p95", "p99", "worst", "first token p99", "answered by"),
)


def goals(verdict: Verdict) -> list[tuple[str, ...]]:
    """Rows under GOALS."""
    return [(line.name, line.goal, line.measured, line.computed, "kept" if line.ok else "NOT KEPT") for line in verdict.lines]


def phases(found: Analysis) -> list[tuple[str, ...]]:
    """Rows under PHASES."""
    return [tuple(_cells(phase)) for phase in found.phases.values()]


def aligned(head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    return table([tuple(name.upper() for name in head), *rows])


def conclusion(result: DrillResult, verdict: Verdict) -> str:
    kept = len(verdict.lines) - len(verdict.failed)
    goals = f"{kept} of {len(verdict.lines)} goals kept"
    # Published settings are there to be compared with; nobody promised anything of them.
    word = "for comparison" if result.settings != "declared" else "passed" if verdict.passed else "FAILED"
    return f"{word}: {goals}"


def _cells(phase: Phase) -> Iterator[str]:
    yield phase.name
    yield f"{phase.end - phase.begin:.1f}"
    yield from (f"{count:,}" for count in (phase.requests, phase.lost, phase.cut, phase.error_events, phase.resumed))
    yield from _spread(phase.latency)
    yield seconds(phase.first_token.p99) if phase.first_token else "-"
    yield ", ".join(f"{name} {count:,}" for name, count in phase.clusters.items()) or "-"


def _spread(values: Spread | None) -> Iterable[str]:
    return ("-",) * 4 if values is None else (seconds(value) for value in (values.p50, values.p95, values.p99, values.worst))


def numbers(found: Analysis) -> list[tuple[str, str]]:
    """What is measured and in no table yet: name and value."""
    values = (
        ("p99 later by, whole fault", found.added_p99),
        ("p99 later by, first 3 s of it", found.added_p99_burst),
        ("p99 of the first token later by", found.added_first_token_p99),
        ("worst latency later by", found.added_worst),
        ("worst first token later by, of requests that may have met the fault", found.added_met),
        ("median latency back after", found.back),
        ("last request to the dead region after", found.dead_share_zero),
        ("first answer after its return", found.failback),
    )
    told = [(name, NOT_MEASURED if value is None else seconds(value)) for name, value in values]
    for status, answers in ((429, found.overloaded), (503, found.unavailable)):
        if answers.time:
            told.append((f"answers {status}", f"{answers.count:,}, the slowest after {seconds(answers.time.worst)}"))
    if found.kept_out:
        told.append(("ejected by a front door", ", ".join(found.kept_out)))
    return told


def settings(result: DrillResult) -> list[tuple[str, str]]:
    """What was run on what, for a reader who wants to run it again."""
    load = result.load
    return [
        ("engine", "vLLM" if result.backend == "vllm" else "mock engine: counts instead of computing, the gateways are the same"),
        ("settings", "as the stack declares" if result.settings == "declared" else "as published in articles, for comparison"),
        ("clusters of the model, in failover order", ", ".join(result.clusters)),
        ("cut streams", "go on elsewhere" if result.resume else "end"),
        ("load", f"{load.requests:,} requests, {load.rate:g} per second, {load.max_tokens} tokens each, {'streamed' if load.stream else 'not streamed'}"),
        ("callers", f"wait {load.timeout_seconds:g} s, {'know all front doors' if load.switch_doors else 'know one front door each'}"),
        ("declared objectives", ", ".join(f"{name} {value:g}" for name, value in result.objectives.items()) or "none"),
        ("machine", result.machine or "unknown"),
    ]
