"""A drill as text: verdict, phases, and a time line in characters, for a terminal and a log alike."""

import math
from collections.abc import Iterable, Iterator, Sequence

from operations.drills.analysis import ALL_DOWN, BUCKET, FAULT, HEAL, HEALTHY, Analysis, Bucket, Phase, Spread
from operations.drills.result import DrillResult
from operations.drills.verdict import NOT_MEASURED, Verdict, seconds
from operations.status import table

_BLOCKS = " ▁▂▃▄▅▆▇█"
# The same in a terminal that knows ASCII alone.
_PLAIN = " .:-=+*#@"
_COLUMNS = 76
# Around the fault, in bars of 100 ms.
_BEFORE, _AFTER = 1.0, 6.6
# The row of latencies goes from 1 ms to 10 s.
_FASTEST, _DECADES = 0.001, 4
_MARKS = {FAULT: "F", ALL_DOWN: "A", HEAL: "H", HEALTHY: "R"}
_MEANINGS = {FAULT: "F fault", ALL_DOWN: "A no region left", HEAL: "H mending begins", HEALTHY: "R can serve again"}


def headline(result: DrillResult) -> str:
    """`kill of us-west: tiny-chat on stand-ins, 10,000 requests at 50/s through us-east, eu-west`."""
    load = result.load
    what = "streams" if load.stream else "requests"
    victim = f" of {result.victim}" if result.victim else ""
    where = f"through {', '.join(load.doors)}" + (" (callers change doors)" if load.switch_doors else "")
    return f"{result.case}{victim}: {result.model} on {backend(result)}, {load.requests:,} {what} at {load.rate:g}/s {where}{compared(result)}"


def backend(result: DrillResult) -> str:
    return "vLLM" if result.backend == "vllm" else "stand-ins"


def compared(result: DrillResult) -> str:
    return "" if result.settings == "declared" else ", settings as published in articles"


def verdict_table(verdict: Verdict) -> str:
    rows: list[tuple[str, ...]] = [("GOAL", "WANTED", "MEASURED", "COMPUTED", "")]
    rows += [(line.name, line.goal, line.measured, line.computed, "kept" if line.ok else "NOT KEPT") for line in verdict.lines]
    return table(rows)


def conclusion(result: DrillResult, verdict: Verdict) -> str:
    kept = len(verdict.lines) - len(verdict.failed)
    told = f"{kept} of {len(verdict.lines)} goals kept"
    # Published settings are there to be compared with; nobody promised anything of them.
    word = "for comparison" if result.settings != "declared" else "passed" if verdict.passed else "FAILED"
    return f"{word}: {told}"


def phases_table(found: Analysis) -> str:
    rows: list[tuple[str, ...]] = [
        ("PHASE", "SECONDS", "REQUESTS", "LOST", "CUT", "ERROR EVENTS", "RESUMED", "P50", "P95", "P99", "WORST", "FIRST TOKEN P99", "ANSWERED BY")
    ]
    rows += [tuple(cells(phase)) for phase in found.phases.values()]
    return table(rows)


def cells(phase: Phase) -> Iterator[str]:
    """What every table of phases shows, in the order of `phases_table`."""
    yield phase.name
    yield f"{phase.end - phase.begin:.1f}"
    yield from (f"{count:,}" for count in (phase.requests, phase.lost, phase.cut, phase.error_events, phase.resumed))
    yield from _spread(phase.latency)
    yield seconds(phase.first_token.p99) if phase.first_token else "-"
    yield ", ".join(f"{name} {count:,}" for name, count in phase.clusters.items()) or "-"


def _spread(values: Spread | None) -> Iterable[str]:
    return ("-",) * 4 if values is None else (seconds(value) for value in (values.p50, values.p95, values.p99, values.worst))


def numbers(found: Analysis) -> list[tuple[str, str]]:
    """What is measured and no line of a table yet: name and value."""
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
        told.append(("left alone by a front door", ", ".join(found.kept_out)))
    return told


def time_line(result: DrillResult, found: Analysis, *, ascii_only: bool = False) -> str:
    """Rows of characters: requests by region, failures, the slowest answer. First the whole run, then the fault in bars of 100 ms."""
    steps = _PLAIN if ascii_only else _BLOCKS
    names = [*result.clusters, *sorted({name for bar in found.buckets for name in bar.clusters} - set(result.clusters))]
    if not found.buckets:
        return "no requests"
    width = max(1, math.ceil(len(found.buckets) / _COLUMNS))
    parts = [_rows(found, names, 0, len(found.buckets), width, steps)]
    if FAULT in found.marks and width > 1:
        first = max(0, round((found.marks[FAULT] - _BEFORE) / BUCKET))
        last = min(len(found.buckets), first + round((_BEFORE + _AFTER) / BUCKET))
        parts.append(_rows(found, names, first, last, 1, steps))
    return "\n\n".join(parts)


def _rows(found: Analysis, names: Sequence[str], first: int, last: int, width: int, steps: str) -> str:
    columns = [found.buckets[at : min(at + width, last)] for at in range(first, last, width)]
    zero = found.marks.get(FAULT, 0.0)
    begin, end = found.buckets[first].at - zero, found.buckets[last - 1].at + BUCKET - zero
    margin = max(len(name) for name in (*names, "slowest", "failed")) + 2
    most = max((sum(bar.requests for bar in column) for column in columns), default=1) or 1

    def row(name: str, characters: Iterable[str], note: str = "") -> str:
        return (name.ljust(margin) + "".join(characters) + (f"  {note}" if note else "")).rstrip()

    each = f"{width * BUCKET:g} s" if width * BUCKET >= 1 else f"{width * BUCKET * 1000:g} ms"
    since = "the fault" if FAULT in found.marks else "the begin"
    lines = [row("", _mark_row(found, columns), f"{begin:+.1f} to {end:+.1f} s from {since}, a column is {each}")]
    for name in names:
        counts = [sum(bar.clusters.get(name, 0) for bar in column) for column in columns]
        if any(counts):
            lines.append(row(name, (_step(count / most, steps) for count in counts), f"{max(counts)} at most"))
    failed = [sum(bar.failed for bar in column) for column in columns]
    lines.append(row("failed", ("x" if count else "." for count in failed), f"{sum(failed):,} in all"))
    worst = [max((bar.worst for bar in column if bar.worst is not None), default=None) for column in columns]
    slowest = max((value for value in worst if value is not None), default=None)
    note = "" if slowest is None else f"1 ms to 10 s, {seconds(slowest)} at most"
    lines.append(row("slowest", (" " if value is None else _step(_height(value), steps) for value in worst), note))
    used = [_MEANINGS[name] for name in _MARKS if name in found.marks and _place(found.marks[name], columns) is not None]
    return "\n".join([*lines, row("", ", ".join(used))] if used else lines)


def _step(share: float, steps: str) -> str:
    """Something is never shown as nothing."""
    return steps[0] if share <= 0 else steps[min(len(steps) - 1, max(1, math.ceil(share * (len(steps) - 1) - 1e-9)))]


def _height(value: float) -> float:
    return min(1.0, max(0.01, math.log10(max(value, _FASTEST) / _FASTEST) / _DECADES))


def _place(time: float, columns: Sequence[Sequence[Bucket]]) -> int | None:
    for place, column in enumerate(columns):
        if column[0].at - 1e-9 <= time < column[-1].at + BUCKET - 1e-9:
            return place
    return None


def _mark_row(found: Analysis, columns: Sequence[Sequence[Bucket]]) -> str:
    characters = [" "] * len(columns)
    for name, letter in _MARKS.items():
        place = _place(found.marks[name], columns) if name in found.marks else None
        if place is not None:
            # Two in one column: the later one gives way to the right, where there is room.
            while characters[place] != " " and place + 1 < len(characters):
                place += 1
            characters[place] = letter
    return "".join(characters)
