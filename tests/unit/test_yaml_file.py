"""YAML means what it means to Pulumi. tests/offline/test_stack_file.py asks the real CLI about the same values."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FleetError
from operations.stack_file import read_spec
from specs import yaml_file
from specs.base import SpecError

# As written → as read. Go's yaml.v3 has the same, after the JSON in which the program gets it.
MEANINGS: dict[str, Any] = {
    "true": True,
    "FALSE": False,
    **{word: word for word in ("yes", "No", "NO", "on", "off", "y", "n", "tRue")},
    "~": None,
    "NULL": None,
    "nULL": "nULL",
    "1_000": 1000,
    "+7": 7,
    "0777": 511,
    "0o17": 15,
    "08": 8,
    "0x1F": 31,
    "-0b11": -3,
    "1e6": 1_000_000,
    "1.5e3": 1500,
    ".5": 0.5,
    "2.0": 2,
    "99.9": 99.9,
    "12:30": "12:30",
    "1.2.3": "1.2.3",
    "=": "=",
    "2026-11-01": "2026-11-01",
    "2026-1-2": "2026-01-02",
    "2026-02-30": "2026-02-30",
    "'2026-11-01T10:00:00Z'": "2026-11-01T10:00:00Z",
    "'yes'": "yes",
    '"1"': "1",
    "{<<: {a: 1, b: 1}, a: 2}": {"a": 2, "b": 1},
}


@pytest.mark.parametrize(("written", "meant"), MEANINGS.items(), ids=repr)
def test_a_value_is_what_it_is_to_pulumi(written: str, meant: Any) -> None:
    found = yaml_file.parse(f"value: {written}")["value"]
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\na: 3", ["b.c: is set twice, in lines 3 and 4\n  hint: keep one of them", "a: is set twice, in lines 1 and 5"]),
        ("a:\n- {b: 1, c: 2}\n- {b: 1,\n   b: 2}", ["a[1].b: is set twice, in lines 3 and 4"]),
        ("'a': 1\na: 2", ["a: is set twice, in lines 1 and 2"]),
        ("a: {1: x, true: y}", ['a.1: the name of a field must be text, got: `1`\n  hint: write "1"', "a.true: the name of a field must be text"]),
        ("a: {2026-11-01: x}", ["a.2026-11-01: the name of a field must be text"]),
        ("a: [2026-11-01T10:00:00Z]", ["a[0]: a time must be in quotes", 'hint: write "2026-11-01T10:00:00Z"']),
        ("a: 2026-11-01 10:00:00", ["a: a time must be in quotes"]),
        ("a: &x {b: *x}", ["a.b: is an alias of what it is part of"]),
        ("a: [", ["the file: is not valid YAML: line 1, column 5: "]),
        ("a: !secret x", ["the file: is not valid YAML: line 1, column 4: could not determine a constructor for the tag '!secret'"]),
        ("a: 1\n---\nb: 1", ["the file: is not valid YAML: line 2, column 1: "]),
        ("\x00", ["the file: is not valid YAML: unacceptable character #x0000"]),
    ],
)
def test_what_pulumi_refuses_or_changes_is_refused_with_its_place(written: str, told: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        yaml_file.parse(written)
    assert all(each in str(caught.value) for each in told), str(caught.value)


def test_an_alias_that_is_used_often_is_looked_at_once() -> None:
    lines = ["a0: &a0 [1]", *(f"a{at}: &a{at} [*a{at - 1}, *a{at - 1}]" for at in range(1, 60))]
    assert yaml_file.parse("\n".join(lines))["a0"] == [1]


def test_an_empty_file_holds_nothing_and_a_folder_is_none(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("# nothing\n")
    assert yaml_file.read(file) == {}
    with pytest.raises(SpecError, match="the file: cannot be read: Is a directory"):
        yaml_file.read(tmp_path)


def test_dates_come_back_from_pulumi_as_they_are_written() -> None:
    told = {"prices": [{"date": "2026-11-01 00:00:00 +0000 UTC"}], "note": "from 2026-11-01 00:00:00 +0000 UTC on", "count": 2}
    assert yaml_file.from_pulumi(told) == {**told, "prices": [{"date": "2026-11-01"}]}
    assert yaml_file.from_pulumi(yaml_file.from_pulumi(told)) == yaml_file.from_pulumi(told)


def test_a_time_without_quotes_is_refused_where_pulumi_has_changed_it() -> None:
    with pytest.raises(SpecError, match=r"a\[0\]: a time must be in quotes: Pulumi changes its text otherwise, got: `2026-11-01 10:00:00 \+0000 UTC`"):
        yaml_file.from_pulumi({"a": ["2026-11-01 10:00:00 +0000 UTC"]})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]))
    | st.sampled_from([*MEANINGS, "2026-11-01T10:00:00Z", "*a", "&a", "- a", "a: b", "#"])
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MEANINGS, "a", "b"]), inner, max_size=3))


@given(TREES)
def test_what_is_dumped_is_read_back(value: Any) -> None:
    found = yaml_file.parse(yaml_file.dump({"value": value}))["value"]
    assert found == value or (isinstance(value, float) and math.isclose(found, value))


def _stack(tmp_path: Path, spec: str) -> Path:
    file = tmp_path / "Pulumi.case.yaml"
    file.write_text(f"config:\n  fleet:spec:\n{spec}encryptionsalt: v1:x\n")
    return file


def test_a_field_of_a_stack_file_that_is_set_twice_is_refused_by_its_name(tmp_path: Path) -> None:
    file = _stack(tmp_path, "    models:\n      - name: chat\n        replicas: 2\n        replicas: 4\n")
    with pytest.raises(FleetError) as caught:
        read_spec(file)
    assert str(caught.value) == f"{file}: models[0].replicas: is set twice, in lines 5 and 6\n  hint: keep one of them"


def test_a_date_of_a_stack_file_is_text(tmp_path: Path) -> None:
    file = _stack(tmp_path, "    planning:\n      prices:\n        - {date: 2026-11-01}\n")
    assert read_spec(file) == {"planning": {"prices": [{"date": "2026-11-01"}]}}
