"""The pure parts of the offline plugins."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.client import Kube
from toolchain.offline import kubernetes_await as await_
from toolchain.offline.differences import changes, parse_path
from toolchain.offline.kubernetes_objects import adopt_fields, force_new, keep_ignored, normalize, prune
from toolchain.offline.quantity import canonical, canonicalize
from toolchain.offline.wire import UNKNOWN, Secret, dump, load, plain


@pytest.mark.parametrize(
    ("given_", "stored"),
    [
        ("1000m", "1"), ("0.5", "500m"), ("1500m", "1500m"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("2000", "2k"), (8, "8"), ("8", "8"),
        ("0.1Gi", "107374182400m"), ("1e3", "1e3"), ("500Ki", "500Ki"), ("1000000Ki", "1000000Ki"), ("12E", "12E"), ("0", "0"), ("0Gi", "0"),
        ("1.0", "1"), ("100M", "100M"), ("-1024Ki", "-1Mi"), ("all", "all"), (True, True), ("1n", "1n"), ("0.1n", "1n"), ("512", "512"), ("1Ki", "1Ki"),
    ],
)  # fmt: skip
def test_quantities_take_the_form_that_the_api_server_stores(given_: Any, stored: Any) -> None:
    assert canonical(given_) == stored


@given(st.integers(1, 10**6), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_the_canonical_form_is_stable(number: int, suffix: str) -> None:
    once = canonical(f"{number}{suffix}")
    assert canonical(once) == once


def test_only_quantity_fields_are_touched() -> None:
    obj = {"metadata": {"labels": {"limits": "1000m"}}, "spec": {"resources": {"limits": {"cpu": "1000m"}}, "value": "1000m", "medium": "1000m"}}
    changed = canonicalize(obj, "Pod")
    assert changed["spec"] == {"resources": {"limits": {"cpu": "1"}}, "value": "1000m", "medium": "1000m"}
    assert changed["metadata"] == obj["metadata"]


def _paths(old: Any, new: Any, **more: Any) -> dict[str, tuple[str, bool]]:
    return {change.property_path: (change.kind, change.replace) for change in changes(old, new, more.pop("force", []), **more)}


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


def test_replacement_reaches_from_above_and_below() -> None:
    force = [parse_path("spec.selector"), parse_path("spec.containers[*].image"), parse_path("data")]
    assert _paths({}, {"spec": {"selector": {"a": "b"}}}, force=force) == {"spec": ("add", True)}
    assert _paths({}, {"spec": {"replicas": 1}}, force=force) == {"spec": ("add", False)}
    assert _paths({"data": {"a": 1}}, {"data": {"a": 2}}, force=force) == {"data.a": ("update", True)}
    old, new = {"spec": {"containers": [{"image": "a", "x": 1}]}}, {"spec": {"containers": [{"image": "b", "x": 2}]}}
    assert _paths(old, new, force=force) == {"spec.containers[0].image": ("update", True), "spec.containers[0].x": ("update", False)}


def test_ignored_paths_and_what_the_server_dropped_do_not_count() -> None:
    old, new = {"spec": {"a": 1, "list": [{"b": 1}]}}, {"spec": {"a": 2, "list": [{"b": 2}], "off": False}}
    assert _paths(old, new, dropped={"spec": {"off": False}}, ignore=["spec.a", "spec.list[*].b"]) == {}
    assert _paths(old, {"spec": {"a": 1, "list": [{"b": 1}], "off": False}}) == {"spec.off": ("add", False)}


_trees = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab.", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.[", min_size=1, max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), _trees, max_size=4))
def test_no_object_differs_from_itself_or_from_what_was_added_by_others(tree: dict[str, Any]) -> None:
    assert changes(tree, tree, []) == []
    assert prune({**tree, "status": {"x": 1}}, tree) == tree


_values = st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=9) | st.lists(st.integers(0, 9), max_size=3)


@given(st.dictionaries(st.text(min_size=1, max_size=5), _values, max_size=5))
def test_properties_survive_the_wire(properties: dict[str, Any]) -> None:
    marked = {"open": properties, "hidden": Secret(properties), "later": UNKNOWN}
    back = load(dump(marked))
    assert back == marked
    assert plain(back)["hidden"] == properties


def test_a_secret_shows_nowhere_by_accident() -> None:
    assert "word" not in repr(Secret("word"))
    assert "word" not in str({"a": Secret("word")})


def test_secrets_and_definitions_have_one_normal_form() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "uid": "1"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    assert normalize(secret) == {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg==", "c": "ZA=="}}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"preserveUnknownFields": False}, "status": {}}
    assert normalize(definition)["spec"] == {}
    assert "status" not in normalize(definition)


def test_what_replaces_depends_on_kind_and_provider() -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap"}
    assert ("data",) in force_new(config, config_map_mutable=False, secret_mutable=False)
    assert ("data",) not in force_new(config, config_map_mutable=True, secret_mutable=False)
    assert ("data",) in force_new({**config, "immutable": True}, config_map_mutable=True, secret_mutable=True)
    assert ("spec", "selector") in force_new({"apiVersion": "apps/v1", "kind": "Deployment"}, config_map_mutable=False, secret_mutable=False)
    assert ("spec", "selector") not in force_new({"apiVersion": "x.dev/v1", "kind": "Deployment"}, config_map_mutable=False, secret_mutable=False)


def test_a_creations_fields_move_to_the_resources_manager() -> None:
    created = {"manager": "pulumi-kubernetes", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:spec": {"f:a": {}}}}
    status = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}}
    live = {"metadata": {"resourceVersion": "7", "managedFields": [created, status]}}
    patch = adopt_fields(live, "mine")
    assert patch
    assert patch[0]["value"] == [status, {**created, "manager": "mine", "operation": "Apply"}]
    assert patch[1]["value"] == "7"
    assert adopt_fields({"metadata": {"managedFields": [status]}}, "mine") is None


def test_an_ignored_field_keeps_its_owner_or_its_value() -> None:
    theirs = {"manager": "scaler", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    ours = {"manager": "mine", "operation": "Apply", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    inputs = {"spec": {"replicas": 1, "paused": True}}
    keep_ignored(inputs, {"metadata": {"managedFields": [theirs, ours]}, "spec": {"replicas": 9, "paused": False}}, ["spec.replicas", "spec.paused"], "mine")
    assert inputs == {"spec": {"paused": False}}


READY = {"type": "Ready", "status": "True", "observedGeneration": 2}


@pytest.mark.parametrize(
    ("wish", "ready"),
    [
        ("condition=Ready", True),
        ("condition=ready=true", True),
        ("condition=Ready=False", False),
        ("condition=Other", False),
        ("jsonpath={.status.phase}", True),
        ("jsonpath={.status.phase}=Active", True),
        ("jsonpath={.status.phase}=Gone", False),
        ("jsonpath={$.status['phase']}=Active", True),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', True),
        ("jsonpath={.status.conditions[?(@.type=='Other')].status}=True", False),
        ("jsonpath={.status.conditions[0].status}=True", True),
        ("jsonpath={.status.conditions[*].type}=Ready", True),
        ("jsonpath={.status.ok}=true", True),
        ('["condition=Ready", "jsonpath={.status.phase}=Gone"]', False),
    ],
)
def test_wait_conditions(wish: str, ready: bool) -> None:
    live: dict[str, Any] = {"kind": "W", "apiVersion": "x/v1", "metadata": {"generation": 2, "annotations": {"pulumi.com/waitFor": wish}}}
    live["status"] = {"phase": "Active", "ok": True, "conditions": [READY]}
    check = await_.check_for(_no_cluster(), {}, live, None)
    assert check is not None
    assert check(live).ready is ready


def test_a_stale_status_is_not_believed() -> None:
    live = {"metadata": {"generation": 3}, "status": {"conditions": [READY]}}
    assert not await_.parse_wait_for("condition=Ready")[0](live).ready


@pytest.mark.parametrize("wish", ["Ready", "jsonpath=.a", "jsonpath={..a}", "jsonpath={.a}=", "[]"])
def test_wait_conditions_that_cannot_be_read_are_refused(wish: str) -> None:
    with pytest.raises(await_.ExpressionError, match=r"pulumi\.com/waitFor"):
        await_.parse_wait_for(wish)


def _no_cluster() -> Kube:
    """Custom resources are judged without asking the API server."""
    return object.__new__(Kube)
