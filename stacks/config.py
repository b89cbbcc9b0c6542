"""The configuration of a stack: one object in its stack file, and secrets beside it.

The only reader of `pulumi.Config`. Secrets are keys of their own because one nested in the object would come back as plain
text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components import rules
from components.clusters import ExistingDriver
from components.fleet_spec import FleetSpec
from components.spec import Problem, SpecError, parse

KEY = "spec"
# Lists whose entries are checked one by one, so that a broken entry hides no other error.
_LISTS = ("models",)


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A valid stack: its Spec, and the kubeconfigs of clusters that exist already. They are secrets."""

    spec: FleetSpec
    kubeconfigs: Mapping[str, pulumi.Output[str]]


def parse_fleet(raw: Any) -> FleetSpec:
    """The Spec below `fleet:spec`. Raises SpecError with everything that is wrong."""
    return parse(FleetSpec, raw, rules.problems, _LISTS)


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
        spec = parse_fleet(raw)
        return StackConfig(spec=spec, kubeconfigs=_kubeconfigs(spec, config, folder))
    except SpecError as error:
        count = len(error.problems)
        lines = "\n".join(f"{file}: {problem}" for problem in error.problems)
        raise pulumi.RunError(f"{count} {'error' if count == 1 else 'errors'} in the stack file\n{lines}") from None


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
