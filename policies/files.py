"""The pack's own files, read: YAML in which nothing is named twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from specs.base import Problem, SpecError

_MERGE = "tag:yaml.org,2002:merge"


def read(file: Path, loader: Any = yaml.SafeLoader) -> Any:
    """What the file holds; {} for an empty one. Raises SpecError."""
    try:
        text = file.read_text(encoding="utf-8")
        # YAML itself takes the last of two fields of one name, and the first is gone without a word.
        if wrong := list(_wrong_names(yaml.compose(text, Loader=yaml.SafeLoader), ())):
            raise SpecError(wrong)
        return yaml.load(text, Loader=loader) or {}
    except OSError as error:
        raise SpecError([Problem((), f"cannot be read: {error.strerror}")]) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SpecError([Problem((), f"is no YAML: {error}")]) from None


def _wrong_names(node: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if key.tag != _MERGE and not key.tag.endswith(":str"):
                yield Problem((*path, name), "must have a text as its name", name, f'write "{name}"')
            if name in seen:
                yield Problem((*path, name), f"is there twice, again in line {key.start_mark.line + 1}", hint="keep one of them")
            seen.add(name)
            yield from _wrong_names(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for place, each in enumerate(node.value):
            yield from _wrong_names(each, (*path, place))
