"""What differs between two trees of plain values, as Pulumi's property paths. No network and no engine here."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]

# Stands for no value at all, which a null is not.
MISSING: Any = object()


@dataclass(frozen=True)
class Change:
    """One difference. `kind` is add, delete or update; `replace` means that it cannot be made in place."""

    path: Path
    kind: str
    replace: bool

    @property
    def property_path(self) -> str:
        text = ""
        for step in self.path:
            if isinstance(step, int):
                text += f"[{step}]"
            elif any(character in step for character in '."[]'):
                text += '["' + step.replace('"', '\\"') + '"]'
            else:
                text += f".{step}" if text else step
        return text


_STEP = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+|\*)\]|\.?([^.\[\]]+)')


def parse_path(text: str) -> Path:
    """A Pulumi property path: `metadata.labels["a.b"]`, `spec.ports[0]`; `*` stands for any step."""
    steps: list[str | int] = []
    for quoted, index, word in _STEP.findall(text):
        if index:
            steps.append(int(index) if index != "*" else "*")
        else:
            steps.append(word or quoted.replace('\\"', '"'))
    return tuple(steps)


def at(value: Any, step: str | int) -> Any:
    """The member or item at a step, MISSING where there is none."""
    if isinstance(step, str) and isinstance(value, dict):
        return value.get(step, MISSING)
    if isinstance(step, int) and isinstance(value, list) and step < len(value):
        return value[step]
    return MISSING


def changes(old: dict[str, Any], new: dict[str, Any], *, replace_on: Iterable[str] = (), ignore: Iterable[str] = ()) -> list[Change]:
    """What leads from `old` to `new`. Paths under `ignore` are left out. A change below a property in `replace_on` replaces the resource."""
    ignored = [parse_path(text) for text in ignore]
    replacing = frozenset(replace_on)
    found = [path_and_kind for path_and_kind in _changes((), old, new) if not any(_covers(pattern, path_and_kind[0]) for pattern in ignored)]
    return [Change(path, kind, path[0] in replacing) for path, kind in found]


def _changes(path: Path, old: Any, new: Any) -> Iterator[tuple[Path, str]]:
    if old is MISSING:
        yield path, "add"
    elif isinstance(new, dict) and isinstance(old, dict):
        for key, value in new.items():
            yield from _changes((*path, key), old.get(key, MISSING), value)
        for key in sorted(old.keys() - new.keys()):
            yield (*path, key), "delete"
    elif isinstance(new, list) and isinstance(old, list):
        for index, value in enumerate(new):
            yield from _changes((*path, index), at(old, index), value)
        for index in range(len(new), len(old)):
            yield (*path, index), "delete"
    elif not _same(old, new):
        yield path, "update"


def _same(left: Any, right: Any) -> bool:
    """Equal values; to Python, True is 1."""
    return isinstance(left, bool) is isinstance(right, bool) and left == right


def _covers(pattern: Path, path: Path) -> bool:
    return len(pattern) <= len(path) and all(wanted in ("*", step) for wanted, step in zip(pattern, path, strict=False))
