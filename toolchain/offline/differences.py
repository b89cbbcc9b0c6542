"""What differs between two trees of plain values, as Pulumi's property paths. No network and no engine here."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from toolchain.offline.wire import Unknown

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


def changes(old: Any, new: Any, force_new: Iterable[Path], dropped: Any = MISSING, ignore: Iterable[str] = ()) -> list[Change]:
    """What leads from `old` to `new`. Paths under `ignore` are left out.

    `force_new` are paths whose change means a replacement. What `dropped` has at a place counts as present in `old`
    where `old` has nothing.
    """
    ignored = [parse_path(text) for text in ignore]
    patterns = list(force_new)
    found: list[Change] = []
    for path, kind, value in _changes((), old, new, dropped):
        if any(_covers(pattern, path) for pattern in ignored):
            continue
        found.append(Change(path, kind, any(_forces(pattern, path, value) for pattern in patterns)))
    return found


def _changes(path: Path, old: Any, new: Any, dropped: Any) -> Iterator[tuple[Path, str, Any]]:
    if old is MISSING:
        if not _same(new, dropped) or isinstance(new, Unknown):
            yield path, "add", new
    elif isinstance(new, dict) and isinstance(old, dict):
        for key, value in new.items():
            yield from _changes((*path, key), old.get(key, MISSING), value, at(dropped, key))
        for key in sorted(old.keys() - new.keys()):
            yield (*path, key), "delete", None
    elif isinstance(new, list) and isinstance(old, list):
        for index, value in enumerate(new):
            yield from _changes((*path, index), at(old, index), value, at(dropped, index))
        for index in range(len(new), len(old)):
            yield (*path, index), "delete", None
    elif not _same(old, new):
        yield path, "update", new


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def _covers(pattern: Path, path: Path) -> bool:
    return len(pattern) <= len(path) and all(wanted in ("*", step) for wanted, step in zip(pattern, path, strict=False))


def _forces(pattern: Path, path: Path, value: Any) -> bool:
    """Whether a change at `path` touches `pattern`: from above only if the new value reaches down to it."""
    for index, wanted in enumerate(pattern):
        if index < len(path):
            if wanted != path[index] and not (wanted == "*" and isinstance(path[index], int)):
                return False
        elif wanted == "*":
            return isinstance(value, list) and any(_forces(pattern[index + 1 :], (), item) for item in value)
        elif isinstance(value, dict) and wanted in value:
            value = value[wanted]
        else:
            return False
    return True
