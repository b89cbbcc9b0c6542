"""The configuration of a stack: one object in its stack file, and secrets beside it.

The only reader of `pulumi.Config`. Secrets are keys of their own because one nested in the object would come back as plain
text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi

from planning.choice import Choice
from planning.stack_file import choices_file, kept_choices, resolve_fleet
from specs.base import Problem, SpecError
from specs.drivers.existing import ExistingDriver
from specs.fleet import FleetSpec

KEY = "spec"


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A valid stack: its Spec, what of it the planner chose, and the kubeconfigs of clusters that exist already. They are secrets."""

    spec: FleetSpec
    choices: tuple[Choice, ...]
    kubeconfigs: Mapping[str, pulumi.Output[str]]


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
