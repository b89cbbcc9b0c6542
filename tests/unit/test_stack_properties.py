"""Properties over whole stack files: valid ones render, broken ones are refused at the field that was broken."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.federation import placement
from components.serving import models
from planning import division, failover_budget
from planning.failover_time import total
from specs.accelerators import CPU
from specs.base import SpecError
from tests.unit import fleets
from tests.unit.fleets import parse_fleet

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,12}[a-z0-9])?", fullmatch=True)


@st.composite
def stack_files(draw: st.DrawFn) -> dict[str, Any]:
    """Valid fleets: one to six clusters, each its own region, and models that fit."""
    names = draw(st.lists(NAMES.filter(lambda name: name != "hub"), min_size=2, max_size=6, unique=True))
    clusters = [
        fleets.cluster(name, gpuPools=[{"name": "pool", "accelerator": draw(st.sampled_from(["H100", "A100", "L40S"])), "gpusPerNode": 8, "nodes": 40}])
        for name in names
    ]
    kinds = {each["name"]: each["gpuPools"][0]["accelerator"] for each in clusters}
    models: list[dict[str, Any]] = []
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        chosen = draw(st.lists(st.sampled_from(names), min_size=2, max_size=len(names), unique=True))
        on_cpu = draw(st.booleans())
        places: list[dict[str, Any]] = []
        for each in chosen:
            accelerator = {"type": CPU} if on_cpu else {"type": kinds[each], "count": draw(st.sampled_from([1, 2, 4, 8]))}
            places.append({"name": each, "weight": draw(st.integers(1, 3)), "accelerator": accelerator})
        order = draw(st.lists(st.sampled_from(chosen), unique=True))
        body = fleets.model(name, chosen, replicas=len(chosen) * 3, accelerator={"type": CPU} if on_cpu else {"type": kinds[chosen[0]]})
        body["placement"] = {"clusters": places, "failoverOrder": order}
        models.append(body)
    return {"hub": {"driver": {"kind": "local"}}, "clusters": clusters, "models": models}


def _fields(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every leaf and every mapping of a stack file."""
    if isinstance(value, dict):
        return [path, *(found for key, each in value.items() for found in _fields(each, (*path, key)))]
    if isinstance(value, list):
        return [found for place, each in enumerate(value) for found in _fields(each, (*path, place))]
    return [path]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stack_files())
def test_a_valid_stack_renders(raw: dict[str, Any]) -> None:
    fleet = parse_fleet(raw)
    for model in fleet.models:
        divided = division.division(model.placement, model.replicas)
        assert sum(divided.values()) == model.replicas
        assert min(divided.values()) >= 1
        service = models.inference_service(model, fleet.runtimes)
        for fields in models.cluster_overrides(model, fleet.runtimes).values():
            for pointer in fields:
                assert _follow(service, pointer) is not None, pointer
        policy = placement.propagation_policy(model.name, model.placement, fleet.failover.capacity)
        assert policy["spec"]["placement"]["clusterAffinity"]["clusterNames"] == sorted(divided)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stack_files(), st.data())
def test_a_field_of_the_wrong_type_is_refused_by_name(raw: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([path for path in _fields(raw) if path]))
    broken = copy.deepcopy(raw)
    holder: Any = broken
    for part in path[:-1]:
        holder = holder[part]
    # A list of lists is the wrong type everywhere.
    holder[path[-1]] = [[]]
    with pytest.raises(SpecError) as caught:
        parse_fleet(broken)
    # Where an element of a list is broken, it is the element that is named.
    assert any(each.path[: len(path)] == path for each in caught.value.problems), str(caught.value)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stack_files(), st.data(), st.from_regex(r"[a-z][a-zA-Z]{0,8}Zz", fullmatch=True))
def test_an_unknown_field_is_refused_by_name_wherever_it_stands(raw: dict[str, Any], data: st.DataObject, name: str) -> None:
    mappings = [path for path in _fields(raw) if isinstance(_at(raw, path), dict)]
    path = data.draw(st.sampled_from(mappings))
    broken = copy.deepcopy(raw)
    _at(broken, path)[name] = 1
    with pytest.raises(SpecError) as caught:
        parse_fleet(broken)
    assert [each.path for each in caught.value.problems] == [(*path, name)]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_anything_at_all_ends_in_named_errors(raw: Any) -> None:
    # Nothing here is a fleet, and no other error gets out.
    with pytest.raises(SpecError) as caught:
        parse_fleet(raw)
    assert caught.value.problems


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stack_files(), st.integers(1, 500))
def test_no_accepted_stack_asks_for_more_gpus_than_there_are(raw: dict[str, Any], replicas: int) -> None:
    for model in raw["models"]:
        model["replicas"] = replicas
    try:
        fleet = parse_fleet(raw)
    except SpecError:
        return
    for cluster in fleet.clusters:
        used = 0
        for model in fleet.models:
            share = division.division(model.placement, model.replicas).get(cluster.name, 0)
            wanted = model.accelerator_in(cluster.name)
            used += 0 if wanted.type == CPU else share * wanted.count
        assert used <= sum(pool.gpus for pool in cluster.gpu_pools)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stack_files(), st.floats(0.1, 5), st.floats(10, 500), st.integers(1, 300))
def test_no_accepted_stack_promises_what_it_cannot_keep(raw: dict[str, Any], failover: float, restore: float, load: int) -> None:
    for model in raw["models"]:
        model |= {"objectives": {"failoverSeconds": failover, "restoreSeconds": restore}, "runtime": {"loadSeconds": load}}
    try:
        fleet = parse_fleet(raw)
    except SpecError as error:
        refused = {(each.path[0], each.path[2]) for each in error.problems}
        kept: list[failover_budget.Promise] = []
    else:
        refused = set[tuple[str | int, str | int]]()
        kept = [failover_budget.promise(fleet, model) for model in fleet.models]
    assert refused <= {("models", "objectives")}
    for promise in kept:
        assert promise.worst_death is not None
        assert total(promise.worst_death.added or ()) <= failover
        assert max(total(promise.killed), total(promise.silent)) <= restore


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def _follow(value: Any, pointer: str) -> Any:
    return _at(value, tuple(pointer.strip("/").split("/")))
