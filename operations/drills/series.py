"""`fleet drill`, done and printed: one case or all of them, each once or several times. Its options are commands/drill.py."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.errors import FleetError
from core.exclusive import exclusive
from core.interrupts import heeding_sigterm, undisturbed
from core.progress import Progress
from local.host_cluster import UnitError
from operations import token
from operations.drills import plan as plans
from operations.drills import report, run, verdict
from operations.drills.case import Options, Plan
from operations.drills.cases import CASES, EVERY
from operations.drills.faults.errors import FaultError
from operations.drills.faults.journal import Journal, heal_left_over
from operations.drills.options import allow, check_options
from operations.drills.result import DrillResult
from operations.stack import deployed, in_clear, require_backend
from operations.stack_file import read_fleet
from specs.fleet import FleetSpec
from toolchain import paths

# Their rate is low, and what matters is how many are under way at once, not how many there are in all.
_STREAMS = 3_000


def options_of(arguments: argparse.Namespace) -> Options:
    return Options(
        case=arguments.case,
        stack=arguments.stack,
        cluster=arguments.cluster,
        model=arguments.model,
        rate=arguments.rate,
        requests=arguments.requests,
        stream=arguments.stream,
        tokens=arguments.tokens,
        doors=tuple(each for each in arguments.doors.split(",") if each),
        mock_engine=arguments.mock_engine,
        baseline=arguments.baseline,
        repeat=arguments.repeat,
        json_file=arguments.json,
        report=arguments.report,
        token=token.read(arguments.token_file),
        not_local=arguments.not_local,
        meant=arguments.yes_i_mean,
    )


def drill(arguments: argparse.Namespace) -> None:
    options = options_of(arguments)
    check_options(options)
    fleet = read_fleet(options.stack)
    allow(options, fleet)
    # A drill that was cut off may have put the backend away.
    if not Journal().steps():
        require_backend(options.stack)
    progress = Progress()
    results: list[DrillResult] = []
    broken: list[str] = []
    try:
        with exclusive(paths.STATE / "up.lock", f"fleet drill {options.case}"), heeding_sigterm():
            with undisturbed(progress.say):
                heal_left_over(progress.say)
            outputs = in_clear(deployed(options.stack))
            token.require(outputs, options.token)
            for each in _plans(options, fleet, outputs, progress):
                broken += runs(each, outputs, results, progress)
    except (FaultError, UnitError, TimeoutError, ValueError) as error:
        raise FleetError(str(error), hint=getattr(error, "hint", "")) from None
    finally:
        # Also of a series that was cut off.
        _write(options, results)
    if results:
        print(report.markdown(results) if len(results) > 1 else report.table(results))
    failed = [each for each in results if each.settings == "declared" and not verdict.judge(each, verdict.analysed(each)).passed]
    if failed:
        told = ", ".join(dict.fromkeys(each.case for each in failed))
        broken.append(f"{len(failed)} of {sum(each.settings == 'declared' for each in results)} drills did not keep their goals: {told}")
    if broken:
        raise FleetError("\n".join(broken))


def _plans(options: Options, fleet: FleetSpec, outputs: Mapping[str, Any], progress: Progress) -> list[Plan]:
    """All are planned before the first runs: a drill of an hour should not end in a refusal."""
    if options.case != EVERY:
        return [plans.resolve(options, fleet, outputs)]
    found: list[Plan] = []
    for each in every(options):
        try:
            found.append(plans.resolve(each, fleet, outputs))
        except FleetError as error:
            progress.say(f"{each.case} is left out: {error}")
    if not found:
        raise FleetError("no case can be drilled here")
    return found


def every(options: Options) -> list[Options]:
    """One for each case, and one more for streams."""
    found: list[Options] = []
    for case in CASES.values():
        # Some loads and models are the case's own.
        plain = replace(options, case=case.name, baseline=options.baseline and case.published)
        if case.own_load:
            plain = replace(plain, rate=None, requests=None)
        if case.choose_model:
            plain = replace(plain, model=None)
        found.append(plain)
        if case.streams_in_all and not options.stream:
            found.append(replace(plain, stream=True, rate=None, requests=options.requests or _STREAMS, baseline=False))
    return found


def runs(each: Plan, outputs: Mapping[str, Any], results: list[DrillResult], progress: Progress) -> list[str]:
    """Adds to `results` as it goes. Returns what kept a run of a series from its end: the others are done all the same."""
    broken: list[str] = []
    series = each.options.repeat > 1 or each.options.case == EVERY
    for number in range(1, each.options.repeat + 1):
        told = f", run {number} of {each.options.repeat}" if each.options.repeat > 1 else ""
        try:
            with progress.stage(f"{plans.describe(each)}{told}"):
                found = run.drill(each, outputs, number, progress.say)
        except FaultError:
            # What is still broken would break the next run too.
            raise
        except FleetError as error:
            if not series:
                raise
            broken.append(f"{each.case.name}{told}: {error}")
            progress.say(f"  {broken[-1]}")
            continue
        results += found
        for result in found:
            judged = verdict.judge(result, verdict.analysed(result))
            kept = "all goals kept" if judged.passed else f"not kept: {'; '.join(f'{line.name} {line.measured}' for line in judged.failed)}"
            progress.say(f"  {result.settings} settings: {kept}")
    return broken


def _write(options: Options, results: Sequence[DrillResult]) -> None:
    if not results:
        return
    if options.json_file is not None:
        texts = [each.to_json() for each in results]
        options.json_file.write_text(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]", encoding="utf-8")
    if options.report is not None:
        print(f"report: {report.write(results, options.report)[0]}")
