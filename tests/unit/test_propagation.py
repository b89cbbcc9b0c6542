"""Every object that a stack declares for members is of a kind in the registry, is selected, allowed and awaited."""

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.federation.federation import namespaces_policy, shared_policy
from components.fleet import Fleet, FleetArgs
from federation import rights
from specs import labels, propagation
from specs.fleet import FleetSpec
from specs.propagation import INFERENCE_SERVICE, Kind
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet

Object = dict[str, Any]

JWT = {"kind": "jwt", "issuers": [{"issuer": "https://id.example.com", "audiences": ["fleet"], "jwksUri": "https://id.example.com/keys"}]}


def existing() -> Object:
    raw = fleets.small()
    for each in raw["clusters"]:
        fleets.make_existing(each)
    return raw


def stacks() -> dict[str, Object]:
    """Every stack file of the repository, and what none of them has."""
    files = [*fleets.stack_files(), *sorted((fleets.REPO / "stacks" / "examples").glob("Pulumi.*.yaml"))]
    return {
        **{file.stem: fleets.read(file) for file in files},
        "no models": {**fleets.small(), "models": []},
        "no models, relay": {**fleets.small(), "models": [], "failover": {"streams": {"relay": True}}},
        "tokens": {**fleets.small(), "frontDoors": {"authentication": JWT}},
        "own service": {**existing(), "frontDoors": {"authentication": {"kind": "external", "provider": "keys"}}},
    }


@functools.cache
def declared(stack: str) -> tuple[FleetSpec, engine.Engine]:
    spec = parse_fleet(copy.deepcopy(stacks()[stack]))
    kubeconfigs = {each.name: "kubeconfig" for each in spec.clusters if each.driver.kind == "existing"}
    return spec, engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs=kubeconfigs)).outputs())[0]


def for_members(found: engine.Engine) -> list[Object]:
    """Objects on the hub that members get."""
    objects = [each.inputs for each in found.declared if each.type.startswith("kubernetes:")]

    def goes(each: Object) -> bool:
        marks = each["metadata"]["labels"]
        return (
            labels.LABEL_PROPAGATE in marks
            or each["kind"] == "Namespace"
            or (each["kind"] == INFERENCE_SERVICE.kind and each["apiVersion"] == INFERENCE_SERVICE.api_version)
        )

    return [each for each in objects if goes(each)]


def kind_of(each: Object) -> Kind:
    return propagation.of([f"{each['apiVersion']}/{each['kind']}"])[0]


@pytest.mark.parametrize("stack", stacks())
def test_what_a_stack_declares_for_members_is_in_the_registry_where_it_says(stack: str) -> None:
    _, found = declared(stack)
    for each in for_members(found):
        kind = kind_of(each)
        where = each["metadata"].get("namespace")
        assert where in kind.namespaces if kind.namespaces else where is None, f"{kind} in {where}"


@pytest.mark.parametrize("stack", stacks())
def test_the_policies_select_all_of_it_and_no_kind_that_no_policy_sends(stack: str) -> None:
    spec, found = declared(stack)
    clusters = [each.name for each in spec.clusters]
    shared = {(each["apiVersion"], each["kind"]) for each in shared_policy(clusters)["spec"]["resourceSelectors"]}
    named = {each["name"] for each in namespaces_policy(clusters)["spec"]["resourceSelectors"]}
    objects = for_members(found)
    assert {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"} == named
    marked = {(each["apiVersion"], each["kind"]) for each in objects if labels.LABEL_PROPAGATE in each["metadata"]["labels"]}
    assert marked <= shared
    assert shared == {(each.api_version, each.kind) for each in propagation.KINDS if "shared" in each.sent}
    placed = {each.inputs["spec"]["resourceSelectors"][0]["name"] for each in found.of_kind("PropagationPolicy")}
    assert {each["metadata"]["name"] for each in objects if each["kind"] == INFERENCE_SERVICE.kind} == placed


@pytest.mark.parametrize("stack", stacks())
def test_each_join_waits_for_exactly_the_declared_kinds(stack: str) -> None:
    spec, found = declared(stack)
    kinds = {str(kind_of(each)) for each in for_members(found)} | {str(INFERENCE_SERVICE)}
    joins = [each["stdin"]["kinds"] for each in found.commands().values() if each["create"] == "fleet-driver member join"]
    assert len(joins) == len(spec.clusters)
    for awaited in joins:
        assert awaited == sorted(kinds)


def test_authentication_is_awaited_where_it_is_declared() -> None:
    def security(stack: str) -> set[str]:
        return {each.kind for each in propagation.required_kinds(parse_fleet(stacks()[stack])) if each.group == "security.istio.io"}

    assert security("tokens") == {"RequestAuthentication", "AuthorizationPolicy"}
    assert security("own service") == {"AuthorizationPolicy"}
    assert security("no models") == set()


def test_what_an_inference_service_may_name_is_in_the_registry() -> None:
    script = (Path(fleets.REPO) / "components" / "federation" / "lua" / "get_dependencies.lua").read_text()
    # What Karmada's own kube.getPodDependencies finds in a pod, and what the script adds.
    found = {"ConfigMap", "Secret", "ServiceAccount", "PersistentVolumeClaim"} | set(re.findall(r'kind = "(\w+)"', script))
    assert found == {each.kind for each in propagation.sent("dependency")}


def test_kinds_that_may_be_removed_are_declared_on_the_hub_alone() -> None:
    removable = propagation.removable_kinds()
    assert "serving.kserve.io/v1beta1/InferenceService" in removable
    assert not {"v1/Namespace", "v1/PersistentVolumeClaim", "v1/Secret"} & set(removable)


def test_a_kind_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("kinds: not in the registry of propagated kinds, got: `v1/Pod`")):
        propagation.of(["v1/ConfigMap", "v1/Pod"])


# Rights


def rules(kind: str, name: str, namespace: str | None = None) -> list[Object]:
    found = [
        each for each in rights.grants("us-east", {}) if (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace")) == (kind, name, namespace)
    ]
    return found[0]["rules"]


def allows(given: list[Object], verb: str, kind: Kind, name: str = "any") -> bool:
    return any(
        verb in rule["verbs"] and kind.group in rule.get("apiGroups", ()) and kind.resource in rule["resources"] and name in rule.get("resourceNames", [name])
        for rule in given
    )


KARMADA = "karmada-controller-manager:karmada-us-east"


@pytest.mark.parametrize("stack", stacks())
def test_karmada_may_make_change_and_delete_what_a_stack_declares_and_nothing_beside_it(stack: str) -> None:
    _, found = declared(stack)
    everywhere = rules("ClusterRole", KARMADA)
    for each in for_members(found):
        kind, where, name = kind_of(each), each["metadata"].get("namespace"), each["metadata"]["name"]
        given = rules("Role", KARMADA, where) if where else everywhere
        verbs = ("update",) if each["kind"] == "Namespace" else ("create", "update", "delete")
        assert all(allows(given, verb, kind, name) for verb in verbs), each
        assert all(allows(everywhere, verb, kind) for verb in ("get", "list", "watch")), each
        assert not (where and allows(everywhere, "create", kind)), f"{kind}: in its own namespaces only"


def test_no_right_is_wider_than_a_kind_of_the_registry() -> None:
    known = {(each.group, each.resource) for each in propagation.KINDS} | {("", "nodes"), ("", "pods"), ("", "users")}
    for each in rights.grants("us-east", {}):
        for rule in each.get("rules", []):
            assert "*" not in json.dumps([rule["verbs"], rule.get("resources", []), rule.get("apiGroups", [])])
            for group in rule.get("apiGroups", []):
                assert {(group, resource) for resource in rule["resources"]} <= known


def test_karmada_reads_no_secret_makes_no_namespace_and_grants_nothing() -> None:
    granted = [rule for each in rights.grants("us-east", {}) for rule in each.get("rules", [])]
    assert not [rule for rule in granted if "secrets" in rule.get("resources", [])]
    assert not [rule for rule in granted if "namespaces" in rule.get("resources", []) and {"create", "delete"} & set(rule["verbs"])]
    assert not [rule for rule in granted if {"bind", "escalate"} & set(rule["verbs"]) or rights.RBAC_GROUP in rule.get("apiGroups", [])]


def test_the_proxy_acts_for_the_failback_controller_alone() -> None:
    [rule] = rules("ClusterRole", "inference-fleet:impersonator")
    assert rule == {"apiGroups": [""], "resources": ["users"], "resourceNames": [rights.FAILBACK_USER], "verbs": ["impersonate"]}
    for kind in propagation.of(propagation.removable_kinds()):
        assert allows(rules("ClusterRole", "inference-fleet:failback"), "list", kind)
        for where in kind.namespaces or [None]:
            given = rules("Role", "inference-fleet:failback", where) if where else rules("ClusterRole", "inference-fleet:failback")
            assert allows(given, "delete", kind)
            assert not allows(given, "create", kind)


def test_the_documented_rights_are_the_granted_ones() -> None:
    page = (fleets.REPO / "docs" / "member-rights.md").read_text()
    assert rights.document() in page, "run `python -m federation.rights` and put what it prints into docs/member-rights.md"
