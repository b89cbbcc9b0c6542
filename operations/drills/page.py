"""A drill as one HTML page: no scripts, no fonts, no links, so that it can be mailed, attached and opened anywhere."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from operations.drills import picture, terminal
from operations.drills.analysis import Analysis
from operations.drills.result import DrillResult
from operations.drills.verdict import Verdict

Run = tuple[DrillResult, Analysis, Verdict]

_STYLE = """
:root{color-scheme:light dark;--ground:#f4f3ef;--card:#fcfcfb;--ink:#1a1a19;--soft:#5f5e59;--line:#dddcd6;--good:#14804a;--bad:#c22f2f}
@media (prefers-color-scheme:dark){:root{--ground:#121211;--card:#1a1a19;--ink:#f3f2ee;--soft:#b1b0a9;--line:#3a3a37;--good:#4cc38a;--bad:#f06a6a}}
*{box-sizing:border-box}body{margin:0;padding:24px;background:var(--ground);color:var(--ink)}
body{font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1040px;margin:0 auto}h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:0 0 2px}h3{font-size:13px;margin:20px 0 6px;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:20px;margin:20px 0}p{margin:4px 0;color:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);font-size:12px}td.number,th.number{text-align:right;white-space:nowrap}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}.soft{color:var(--soft)}a{color:inherit}
svg{width:100%;height:auto;display:block}ul{margin:4px 0;padding-left:18px;color:var(--soft)}
"""


def html(runs: Sequence[Run], title: str = "Drill report") -> str:
    """The page. Everything from results is escaped: names and errors in them come from outside."""
    summary = (
        (
            f'<a href="#run{place}">{_text(terminal.headline(result))}</a>',
            f"run&nbsp;{result.run}",
            _mark(verdict, result),
            _text("; ".join(f"{line.name}: {line.measured}" for line in verdict.failed) or "-"),
        )
        for place, (result, _, verdict) in enumerate(runs)
    )
    machines = sorted({result.machine for result, _, _ in runs if result.machine})
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{_text(title)}</h1>",
        *(f"<p>{_text(machine)}</p>" for machine in machines),
        "<section><h2>Verdict</h2>",
        _rows(("Drill", "", "", "What was not kept"), summary),
        "</section>",
        *(part for place, run in enumerate(runs) for part in _run(place, run)),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def title_of(result: DrillResult) -> str:
    """Title of a picture: short enough for its width."""
    load = result.load
    victim = f" of {result.victim}" if result.victim else ""
    return f"{result.case}{victim}: {result.model}, {load.rate:g} {'streams' if load.stream else 'requests'}/s"


def subtitle_of(result: DrillResult) -> str:
    engines = "vLLM" if result.backend == "vllm" else "stand-ins for the engine behind the same gateways"
    return f"{engines}, through the front doors of {', '.join(result.load.doors)}{terminal.compared(result)}"


def picture_of(result: DrillResult, found: Analysis) -> str:
    return picture.svg(found, title_of(result), subtitle_of(result), result.clusters, result.case)


def _run(place: int, run: Run) -> Iterator[str]:
    result, found, verdict = run
    yield f'<section id="run{place}"><h2>{_text(terminal.headline(result))}</h2>'
    begun = datetime.fromtimestamp(result.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"<p>{_mark(verdict, result)}, run {result.run}, begun {begun}, stack {_text(result.stack)}</p>"
    yield "<h3>Goals</h3>"
    goals = (
        (_text(line.name), _text(line.goal), _text(line.measured), _text(line.computed), _word("kept" if line.ok else "not kept", good=line.ok))
        for line in verdict.lines
    )
    yield _rows(("Goal", "Wanted", "Measured", "Computed for the worst case", ""), goals)
    yield f"<h3>Time line</h3>{picture_of(result, found)}"
    yield "<h3>Phases: latency of complete answers, from when a request was due</h3>"
    names = ("Phase", "Seconds", "Requests", "Lost", "Cut", "Error events", "Resumed", "p50", "p95", "p99", "Worst", "First token p99", "Answered by")
    yield _rows(names, ([_text(cell) for cell in terminal.cells(phase)] for phase in found.phases.values()), numbers=range(1, 12))
    yield "<h3>Measured besides</h3>"
    yield _rows((), ((_text(name), _text(value)) for name, value in terminal.numbers(found)))
    yield "<h3>Settings</h3>"
    yield _rows((), ((_text(name), _text(value)) for name, value in settings(result)))
    if result.notes:
        notes = "".join(f"<li>{_text(note)}</li>" for note in result.notes)
        yield f"<h3>Notes</h3><ul>{notes}</ul>"
    yield "</section>"


def settings(result: DrillResult) -> list[tuple[str, str]]:
    """What was run on what, for a reader who wants to run it again."""
    load = result.load
    return [
        ("engine", "vLLM" if result.backend == "vllm" else "stand-in: counts instead of computing, the gateways are the same"),
        ("settings", "as the stack declares" if result.settings == "declared" else "as published in articles, for comparison"),
        ("clusters of the model, in failover order", ", ".join(result.clusters)),
        ("cut streams", "go on elsewhere" if result.resume else "are not taken up elsewhere"),
        ("load", f"{load.requests:,} requests, {load.rate:g} per second, {load.max_tokens} tokens each, {'streamed' if load.stream else 'not streamed'}"),
        ("callers", f"wait {load.timeout_seconds:g} s, {'know all front doors' if load.switch_doors else 'know one front door each'}"),
        ("declared objectives", ", ".join(f"{name} {value:g}" for name, value in result.objectives.items()) or "none"),
        ("machine", result.machine or "not told"),
    ]


def _mark(verdict: Verdict, result: DrillResult) -> str:
    told = terminal.conclusion(result, verdict)
    # Nobody promised anything of published settings.
    return _word(told, good=verdict.passed) if result.settings == "declared" else f'<span class="soft">{_text(told)}</span>'


def _word(text: str, *, good: bool) -> str:
    kind = "good" if good else "bad"
    return f'<span class="{kind}">{_text(text)}</span>'


def _text(text: str) -> str:
    return escape(text, quote=True)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Cells of rows are HTML already, those of the head are text. `numbers`: columns to align to the right."""
    right = set(numbers)

    def line(kind: str, cells: Iterable[str]) -> str:
        opened = (f'<{kind} class="number">' if place in right else f"<{kind}>" for place in itertools.count())
        return f"<tr>{''.join(f'{tag}{cell}</{kind}>' for tag, cell in zip(opened, cells, strict=False))}</tr>"

    first = f"<thead>{line('th', map(_text, head))}</thead>" if head else ""
    body = "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table>{first}<tbody>{body}</tbody></table></div>'
