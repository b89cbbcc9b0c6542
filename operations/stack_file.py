"""The stack file of an environment, read for commands that are not Pulumi's."""

import yaml

from components.choice import Kept, Resolved
from components.fleet_spec import FleetEntry, FleetSpec
from components.spec import SpecError
from operations.errors import FleetError
from stacks.config import choices_file, kept_choices, resolve_fleet
from toolchain import paths

FOLDER = paths.REPO / "stacks"


def read_fleet(stack: str) -> FleetSpec:
    """The stack file, with what the planner chose. Raises FleetError."""
    return resolve(stack)[1].fleet


def resolve(stack: str, *, anew: bool = False) -> tuple[FleetEntry, Resolved]:
    """What a stack file says, and what it becomes. anew: choices that stand may be moved. Raises FleetError."""
    file = FOLDER / f"Pulumi.{stack}.yaml"
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]["fleet:spec"]
        return resolve_fleet(raw, kept(stack), anew=anew)
    except FileNotFoundError:
        raise FleetError(f"no stack file for `{stack}`: {file.relative_to(paths.REPO)}") from None
    except (SpecError, KeyError, TypeError, yaml.YAMLError) as error:
        raise FleetError(f"{file.relative_to(paths.REPO)}: {error}") from None


def kept(stack: str) -> Kept:
    """The choices that stand. Raises FleetError."""
    file = choices_file(FOLDER, stack)
    try:
        return kept_choices(FOLDER, stack)
    except SpecError as error:
        raise FleetError(f"{file.relative_to(paths.REPO)}: {error}", hint="fleet plan --choose writes it anew once it is removed") from None
