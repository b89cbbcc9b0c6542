"""From the content of a stack file to a valid FleetSpec, with what the planner chose."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from planning import choice, rules
from planning.choice import NOTHING_KEPT, Kept, Resolved
from specs import yaml_file
from specs.base import WHOLE_FILE, Problem, SpecError, parse
from specs.fleet import FleetEntry

# Lists whose entries are checked one by one, so that a broken entry hides no other error.
_LISTS = ("models",)


def resolve_fleet(raw: Any, kept: Kept = NOTHING_KEPT, *, anew: bool = False) -> tuple[FleetEntry, Resolved]:
    """What is written below `fleet:spec`, and what it becomes: planning/choice.py decides what is left open. Raises SpecError."""
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
    raw = yaml_file.read(file)
    if not isinstance(raw, dict):
        raise SpecError([Problem(WHOLE_FILE, "must be a mapping of fields", raw)])
    return parse(Kept, raw, lambda _: ())


def choices_file(folder: Path, stack: str) -> Path:
    """Where `fleet plan --choose` keeps what was chosen for a stack."""
    return folder / f"choices.{stack}.yaml"
