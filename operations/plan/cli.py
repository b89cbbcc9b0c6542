"""`fleet plan`, done and printed. Its options are commands/plan.py."""

import argparse
import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

from core.errors import FleetError
from operations.bench.result import REGIONAL_GATEWAY, BenchResult, Measured
from operations.plan import report
from operations.plan.deployed import compare
from operations.plan.report import Explained, Outcome
from operations.stack import deployed_or_nothing, in_clear
from operations.stack_file import FOLDER, kept, resolve
from planning import calibration, choice, fleet_plan
from planning.calibration import Measurement
from planning.choice import Choice, Resolved
from planning.stack_file import choices_file
from specs import yaml_file
from specs.accelerators import ACCELERATORS
from specs.fleet import FleetEntry, FleetSpec
from specs.planning import CalibrationSpec


def plan(arguments: argparse.Namespace) -> None:
    today = dt.datetime.now(tz=dt.UTC).date()
    entry, resolved = resolve(arguments.stack, anew=arguments.choose)
    remarks: list[str] = []
    if arguments.choose:
        remarks.append(_keep(arguments.stack, resolved, today))
    elif any(each.kept is None for each in resolved.choices):
        remarks.append("a choice that is not kept may be another one tomorrow: `fleet plan --choose` keeps it")
    unused = [name for name in kept(arguments.stack).models if name not in {each.model for each in resolved.choices}]
    if unused:
        remarks.append(f"{choices_file(FOLDER, arguments.stack).name} keeps {', '.join(unused)}: no model of this name leaves anything open")
    fleet, measured = calibrated(resolved.fleet, arguments.bench)
    found = fleet_plan.plan(fleet, today)
    outcome = Outcome(
        stack=arguments.stack,
        plan=found,
        choices=choices_of(arguments.stack, entry, resolved),
        difference=compare(fleet, found, in_clear(deployed_or_nothing(arguments.stack))),
        remarks=(*remarks, *measured),
    )
    if arguments.json:
        print(json.dumps(report.document(outcome), indent=2))
    else:
        print(report.markdown(outcome) if arguments.markdown else report.text(outcome))


def _keep(stack: str, resolved: Resolved, today: dt.date) -> str:
    """Writes the file of choices. Raises FleetError where nothing is open, or it cannot be written."""
    file = choices_file(FOLDER, stack)
    if not resolved.choices:
        raise FleetError(
            f"nothing to choose: every model of `{stack}` has accelerator, replicas and clusters", hint="docs/planning.md says what may be left out"
        )
    kept = choice.keep(resolved, today).model_dump(mode="json", by_alias=True, exclude_none=True)
    head = f"# What `fleet plan -s {stack} --choose` chose for what the stack file leaves open. Commit it: deployed models stay where it says.\n"
    try:
        file.write_text(head + yaml_file.dump(kept), encoding="utf-8")
    except OSError as error:
        raise FleetError(f"{file.name}: cannot be written: {error.strerror}") from None
    return f"the choices are kept in {file.relative_to(FOLDER.parent)}: commit it"


def choices_of(stack: str, entry: FleetEntry, resolved: Resolved) -> tuple[Explained, ...]:
    """Each choice with the second best, and with what moving would save where it stands by being kept."""
    again: dict[str, Choice] = {}
    if any(each.kept for each in resolved.choices):
        again = {each.model: each for each in resolve(stack, anew=True)[1].choices}
    return tuple(
        Explained(
            choice=each,
            second=choice.second_best(resolved, entry, each),
            saving=max(0.0, each.dollars_per_month - again[each.model].dollars_per_month) if each.kept and each.model in again else 0.0,
        )
        for each in resolved.choices
    )


def calibrated(fleet: FleetSpec, files: Sequence[Path]) -> tuple[FleetSpec, list[str]]:
    """The fleet with the shares that benchmarks of it show, before those of its stack file; and what to write there.

    Raises FleetError for a file that is no benchmark of a model of this fleet on GPUs.
    """
    found: list[CalibrationSpec] = []
    remarks: list[str] = []
    for file in files:
        for entry, notes in _entries(fleet, file):
            found.append(entry)
            remarks += [f"{file.name}: {each}" for each in notes]
            written = ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.model_dump(by_alias=True).items())
            remarks.append(f"to keep it, add to planning.calibration: {{{written}}}")
    if not found:
        return fleet, remarks
    planning = fleet.planning.model_copy(update={"calibration": (*found, *fleet.planning.calibration)})
    return fleet.model_copy(update={"planning": planning}), remarks


def _entries(fleet: FleetSpec, file: Path) -> list[tuple[CalibrationSpec, tuple[str, ...]]]:
    try:
        result = BenchResult.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FleetError(f"--bench {file}: {error}", hint="fleet bench MODEL --json FILE writes it") from None
    model = next((each for each in fleet.models if each.name == result.model), None)
    if model is None:
        raise FleetError(f"--bench {file}: measured a model that this stack does not have: `{result.model}`")
    measured: dict[str, Measured] = {each.cluster: each for each in result.endpoints if each.kind == REGIONAL_GATEWAY and each.ok}
    entries: list[tuple[CalibrationSpec, tuple[str, ...]]] = []
    for cluster, serving in result.serving.items():
        seen = _measurement(measured.get(cluster), serving.replicas)
        if serving.accelerator not in ACCELERATORS or seen is None:
            continue
        engine = fleet_plan.engine(model, serving.accelerators)
        source = f"{file.name}, {dt.datetime.fromtimestamp(result.started, tz=dt.UTC).date().isoformat()}, {cluster}"
        prior = fleet_plan.efficiency(fleet, model.name, serving.accelerator)
        shares, notes = calibration.calibrate(fleet_plan.shape(model), ACCELERATORS[serving.accelerator], engine, seen, prior, source)
        entry = CalibrationSpec(accelerator=serving.accelerator, model=model.name, memory=shares.memory, compute=shares.compute, source=source)
        entries.append((entry, notes))
    if not entries:
        raise FleetError(f"--bench {file}: no regional gateway of a cluster with GPUs answered in it", hint="a model on `cpu` tells nothing about GPUs")
    return entries


def _measurement(endpoint: Measured | None, replicas: int) -> Measurement | None:
    """A front door leads to any region: only a regional gateway tells of one kind of GPU."""
    if endpoint is None or endpoint.first_token is None or endpoint.per_output_token is None or not replicas:
        return None
    return Measurement(
        replicas=replicas,
        input_tokens=endpoint.input_tokens / endpoint.ok,
        output_tokens=endpoint.output_tokens / endpoint.ok,
        output_tokens_per_second=endpoint.output_tokens_per_second,
        first_token=endpoint.first_token.mean,
        per_output_token=endpoint.per_output_token.mean,
    )
