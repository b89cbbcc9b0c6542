"""Reports of drills: files beside each other, text for a terminal, and the measured table of docs/when-a-region-dies.md.

python -m operations.drills.report RESULT.json...                      the Markdown table
python -m operations.drills.report RESULT.json... --document FILE      the table into a document, between its marks
python -m operations.drills.report RESULT.json... --picture FILE       the first result as an SVG
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import FleetError
from operations.drills import picture, terminal, verdict
from operations.drills.analysis import Analysis
from operations.drills.cases import CASES
from operations.drills.goals import longest, seconds
from operations.drills.result import DrillResult
from operations.drills.verdict import Verdict

# What is between these lines of a document is written by this module.
BEGIN = "<!-- measured: written by python -m operations.drills.report, do not edit -->"
END = "<!-- end of measured -->"

Run = tuple[DrillResult, Analysis, Verdict]


def examined(result: DrillResult) -> Run:
    """A result with what follows from it. Raises ValueError where its records or marks make no sense."""
    found = verdict.analysed(result)
    return result, found, verdict.judge(result, found)


def write(results: Sequence[DrillResult], folder: Path) -> list[Path]:
    """Writes `report.md` and `summary.json` of all, and of each result its JSON (everything) and its picture. The report comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [examined(each) for each in results]
    files: dict[Path, str] = {folder / "report.md": report(runs), folder / "summary.json": json.dumps([summary(run) for run in runs], indent=2)}
    for result, found, _ in runs:
        name = file_name(result)
        files[folder / f"{name}.json"] = result.to_json()
        files[folder / f"{name}.svg"] = picture.of(result, found)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def report(runs: Sequence[Run]) -> str:
    """The Markdown report: the measured table, then a section for each run."""
    return "\n".join(["# Drill report", "", markdown([result for result, _, _ in runs]), "", *(line for run in runs for line in _report_of(run))])


def _report_of(run: Run) -> Iterator[str]:
    result, found, judged = run
    begun = datetime.fromtimestamp(result.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield from (
        f"## {_plain(terminal.headline(result))}",
        "",
        _plain(f"{terminal.conclusion(result, judged)}. Run {result.run}, begun {begun}, stack {result.stack}."),
    )
    yield from ("", *_rows(terminal.GOALS, terminal.goals(judged)), "", f"![requests, failures and latency over time]({file_name(result)}.svg)")
    yield from ("", "Latency of complete answers, from when a request was due:", "", *_rows(terminal.PHASES, terminal.phases(found)))
    yield from ("", *_rows(("figure", "measured"), terminal.numbers(found)), "", *_rows(("setting", "value"), terminal.settings(result)), "")
    yield from (f"- {_plain(note)}" for note in result.notes)
    if result.notes:
        yield ""


def file_name(result: DrillResult) -> str:
    """Without a suffix; whatever names a result has, it stays in its folder."""
    published = "" if result.settings == "declared" else result.settings
    parts = (result.case, result.victim, result.model, result.backend, "streams" if result.load.stream else "", published, str(result.run))
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(part for part in parts if part)).lstrip(".")


def summary(run: Run) -> dict[str, Any]:
    """All figures of a run without its records, for programs. Times in seconds; null is what could not be measured."""
    result, found, judged = run
    plain = asdict(replace(result, requests=(), samples=()))
    figures = asdict(replace(found, buckets=()))
    return {
        **{name: value for name, value in plain.items() if name not in {"requests", "samples"}},
        "figures": {name: value for name, value in figures.items() if name != "buckets"},
        "verdict": {"passed": judged.passed, "goals": [asdict(line) for line in judged.lines]},
    }


def table(results: Sequence[DrillResult]) -> str:
    """For a terminal: each result with its verdict and phases."""
    return "\n\n".join(_section(run) for run in map(examined, results))


def _section(run: Run) -> str:
    result, found, judged = run
    notes = "".join(f"\nnote: {note}" for note in result.notes)
    goals = terminal.aligned(terminal.GOALS, terminal.goals(judged))
    phases = terminal.aligned(terminal.PHASES, terminal.phases(found))
    parts = (terminal.headline(result), goals, phases, terminal.conclusion(result, judged) + notes)
    return "\n\n".join(parts)


# The measured table

# What a case may hide (`Case.hides`) are the columns p99, added, left, median and back: `p99 later by` to `in use again`.
_HEAD = (
    "case",
    "engine, load",
    "failed before the first token, each run",
    "cut silently",
    "p99 later by",
    "first token of those that met the fault later by (computed)",
    "last request to the region",
    "median back",
    "in use again",
    "besides",
    "goals",
)


def markdown(results: Sequence[DrillResult]) -> str:
    """One row for each case, load and settings: the worst of its runs. Published settings stand below the declared ones."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in map(examined, results):
        groups.setdefault(_key(run[0]), []).append(run)
    lines = _rows(_HEAD, [_row(groups[key]) for key in sorted(groups)])
    # What else the machine did before each is in the results.
    machines = sorted({each.machine.split(";")[0] for each in results if each.machine})
    return "\n".join([*lines, "", *map(_plain, machines)])


def _key(result: DrillResult) -> tuple[Any, ...]:
    return list(CASES).index(result.case), result.load.stream, result.backend, result.settings != "declared", result.load.requests, result.load.rate


def _row(runs: Sequence[Run]) -> tuple[str, ...]:
    result = runs[0][0]
    case, load = CASES[result.case], result.load
    found = [each for _, each, _ in runs]
    what = result.case + (", streams" if load.stream else "") + ("" if result.settings == "declared" else ", published settings")
    computed = result.computed.get("added")
    bound = f" ({seconds(float(computed))})" if computed is not None else ""
    goals = "kept" if all(judged.passed for _, _, judged in runs) else f"not kept: {_broken(runs)}"

    def cell(column: str, values: Iterable[float | None], more: str = "") -> str:
        return "" if column in case.hides else longest(values) + more

    return (
        what,
        f"{'vLLM' if result.backend == 'vllm' else 'mock engine'}, {load.rate:g}/s",
        _counts(found, case.failures),
        _counts(found, lambda each: each.harmed_by(lambda phase: phase.cut)),
        cell("p99", (each.added_first_token_p99 if load.stream else each.added_p99 for each in found)),
        cell("added", (each.added_met for each in found), bound),
        cell("left", (each.dead_share_zero for each in found)),
        cell("median", (each.back for each in found)),
        cell("back", (each.failback for each in found)),
        case.besides(found) or (_streams(found) if load.stream else ""),
        goals if result.settings == "declared" else "for comparison",
    )


def _streams(found: Sequence[Analysis]) -> str:
    resumed = _counts(found, lambda each: each.harmed_by(lambda phase: phase.resumed))
    ended = _counts(found, lambda each: each.harmed_by(lambda phase: phase.error_events))
    return f"{resumed} went on elsewhere, {ended} ended with an error event"


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_cell(each) for each in cells)} |"


def _plain(text: str) -> str:
    """Text from outside as Markdown shows it: one line, and no HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _counts(found: Sequence[Analysis], what: Callable[[Analysis], int]) -> str:
    """Each run for itself: `0, 2, 0 of 6,000`. The worst alone would hide how often it is."""
    counts = ", ".join(f"{what(each):,}" for each in found)
    return f"{counts} of {max(each.harmed_by(lambda phase: phase.requests) for each in found):,}"


def _broken(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(line.name for _, _, judged in runs for line in judged.failed))


def into_document(document: str, measured: str) -> str:
    """The document with `measured` between its marks. Raises ValueError where it has none."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise ValueError(f"the document must have the lines `{BEGIN}` and `{END}`, once each and in this order")
    head, rest = document.split(BEGIN)
    return f"{head}{BEGIN}\n{measured.strip()}\n{END}{rest.split(END)[1]}"


def read(paths: Sequence[Path]) -> list[DrillResult]:
    """Results from files. Raises FleetError that names the file."""
    results: list[DrillResult] = []
    for path in paths:
        try:
            results += _results(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FleetError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise FleetError(f"{path}: {error}", hint="`fleet drill CASE --json FILE` writes such files") from None
    return results


def _results(text: str) -> list[DrillResult]:
    """A file of several runs is an array."""
    if not text.lstrip().startswith("["):
        return [DrillResult.from_json(text)]
    return [DrillResult.from_json(json.dumps(each)) for each in json.loads(text)]


def _parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="python -m operations.drills.report", description="Reports from saved results of drills.")
    command.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    command.add_argument("--picture", type=Path, metavar="FILE", help="one result as an SVG: a killed region, else the first")
    command.add_argument("--document", type=Path, metavar="FILE", help="put the table between the marks of a Markdown document")
    command.add_argument("--text", action="store_true", help="tables for a terminal")
    return command


def _outputs(arguments: argparse.Namespace, results: Sequence[DrillResult]) -> Iterator[tuple[Path, str]]:
    """All texts before any is written: a wrong result or document leaves every file as it was."""
    if arguments.picture:
        shown = pictured(results)
        yield arguments.picture, picture.of(shown, verdict.analysed(shown))
    if arguments.document:
        image = f"{_image(pictured(results), arguments.picture, arguments.document)}\n\n" if arguments.picture else ""
        yield arguments.document, into_document(arguments.document.read_text(encoding="utf-8"), image + markdown(results))


def pictured(results: Sequence[DrillResult]) -> DrillResult:
    """The one that shows most to somebody who sees it for the first time."""
    killed = (each for each in results if each.case == "kill" and each.settings == "declared" and not each.load.stream)
    return next(killed, results[0])


def _image(result: DrillResult, picture: Path, document: Path) -> str:
    """The picture as the document sees it from where it lies."""
    where = Path(os.path.relpath(picture, document.parent)).as_posix()
    return f"![{terminal.headline(result)}: requests by the region that answered, failures and latency over time]({where})"


def main() -> int:
    arguments = _parser().parse_args()
    try:
        results = read(arguments.results)
        written = list(_outputs(arguments, results))
        for path, text in written:
            path.write_text(text, encoding="utf-8")
        if arguments.text:
            print(table(results))
        elif not written:
            print(markdown(results))
    except (FleetError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(f"hint: {hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
