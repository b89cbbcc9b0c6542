"""Every object of every stack is taken by an API server that holds the pinned CRDs; a stale or misspelt field fails here."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.fleet import Fleet, FleetArgs
from kube.client import ApiError
from local import karmada, manifests
from stacks.config import parse_fleet
from tests.conftest import ApiServer
from tests.unit import engine, fleets
from toolchain import tools

pytestmark = pytest.mark.schema


def karmada_crds() -> Iterator[dict[str, Any]]:
    """Karmada's CRDs without conversion: no webhook runs here, and only the stored versions are written."""
    for path in sorted((tools.share("karmada") / "charts/karmada/_crds/bases").rglob("*.yaml")):
        yield from manifests.read(path)


@pytest.fixture(scope="module")
def members_and_hub(api_server: ApiServer) -> ApiServer:
    """One API server with the kinds of both: KServe's full schemas, where the hub itself has the minimal ones."""
    manifests.apply_crds(api_server.kube, [*karmada_crds(), *karmada.kserve_crds(minimal=False), *karmada.istio_crds()])
    for name in ("models", "istio-ingress"):
        manifests.apply_all(api_server.kube, [manifests.namespace(name)])
    return api_server


def declared(stack_file: Path) -> list[dict[str, Any]]:
    spec = parse_fleet(fleets.read(stack_file))
    recorded, _ = engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec)).outputs())
    return [each.inputs for each in recorded.declared if "apiVersion" in each.inputs]


def propagated(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The objects as a member gets them: (cluster, object), with Karmada's plaintext overrides applied."""
    found: list[tuple[str, dict[str, Any]]] = []
    for policy in (each for each in objects if each["kind"] in ("OverridePolicy", "ClusterOverridePolicy")):
        for rule in policy["spec"]["overrideRules"]:
            for target in (each for each in objects if _selected(each, policy["spec"]["resourceSelectors"])):
                changed = copy.deepcopy(target)
                for each in rule["overriders"].get("plaintext", []):
                    _replace(changed, each["path"], each["value"])
                found.append((", ".join(rule.get("targetCluster", {}).get("clusterNames", ["every"])), changed))
    return found


def _selected(target: dict[str, Any], selectors: list[dict[str, Any]]) -> bool:
    for each in selectors:
        same_kind = (each["apiVersion"], each["kind"]) == (target["apiVersion"], target["kind"])
        named = each.get("name") in (None, target["metadata"]["name"])
        labels = each.get("labelSelector", {}).get("matchLabels", {})
        if same_kind and named and labels.items() <= target["metadata"]["labels"].items():
            return True
    return False


def _replace(target: Any, pointer: str, value: Any) -> None:
    *way, last = [int(part) if part.isdigit() else part for part in pointer.strip("/").split("/")]
    for part in way:
        target = target[part]
    # Karmada's `replace` fails the copy where there is nothing to replace.
    assert last in (target if isinstance(target, dict) else range(len(target))), pointer
    target[last] = value


def refusals(server: ApiServer, objects: list[tuple[str, dict[str, Any]]]) -> list[str]:
    found: list[str] = []
    for where, body in objects:
        try:
            server.kube.create(body, dry_run=True)
        except ApiError as error:
            found.append(f"{where}: {body['kind']} {body['metadata']['name']}: {error}")
    return found


@pytest.mark.parametrize("stack_file", fleets.stack_files(), ids=lambda path: path.stem)
def test_every_object_on_the_hub_is_taken(members_and_hub: ApiServer, stack_file: Path) -> None:
    objects = [("hub", each) for each in declared(stack_file) if each["kind"] != "Namespace"]
    assert objects
    assert refusals(members_and_hub, objects) == []


@pytest.mark.parametrize("stack_file", fleets.stack_files(), ids=lambda path: path.stem)
def test_every_object_is_taken_as_members_get_it(members_and_hub: ApiServer, stack_file: Path) -> None:
    objects = propagated(declared(stack_file))
    assert {"InferenceService", "Gateway", "VirtualService"} <= {body["kind"] for _, body in objects}
    assert refusals(members_and_hub, objects) == []


def test_a_misspelt_field_would_be_noticed(members_and_hub: ApiServer) -> None:
    for body in declared(fleets.REPO / "stacks" / "Pulumi.local.yaml"):
        if body["kind"] in ("InferenceService", "PropagationPolicy", "DestinationRule", "ClusterTaintPolicy"):
            broken = copy.deepcopy(body)
            broken["spec"]["misspelt"] = 1
            assert refusals(members_and_hub, [("hub", broken)]), body["kind"]
