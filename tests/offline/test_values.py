"""The pure parts of the offline plugins: property values on the wire, and what differs between two sets of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_offline.differences import changes, parse_path
from pulumi_offline.wire import UNKNOWN, Secret, WireError, dump, load, plain


def _paths(old: dict[str, Any], new: dict[str, Any], **more: Any) -> dict[str, tuple[str, bool]]:
    return {change.property_path: (change.kind, change.replace) for change in changes(old, new, **more)}


def test_changes_name_the_deepest_property() -> None:
    old = {"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}], "same": 1, "gone": True, "1.2": "x"}}
    new = {"spec": {"ports": [{"port": 1}, {"port": 3}, {"port": 4}], "same": 1.0, "more": {"a": "b"}, "1.2": "y"}}
    assert _paths(old, new) == {
        "spec.ports[0].name": ("delete", False),
        "spec.ports[1].port": ("update", False),
        "spec.ports[2]": ("add", False),
        "spec.gone": ("delete", False),
        "spec.more": ("add", False),
        'spec["1.2"]': ("update", False),
    }
    assert _paths({"a": True}, {"a": 1}) == {"a": ("update", False)}
    assert _paths({"a": 1}, {"a": UNKNOWN}) == {"a": ("update", False)}


def test_a_change_anywhere_below_a_replacing_property_replaces() -> None:
    old, new = {"triggers": [1, {"a": 1}], "create": "x"}, {"triggers": [1, {"a": 2}], "create": "y"}
    assert _paths(old, new, replace_on=["triggers"]) == {"triggers[1].a": ("update", True), "create": ("update", False)}
    assert _paths({}, {"triggers": []}, replace_on=["triggers"]) == {"triggers": ("add", True)}


def test_ignored_paths_do_not_count() -> None:
    old, new = {"spec": {"a": 1, "list": [{"b": 1}]}}, {"spec": {"a": 2, "list": [{"b": 2}], "on": True}}
    assert _paths(old, new, ignore=["spec.a", "spec.list[*].b"]) == {"spec.on": ("add", False)}
    assert parse_path('environment["a.b"][0].c') == ("environment", "a.b", 0, "c")


_trees = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab.", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.[", min_size=1, max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), _trees, max_size=4))
def test_no_object_differs_from_itself(tree: dict[str, Any]) -> None:
    assert changes(tree, tree) == []


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), _trees, max_size=4), st.text("abc", min_size=1, max_size=2))
def test_a_property_that_went_or_came_is_the_only_change(tree: dict[str, Any], key: str) -> None:
    without = {name: value for name, value in tree.items() if name != key}
    assert _paths({**without, key: 1}, without) == {key: ("delete", False)}
    assert _paths(without, {**without, key: 1}) == {key: ("add", False)}


_values = st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=9) | st.lists(st.integers(0, 9), max_size=3)


@given(st.dictionaries(st.text(min_size=1, max_size=5), _values, max_size=5))
def test_properties_survive_the_wire(properties: dict[str, Any]) -> None:
    marked = {"open": properties, "hidden": Secret(properties), "later": UNKNOWN}
    back = load(dump(marked))
    assert back == marked
    assert plain(back)["hidden"] == properties


def test_what_is_not_covered_on_the_wire_is_named() -> None:
    mark = "4dabf18193072939515e22adb298388d"
    with pytest.raises(WireError, match="a Pulumi asset is not supported"):
        load(dump({"a": {mark: "c44067f5952c0a294b673a41bacd8c17"}}))


def test_a_secret_shows_nowhere_by_accident() -> None:
    assert "word" not in repr(Secret("word"))
    assert "word" not in str({"a": Secret("word")})
