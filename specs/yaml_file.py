"""YAML files, read as Pulumi reads them, so that `fleet plan`, `fleet preview`, the policies and `pulumi up` see the same values.

The Pulumi CLI reads a stack file with Go's yaml.v3 (resolve.go and decode.go there) and hands it to the program as JSON. PyYAML
follows YAML 1.1 and differs: to it `NO` is false, `12:30` is 750, `1e6` is text, and of two fields with one name the last wins.
What Pulumi refuses is refused here too; so is what it changes: times without quotes, and field names such as `1` or `true`.
"""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import yaml

from specs.base import WHOLE_FILE, Problem, SpecError
from specs.base import Path as FieldPath

_TAG = "tag:yaml.org,2002:"
_MERGE, _TEXT, _TIMESTAMP = f"{_TAG}merge", f"{_TAG}str", f"{_TAG}timestamp"

_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$")
_CLOCK = r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]+)?"
# Tag, what a text without quotes looks like, and the characters that it starts with. The first that matches decides.
_PLAIN: tuple[tuple[str, str, list[str]], ...] = (
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", ["<"]),
    ("timestamp", rf"^[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}(|[Tt]{_CLOCK}(Z|[-+][0-9]{{2}}:[0-9]{{2}})| {_CLOCK})$", list("0123456789")),
    ("int", r"^[-+]?(0[xX][0-9a-fA-F][0-9a-fA-F_]*|0[bB][01][01_]*|0[oO]?[0-7][0-7_]*|0_*|[1-9][0-9_]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", list("-+.")),
)
# Numbers from here on have an exponent in Go's JSON; a whole number below has none, and is an integer to the program.
_GO_EXPONENT = 1e21

# How Go writes a time: what Pulumi makes of a date or time without quotes.
_GO_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?) [-+][0-9]{4} \S+")


class _Loader(yaml.SafeLoader):
    """Knows the types of JSON and no other tag."""

    yaml_implicit_resolvers: ClassVar[Any] = {}
    yaml_constructors: ClassVar[Any] = {}


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what would be no text, be it to YAML 1.1 or to Pulumi."""


for _tag, _pattern, _first in _PLAIN:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_tag}", re.compile(_pattern), _first)  # pyright: ignore[reportUnknownMemberType]


def _integer(_: Any, node: Any) -> int:
    text = node.value.replace("_", "").lower()
    digits = text.lstrip("+-")
    # A leading 0 is octal, as in Go.
    base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2]) or (8 if digits[:1] == "0" and len(digits) > 1 else 10)
    return int(text, base)


def _number(_: Any, node: Any) -> float | int:
    text = node.value.replace("_", "").lower()
    number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return int(number) if number.is_integer() and abs(number) < _GO_EXPONENT else number


def _date(_: Any, node: Any) -> str:
    try:
        return dt.date(*map(int, node.value.split("-"))).isoformat()
    except ValueError:
        # No such day. Times were refused before anything is constructed.
        return node.value


_Loader.add_constructor(f"{_TAG}null", yaml.SafeLoader.construct_yaml_null)
_Loader.add_constructor(f"{_TAG}bool", yaml.SafeLoader.construct_yaml_bool)
_Loader.add_constructor(f"{_TAG}int", _integer)
_Loader.add_constructor(f"{_TAG}float", _number)
_Loader.add_constructor(_TEXT, yaml.SafeLoader.construct_yaml_str)
_Loader.add_constructor(_TIMESTAMP, _date)
_Loader.add_constructor(f"{_TAG}seq", yaml.SafeLoader.construct_yaml_seq)
_Loader.add_constructor(f"{_TAG}map", yaml.SafeLoader.construct_yaml_map)
_Loader.add_constructor(None, yaml.SafeLoader.construct_undefined)


def read(file: Path) -> Any:
    """What the file holds; {} for an empty one. Raises SpecError with everything that is wrong."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError([Problem(WHOLE_FILE, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise SpecError([Problem(WHOLE_FILE, "is not valid UTF-8")]) from None
    return parse(text)


def parse(text: str) -> Any:
    """What the text of a file holds; {} for an empty one. Raises SpecError with everything that is wrong."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if problems := list(_problems(node, (), set(), set())):
            raise SpecError(problems)
        found = None if node is None else loader.construct_document(node)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SpecError([Problem(WHOLE_FILE, f"is not valid YAML: {_reason(error)}")]) from None
    return {} if found is None else found


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _problems(node: Any, path: FieldPath, done: set[int], inside: set[int]) -> Iterator[Problem]:
    """What is valid YAML, and refused nevertheless. Nodes that aliases repeat are looked at once."""
    if id(node) in inside:
        yield Problem(path, "is an alias of what it is part of", hint="write the value out")
    if id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if key.tag not in (_TEXT, _MERGE):
                yield Problem((*path, name), "the name of a field must be text", name, f'write "{name}"')
            if name in lines:
                yield Problem((*path, name), f"is set twice, in lines {lines[name]} and {line}", hint="keep one of them")
            lines[name] = line
            yield from _problems(value, (*path, name), done, inside | {id(node)})
    elif isinstance(node, yaml.SequenceNode):
        for place, each in enumerate(node.value):
            yield from _problems(each, (*path, place), done, inside | {id(node)})
    elif isinstance(node, yaml.ScalarNode) and node.tag == _TIMESTAMP and not _DATE.match(node.value):
        yield Problem(path, "a time must be in quotes: Pulumi changes its text otherwise", node.value, f'write "{node.value}"')


def from_pulumi(value: Any) -> Any:
    """What `pulumi.Config` holds, with the dates as the file has them. Raises SpecError for times without quotes."""
    problems: list[Problem] = []
    found = _dates_again(value, (), problems)
    if problems:
        raise SpecError(problems)
    return found


def _dates_again(value: Any, path: FieldPath, problems: list[Problem]) -> Any:
    if isinstance(value, dict):
        return {name: _dates_again(each, (*path, name), problems) for name, each in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_dates_again(each, (*path, place), problems) for place, each in enumerate(cast(list[Any], value))]
    moment = _GO_MOMENT.fullmatch(value) if isinstance(value, str) else None
    if moment is None:
        return value
    if moment[2] != "00:00:00":
        problems.append(Problem(path, "a time must be in quotes: Pulumi changes its text otherwise", value, "put it in quotes in the stack file"))
    return moment[1]


def dump(value: Any) -> str:
    """A file that `read` and Pulumi read as `value`."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)
