"""Every object of every stack is taken by an API server that holds the pinned CRDs; a stale or misspelt field fails here."""

import copy
from pathlib import Path
from typing import Any

import pytest

from components.federation.overrides import overridden
from components.fleet import Fleet, FleetArgs
from kube.client import ApiError
from tests.conftest import ApiServer
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet

_STACK_FILES = [*fleets.stack_files(), *sorted((fleets.REPO / "stacks" / "examples").glob("Pulumi.*.yaml"))]


def declared(stack_file: Path) -> list[dict[str, Any]]:
    spec = parse_fleet(fleets.read(stack_file))
    kubeconfigs = {each.name: "kubeconfig" for each in spec.clusters}
    recorded, _ = engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs=kubeconfigs)).outputs())
    return [each.inputs for each in recorded.declared if "apiVersion" in each.inputs]


def propagated(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The objects as members get them: (cluster, object), with Karmada's plaintext overrides applied."""
    policies = [each for each in objects if each["kind"] in ("OverridePolicy", "ClusterOverridePolicy")]
    by_cluster = [each for each in policies if all("targetCluster" in rule for rule in each["spec"]["overrideRules"])]
    clusters = {name for each in by_cluster for rule in each["spec"]["overrideRules"] for name in rule["targetCluster"]["clusterNames"]}
    return [(cluster, overridden(each, by_cluster, cluster)) for cluster in sorted(clusters) for each in objects if sent(each)]


def sent(body: dict[str, Any]) -> bool:
    """Whether members get it at all."""
    return not body["apiVersion"].startswith(("policy.karmada.io/", "config.karmada.io/")) and body["kind"] != "Namespace"


def refusals(server: ApiServer, objects: list[tuple[str, dict[str, Any]]]) -> list[str]:
    found: list[str] = []
    for where, body in objects:
        try:
            server.kube.create(body, dry_run=True)
        except ApiError as error:
            found.append(f"{where}: {body['kind']} {body['metadata']['name']}: {error}")
    return found


@pytest.mark.parametrize("stack_file", _STACK_FILES, ids=lambda path: path.stem)
def test_every_object_on_the_hub_is_taken(members_and_hub: ApiServer, stack_file: Path) -> None:
    objects = [("hub", each) for each in declared(stack_file) if each["kind"] != "Namespace"]
    assert objects
    assert refusals(members_and_hub, objects) == []


@pytest.mark.parametrize("stack_file", _STACK_FILES, ids=lambda path: path.stem)
def test_every_object_is_taken_as_members_get_it(members_and_hub: ApiServer, stack_file: Path) -> None:
    objects = propagated(declared(stack_file))
    assert {cluster for cluster, _ in objects} == {each["name"] for each in fleets.read(stack_file)["clusters"]}
    assert {"InferenceService", "Gateway", "VirtualService", "EnvoyFilter"} <= {body["kind"] for _, body in objects}
    assert refusals(members_and_hub, objects) == []


def test_a_misspelt_field_would_be_noticed(members_and_hub: ApiServer) -> None:
    for body in declared(fleets.REPO / "stacks" / "Pulumi.local.yaml"):
        if body["kind"] in ("InferenceService", "PropagationPolicy", "DestinationRule", "ClusterTaintPolicy", "EnvoyFilter"):
            broken = copy.deepcopy(body)
            broken["spec"]["misspelt"] = 1
            assert refusals(members_and_hub, [("hub", broken)]), body["kind"]
