"""The stack file of an environment, read for commands that are not Pulumi's."""

import yaml

from components.fleet_spec import FleetSpec
from components.spec import SpecError
from operations.errors import FleetError
from stacks.config import parse_fleet
from toolchain import paths


def read_fleet(stack: str) -> FleetSpec:
    """The stack file. Raises FleetError."""
    file = paths.REPO / "stacks" / f"Pulumi.{stack}.yaml"
    try:
        return parse_fleet(yaml.safe_load(file.read_text(encoding="utf-8"))["config"]["fleet:spec"])
    except FileNotFoundError:
        raise FleetError(f"no stack file for `{stack}`: {file.relative_to(paths.REPO)}") from None
    except (SpecError, KeyError, TypeError, yaml.YAMLError) as error:
        raise FleetError(f"{file.relative_to(paths.REPO)}: {error}") from None
