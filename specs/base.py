"""What a Spec is, and how everything wrong with a stack file is told at once.

A Spec is plain data that a person writes: no Outputs, no defaults elsewhere. Checks of one field sit at the field; checks
that need several Specs are in rules.py. Both end as Problems.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

# Where in the stack file: field names as YAML has them, and places in lists.
Path = tuple[str | int, ...]
# Path of a problem with the file itself, such as one that cannot be read.
WHOLE_FILE: Path = ("the file",)

_S = TypeVar("_S", bound="Spec")

# Type of the errors that our own field checks raise; their message is already in our words.
_OWN = "fleet"


class Spec(BaseModel):
    """One mapping of a stack file. Keys are camelCase there; unknown keys are refused; values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, alias_generator=to_camel, use_attribute_docstrings=True)


class _Nothing:
    """Stands for "no value to show": a missing field has none."""


NOTHING = _Nothing()


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a stack file: where, which rule, the value, and what to do."""

    path: Path
    rule: str
    value: Any = NOTHING
    hint: str | None = None

    @property
    def what(self) -> str:
        """The rule, the value and the hint."""
        got = "" if self.value is NOTHING else f", got: `{_show(self.value)}`"
        return f"{self.rule}{got}" + (f"\n  hint: {self.hint}" if self.hint else "")

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.what}"

    def of(self, file: str) -> str:
        """The same as an error of `file`."""
        return f"{file}: {self.what if self.path == WHOLE_FILE else self}"


class SpecError(Exception):
    """Every problem of one stack file. `problems` is never empty."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))

    def of(self, file: str) -> str:
        """Every problem as an error of `file`, each on a line of its own."""
        return "\n".join(each.of(file) for each in self.problems)


def format_path(path: Path) -> str:
    """`models[0].placement.clusters[1].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "fleet:spec"


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 120 else text[:117] + "..."


def closest(name: Any, known: Iterable[str]) -> str | None:
    """A hint: the known name most like `name`, or all known names where none is alike."""
    names = list(known)
    alike = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if alike:
        return f"did you mean `{alike[0]}`?"
    return f"known: {', '.join(f'`{each}`' for each in sorted(names))}" if names else None


def refuse(rule: str, hint: str | None = None) -> PydanticCustomError:
    """The error that a field's own check raises."""
    # Pydantic reads braces in a message as placeholders.
    return PydanticCustomError(_OWN, "{rule}", {"rule": rule, "hint": hint})


def checked(pattern: str, limit: int, rule: str, why_limit: str) -> Any:
    """Metadata of a text field that matches `pattern` wholly and has at most `limit` characters.

    The same two go to the JSON schema, so that an editor complains before Pulumi does.
    """
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > limit:
            raise refuse(f"must have at most {limit} characters", why_limit)
        if not compiled.fullmatch(value):
            raise refuse(rule)
        return value

    return (AfterValidator(check), Field(json_schema_extra={"pattern": f"^(?:{pattern})$", "maxLength": limit}))


_DNS = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_DNS_RULE = "must start with a letter, end with a letter or digit, and hold only a-z, 0-9 and `-`"

Name = Annotated[str, *checked(_DNS, 40, _DNS_RULE, "it becomes part of node names")]


def dns_name(limit: int, why_limit: str) -> Any:
    """Metadata of a name that Kubernetes takes as a DNS label."""
    return checked(_DNS, limit, _DNS_RULE, why_limit)


def parse(spec: type[_S], raw: Any, rules: Callable[[_S], Iterable[Problem]], list_fields: Sequence[str] = ()) -> _S:
    """The Spec in `raw`, once types and `rules` hold.

    Types and rules are told together as far as they can be: unknown fields are set aside, and entries of the lists
    `list_fields` with wrong types are left out, before the rules look at the rest. Raises SpecError.
    """
    problems: list[Problem] = []
    rest = raw
    for _ in range(3):
        try:
            parsed = _validate(spec, rest)
        except ValidationError as error:
            details = _of_their_own(error.errors(include_url=False))
            if not problems:
                problems = [_problem(spec, detail, raw) for detail in details]
            pruned = _without_bad_parts(rest, details, list_fields)
            if pruned is None:
                break
            rest = pruned
        else:
            # Where entries were left out, places in lists no longer match the file: then only rules about clusters and
            # models that stayed are told, with the places they have in the file.
            problems += [Problem(_place_in_file(each.path, rest), each.rule, each.value, each.hint) for each in rules(parsed)]
            if problems:
                raise SpecError(problems)
            return parsed
    raise SpecError(problems)


def _of_their_own(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without lists that are too short only because an entry has an error."""
    inside = {detail["loc"][:depth] for detail in details for depth, part in enumerate(detail["loc"]) if isinstance(part, int)}
    return [each for each in details if not (each["type"] == "too_short" and each["loc"] in inside)]


def _validate(spec: type[_S], raw: Any) -> _S:
    # Through JSON, because there strict typing still takes a list for a tuple.
    return spec.model_validate_json(json.dumps(_public(raw)))


# Key that remembers an entry's place in the file after others were left out; never part of a stack file.
_PLACE = "\0place"


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(each) for key, each in cast(dict[str, Any], value).items() if key != _PLACE}
    if isinstance(value, list):
        return [_public(each) for each in cast(list[Any], value)]
    return value


def _place_in_file(path: Path, raw: Any) -> Path:
    result: list[str | int] = []
    current: Any = raw
    for part in path:
        try:
            current = current[part]
        except (KeyError, IndexError, TypeError):
            current = None
        place = cast(dict[str, Any], current).get(_PLACE) if isinstance(current, dict) else None
        result.append(part if place is None else place)
    return tuple(result)


def _without_bad_parts(raw: Any, details: Sequence[ErrorDetails], list_fields: Sequence[str]) -> Any | None:
    """`raw` without unknown fields and without list entries that hold an error; None where that cannot help."""
    if not isinstance(raw, dict):
        return None
    root = cast(dict[str, Any], json.loads(json.dumps(raw)))
    for name in list_fields:
        entries = root.get(name)
        if isinstance(entries, list):
            for place, entry in enumerate(cast(list[Any], entries)):
                if isinstance(entry, dict):
                    cast(dict[str, Any], entry).setdefault(_PLACE, place)
    bad: dict[str, set[int]] = {}
    helped = False
    for detail in details:
        path = _path(detail["loc"], raw)
        if detail["type"] == "extra_forbidden":
            holder: Any = root
            for part in path[:-1]:
                holder = holder[part]
            holder.pop(path[-1], None)
            helped = True
        elif len(path) > 1 and path[0] in list_fields and isinstance(path[1], int):
            bad.setdefault(str(path[0]), set()).add(path[1])
            helped = True
        else:
            return None
    for name, places in bad.items():
        root[name] = [entry for place, entry in enumerate(root[name]) if place not in places]
    return root if helped else None


def _path(loc: Sequence[str | int], raw: Any) -> Path:
    """`loc` without the tags that pydantic adds for a union: they are no keys of the file."""
    path: list[str | int] = []
    current = raw
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(part, int):
            path.append(part)
            current = cast(list[Any], current)[part] if isinstance(current, list) and part < len(cast(list[Any], current)) else None
        elif isinstance(current, dict) and part in current:
            path.append(part)
            current = cast(dict[str, Any], current)[part]
        elif last and not (isinstance(current, dict) and cast(dict[str, Any], current).get("kind") == part):
            path.append(part)
    return tuple(path)


# Pydantic's error types in our words. `{…}` are the values of the error's own context.
_RULES = {
    "missing": "is required",
    "extra_forbidden": "unknown field",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} character(s)",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of fields",
    "date_from_datetime_parsing": "must be a date such as `2026-11-01`",
    "date_parsing": "must be a date such as `2026-11-01`",
    "date_type": "must be a date such as `2026-11-01`",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries",
    "literal_error": "must be one of {expected}",
    "union_tag_invalid": "`kind` must be one of {expected_tags}",
    "union_tag_not_found": "needs a field `kind`",
}


def _problem(spec: type[Spec], detail: ErrorDetails, raw: Any) -> Problem:
    path = _path(detail["loc"], raw)
    context = detail.get("ctx") or {}
    kind = detail["type"]
    if kind == _OWN:
        return Problem(path, context["rule"], detail["input"], context.get("hint"))
    rule = _RULES.get(kind)
    text = rule.format(**{key: str(value).replace("'", "`") for key, value in context.items()}) if rule else detail["msg"]
    if kind == "missing":
        return Problem(path, text)
    if kind == "extra_forbidden":
        return Problem(path, text, path[-1], closest(path[-1], _fields_at(spec, path[:-1], raw)))
    if kind == "union_tag_invalid":
        return Problem((*path, "kind"), f"must be one of {context['expected_tags']}".replace("'", "`"), context["tag"])
    return Problem(path, text, detail["input"])


def _fields_at(spec: Any, path: Path, raw: Any) -> list[str]:
    """The field names that a stack file may have at `path`, for a hint."""
    current: list[Any] = [spec]
    here = raw
    for part in path:
        here = here[part]
        if isinstance(part, int):
            continue
        found: list[Any] = []
        for each in current:
            for name, field in each.model_fields.items():
                if part in (name, field.alias):
                    found += _specs_in(field.annotation)
        # Of the variants of a driver only the one that `kind` names.
        current = [each for each in found if not isinstance(here, dict) or _has_kind(each, cast(dict[str, Any], here).get("kind"))] or found
    return [field.alias or name for each in current for name, field in each.model_fields.items()]


def _has_kind(spec: Any, kind: Any) -> bool:
    field = spec.model_fields.get("kind")
    return field is None or field.default == kind or kind in getattr(field.annotation, "__args__", ())


def _specs_in(annotation: Any) -> list[Any]:
    """The Spec classes inside an annotation such as `tuple[ClusterSpec, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [found for each in getattr(annotation, "__args__", ()) for found in _specs_in(each)]
