"""The stack file of an environment, read for commands that are not Pulumi's."""

from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from core.errors import FleetError
from planning.choice import Kept, Resolved
from planning.stack_file import choices_file, kept_choices, resolve_fleet
from specs import yaml_file
from specs.base import Problem, SpecError
from specs.drivers import ClusterDriver
from specs.fleet import FleetEntry, FleetSpec
from toolchain import paths

_DRIVER: TypeAdapter[ClusterDriver] = TypeAdapter(ClusterDriver)

FOLDER = paths.REPO / "stacks"
# Where the Spec is in a stack file.
_SPEC = ("config", "fleet:spec")


def _folders(stacks: Path) -> tuple[Path, Path]:
    """Where stack files are looked for; those of the second are to be looked at and copied."""
    return stacks, stacks / "examples"


def path(stack: str) -> Path:
    """The file of a stack, which may be an example. Raises FleetError."""
    for folder in _folders(FOLDER):
        if (folder / f"Pulumi.{stack}.yaml").is_file():
            return folder / f"Pulumi.{stack}.yaml"
    raise FleetError(f"no stack file for `{stack}`: stacks/Pulumi.{stack}.yaml", hint=f"there are: {', '.join(stacks())}")


def stacks(folder: Path = FOLDER) -> list[str]:
    """Every stack that has a file in `folder`, examples too."""
    return sorted(name_of(file.name) for each in _folders(folder) for file in each.glob("Pulumi.*.yaml"))


def name_of(file: str) -> str:
    """The stack of a file `Pulumi.<stack>.yaml`. A stack may have dots in its name."""
    return file.removeprefix("Pulumi.").removesuffix(".yaml")


def runs_here(stack: str) -> bool:
    """Whether any cluster of the stack runs on this machine, so that its state folder and `make down` concern it.

    Read from the text of the file: asked before an update, which tells every error of it. An unreadable file counts as if.
    """
    try:
        raw = read_spec(path(stack))
    except FleetError:
        return True
    entries: list[Any] = [raw.get("hub"), *_list(raw.get("clusters"))]
    return any(_is_here(cast(dict[str, Any], each).get("driver")) for each in entries if isinstance(each, dict))


def _is_here(driver: Any) -> bool:
    try:
        return _DRIVER.validate_python(driver).capabilities.on_this_machine
    except ValidationError:
        return True


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def read_fleet(stack: str) -> FleetSpec:
    """The stack file, with what the planner chose. Raises FleetError."""
    return resolve(stack)[1].fleet


def read_spec(file: Path) -> dict[str, Any]:
    """What is below `fleet:spec` of a stack file, unchecked. Raises FleetError."""
    try:
        raw = yaml_file.read(file)
    except SpecError as error:
        # Fields are named as in all other errors: below `fleet:spec`.
        problems = [Problem(each.path[len(_SPEC) :], each.rule, each.value, each.hint) if each.path[: len(_SPEC)] == _SPEC else each for each in error.problems]
        raise FleetError(SpecError(problems).of(shown(file))) from None
    for key in _SPEC:
        raw = cast(dict[str, Any], raw).get(key) if isinstance(raw, dict) else None
    if not isinstance(raw, dict):
        raise FleetError(f"{shown(file)}: config.fleet:spec: must be a mapping of fields", hint="docs/stack-file.md shows a whole one")
    return cast(dict[str, Any], raw)


def shown(file: Path) -> str:
    """As errors name it: within the clone where it is there."""
    return str(file.relative_to(paths.REPO)) if file.is_relative_to(paths.REPO) else str(file)


def resolve(stack: str, *, anew: bool = False) -> tuple[FleetEntry, Resolved]:
    """What a stack file says, and what it becomes. anew: choices that stand may be moved. Raises FleetError."""
    file = path(stack)
    try:
        return resolve_fleet(read_spec(file), kept(stack), anew=anew)
    except SpecError as error:
        raise FleetError(error.of(shown(file))) from None


def kept(stack: str) -> Kept:
    """The choices that stand. Raises FleetError."""
    file = choices_file(FOLDER, stack)
    try:
        return kept_choices(FOLDER, stack)
    except SpecError as error:
        raise FleetError(error.of(shown(file)), hint="remove it, then run fleet plan --choose, which writes a new one") from None
