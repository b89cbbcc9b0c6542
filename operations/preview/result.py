"""What a preview found, as data that can be written and read again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.errors import FleetError

# Of the form of the JSON. A base of another form is not compared.
FORM = 1


@dataclass(frozen=True, kw_only=True)
class Violation:
    """What one policy says."""

    policy: str
    mandatory: bool
    resource: str
    """Empty for the stack as a whole."""
    message: str
    """The rule's title in its first line, then the breach, why, and the fix."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """One stack, previewed from nothing: all that it declares."""

    stack: str
    spec: Mapping[str, Any]
    """`fleet:spec` of the stack file."""
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Inputs by `type name`; components have none. Secrets are masked by the engine."""
    violations: tuple[Violation, ...] = ()
    errors: tuple[str, ...] = ()
    """Why there is no preview, in the program's or the engine's words; empty where there is one."""
    seconds: float = 0

    @property
    def refused(self) -> bool:
        return bool(self.errors) or any(each.mandatory for each in self.violations)

    def write(self, file: Path) -> None:
        """Raises FleetError."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"form": FORM, **asdict(self)}, indent=1), encoding="utf-8")
        except OSError as error:
            raise FleetError(f"cannot be written: {file}: {error.strerror}") from None


def read(file: Path) -> Preview:
    """What `write` wrote. Raises FleetError."""
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if told.pop("form") != FORM:
            raise FleetError(f"{file.name} was written by another version of `fleet preview`", hint="write it again")
        violations, errors = tuple(Violation(**each) for each in told.pop("violations")), tuple(told.pop("errors"))
        return Preview(**told, violations=violations, errors=errors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"cannot be read as a preview: {file}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What one change does to what a stack declares, by name of the resource."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict[str, Mapping[str, tuple[Any, Any]]])
    """The fields that differ, by path: before and after. None is a field that is not there."""

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.changed)


def difference(base: Preview, head: Preview) -> Difference:
    """From `base` to `head`."""
    before, after = base.resources, head.resources
    changed = {name: _fields(before[name], after[name]) for name in after if name in before and before[name] != after[name]}
    return Difference(
        added=tuple(sorted(after.keys() - before.keys())), removed=tuple(sorted(before.keys() - after.keys())), changed=dict(sorted(changed.items()))
    )


def _fields(before: Any, after: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    if before == after:
        return {}
    if isinstance(before, dict) and isinstance(after, dict):
        return _merged((f"{path}.{key}" if path else str(key), before.get(key), after.get(key)) for key in {**before, **after})
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return _merged((f"{path}[{place}]", *pair) for place, pair in enumerate(zip(before, after, strict=True)))
    text = _document(before), _document(after)
    if text[0] is not None and text[1] is not None:
        return _fields(text[0], text[1], path)
    return {path: (before, after)}


def _merged(parts: Any) -> dict[str, tuple[Any, Any]]:
    return {where: pair for path, before, after in parts for where, pair in _fields(before, after, path).items()}


def _document(value: Any) -> Any:
    """What lies in a text of JSON, such as a command's stdin; None for anything else."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return None
    return None
