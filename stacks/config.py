"""The configuration of a stack: one object in its stack file, and secrets beside it.

The only reader of `pulumi.Config`. Secrets are keys of their own because one nested in the object would come back as plain
text.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi
import yaml

from components import choice, rules
from components.choice import NOTHING_KEPT, Choice, Kept, Resolved
from components.clusters import ExistingDriver
from components.fleet_spec import FleetEntry, FleetSpec
from components.spec import Problem, SpecError, parse

KEY = "spec"
# Lists whose entries are checked one by one, so that a broken entry hides no other error.
_LISTS = ("models",)
# Where a problem is of a file as such.
_WHOLE = ("the file",)


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A valid stack: its Spec, what of it the planner chose, and the kubeconfigs of clusters that exist already. They are secrets."""

    spec: FleetSpec
    choices: tuple[Choice, ...]
    kubeconfigs: Mapping[str, pulumi.Output[str]]


def parse_fleet(raw: Any) -> FleetSpec:
    """The Spec below `fleet:spec`, with nothing left open. Raises SpecError with everything that is wrong."""
    return resolve_fleet(raw)[1].fleet


def resolve_fleet(raw: Any, kept: Kept = NOTHING_KEPT, *, anew: bool = False) -> tuple[FleetEntry, Resolved]:
    """What is written below `fleet:spec`, and what it becomes: components/choice.py decides what is left open. Raises SpecError."""
    found: list[Resolved] = []

    def problems(entry: FleetEntry) -> Iterator[Problem]:
        found.append(choice.resolve(entry, kept, anew=anew))
        yield from found[-1].problems
        places = found[-1].places
        for each in rules.problems(found[-1].fleet):
            model = each.path[1] if each.path[:1] == ("models",) and len(each.path) > 1 else None
            yield each if not isinstance(model, int) else replace(each, path=("models", places[model], *each.path[2:]))

    entry = parse(FleetEntry, raw, problems, _LISTS)
    return entry, found[-1]


def kept_choices(folder: Path, stack: str) -> Kept:
    """The choices that stand for a stack, nothing where the file is not there. Raises SpecError."""
    file = choices_file(folder, stack)
    if not file.exists():
        return NOTHING_KEPT
    raw = read_yaml(file) or {}
    if not isinstance(raw, dict):
        raise SpecError([Problem(_WHOLE, "must be a mapping of fields", raw)])
    return parse(Kept, raw, lambda _: ())


def read_yaml(file: Path) -> Any:
    """Raises SpecError for what cannot be read as YAML."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        rule = "is no text in UTF-8"
    except yaml.YAMLError as error:
        rule = f"is no YAML: {error}"
    raise SpecError([Problem(_WHOLE, rule)])


def choices_file(folder: Path, stack: str) -> Path:
    """Where `fleet plan --choose` keeps what was chosen for a stack."""
    return folder / f"choices.{stack}.yaml"


def load(folder: Path) -> StackConfig:
    """The configuration of the selected stack, whose file lies in `folder`.

    Raises RunError: every problem on a line of its own with file, field, rule and value, then a hint.
    """
    config = pulumi.Config()
    file = f"{folder.name}/Pulumi.{pulumi.get_stack()}.yaml"
    raw = config.get_object(KEY)
    if raw is None:
        raise pulumi.RunError(f"{file}: {config.full_key(KEY)}: is required\n  hint: docs/stack-file.md shows a whole one")
    try:
        kept = kept_choices(folder, pulumi.get_stack())
    except SpecError as error:
        raise _refusal(f"{folder.name}/{choices_file(folder, pulumi.get_stack()).name}", "the kept choices", error) from None
    try:
        _, resolved = resolve_fleet(raw, kept)
        return StackConfig(spec=resolved.fleet, choices=resolved.choices, kubeconfigs=_kubeconfigs(resolved.fleet, config, folder))
    except SpecError as error:
        raise _refusal(file, "the stack file", error) from None


def _refusal(file: str, what: str, error: SpecError) -> pulumi.RunError:
    count = len(error.problems)
    lines = "\n".join(f"{file}: {problem}" for problem in error.problems)
    return pulumi.RunError(f"{count} {'error' if count == 1 else 'errors'} in {what}\n{lines}")


def _kubeconfigs(spec: FleetSpec, config: pulumi.Config, folder: Path) -> dict[str, pulumi.Output[str]]:
    found: dict[str, pulumi.Output[str]] = {}
    problems: list[Problem] = []
    for place, cluster in enumerate(spec.clusters):
        driver = cluster.driver
        if not isinstance(driver, ExistingDriver):
            continue
        path = ("clusters", place, "driver")
        if driver.kubeconfig_secret is not None:
            secret = config.get_secret(driver.kubeconfig_secret)
            if secret is None:
                hint = f"pulumi config set --secret {config.full_key(driver.kubeconfig_secret)} < kubeconfig"
                problems.append(Problem((*path, "kubeconfigSecret"), "no such secret in the stack's configuration", driver.kubeconfig_secret, hint))
            else:
                found[cluster.name] = secret
        else:
            file = folder / Path(driver.kubeconfig_path or "").expanduser()
            try:
                found[cluster.name] = pulumi.Output.secret(file.read_text(encoding="utf-8"))
            except OSError as error:
                rule = f"cannot be read ({error.strerror})"
                problems.append(Problem((*path, "kubeconfigPath"), rule, driver.kubeconfig_path, "it is relative to the folder of the stack file"))
    if problems:
        raise SpecError(problems)
    return found
