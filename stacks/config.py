"""The configuration of a stack: one object in its stack file, and secrets beside it.

The only reader of `pulumi.Config`. Secrets are keys of their own because one nested in the object would come back as plain
text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pulumi

from kube import kubeconfig
from planning.choice import Choice
from planning.stack_file import choices_file, kept_choices, resolve_fleet
from specs import yaml_file
from specs.base import Path as SpecPath
from specs.base import Problem, SpecError
from specs.drivers.driver import KubeconfigFile, KubeconfigSecret
from specs.fleet import FleetSpec

KEY = "spec"

# No cluster can have this name.
_HOST = "host of the hub"


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A valid stack: its Spec, what of it the planner chose, and the kubeconfigs of clusters that exist already. They are secrets."""

    spec: FleetSpec
    choices: tuple[Choice, ...]
    kubeconfigs: Mapping[str, pulumi.Output[str]]
    host_kubeconfig: pulumi.Output[str] | None
    """Of the cluster in which Karmada runs, where the stack file names it."""


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
        _, resolved = resolve_fleet(yaml_file.from_pulumi(raw), kept)
        kubeconfigs = _kubeconfigs(resolved.fleet, config, folder)
        host = kubeconfigs.pop(_HOST, None)
        return StackConfig(spec=resolved.fleet, choices=resolved.choices, kubeconfigs=kubeconfigs, host_kubeconfig=host)
    except SpecError as error:
        raise _refusal(file, "the stack file", error) from None


def _refusal(file: str, what: str, error: SpecError) -> pulumi.RunError:
    count = len(error.problems)
    return pulumi.RunError(f"{count} {'error' if count == 1 else 'errors'} in {what}\n{error.of(file)}")


def _kubeconfigs(spec: FleetSpec, config: pulumi.Config, folder: Path) -> dict[str, pulumi.Output[str]]:
    """Kubeconfigs that drivers do not make, by cluster, and by _HOST. Raises SpecError with every one that is not found."""
    found: dict[str, pulumi.Output[str]] = {}
    problems: list[Problem] = []
    host = spec.hub.driver.karmada_host
    wanted: list[tuple[str, SpecPath, KubeconfigFile | KubeconfigSecret | None]] = [
        (spec.hub.name, ("hub",), spec.hub.driver.kubeconfig_source),
        (_HOST, ("hub",), host.kubeconfig_source if host else None),
        *((each.name, ("clusters", at), each.driver.kubeconfig_source) for at, each in enumerate(spec.clusters)),
    ]
    for name, path, source in wanted:
        if source is None:
            continue
        given = _secret(source, config) if isinstance(source, KubeconfigSecret) else _file(source, folder)
        if isinstance(given, Problem):
            problems.append(replace(given, path=(*path, *given.path)))
        else:
            found[name] = given
    if problems:
        raise SpecError(problems)
    return found


def _secret(source: KubeconfigSecret, config: pulumi.Config) -> pulumi.Output[str] | Problem:
    secret = config.get_secret(source.key)
    if secret is not None:
        return secret
    hint = f"pulumi config set --secret {config.full_key(source.key)} < kubeconfig"
    return Problem(("driver", source.field), "no such secret in the stack's configuration", source.key, hint)


def _file(source: KubeconfigFile, folder: Path) -> pulumi.Output[str] | Problem:
    try:
        return pulumi.Output.secret(kubeconfig.portable(folder / Path(source.path).expanduser()))
    except kubeconfig.KubeconfigError as error:
        rule = str(error)
    except OSError as error:
        rule = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        rule = "is not valid UTF-8"
    return Problem(("driver", source.field), rule, source.path, "it is relative to the folder of the stack file")
