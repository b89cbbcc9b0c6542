"""Every rule lets the example stacks pass, and refuses each bad change alone."""

from dataclasses import replace
from typing import Any

import pytest

from policies import settings as environments
from policies.declared import Resource
from tests.policies import changes
from tests.policies.changes import AMERICAS, BAD, EUROPE, Change, Object
from tests.policies.stacks import breaches, stack


@pytest.mark.parametrize("name", [AMERICAS, EUROPE])
def test_an_example_breaks_no_rule(name: str) -> None:
    assert breaches(stack(name, changes.read(name))) == {}


def test_an_object_beside_the_fleet_can_satisfy_every_rule() -> None:
    assert breaches(stack(AMERICAS, changes.read(AMERICAS), [changes.deployment("exporter")])) == {}


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_bad_change_is_refused_by_its_rule_alone(change: Change) -> None:
    found = breaches(stack(change.stack, changes.edited(change), change.objects))
    assert list(found) == [change.rule]
    assert any(change.told in each.text and each.subject == change.about for each in found[change.rule]), found


def _everywhere(*selected: Object) -> Object:
    """Sends objects to both members of the example."""
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterPropagationPolicy",
        "metadata": {"name": "beside", "labels": changes.deployment("x")["metadata"]["labels"]},
        "spec": {
            "resourceSelectors": [{"apiVersion": each["apiVersion"], "kind": each["kind"], "name": each["metadata"]["name"]} for each in selected],
            "placement": {"clusterAffinity": {"clusterNames": ["us-east", "us-west"]}},
        },
    }


def _found(rule: str, *objects: Object, **settings: Any) -> list[str]:
    held = environments.settings(AMERICAS, environments.read()).model_copy(update=settings)
    return [each.text for each in breaches(stack(AMERICAS, changes.read(AMERICAS), objects, settings=held)).get(rule, [])]


def _deny(**spec: Any) -> Object:
    whole = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], **spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": changes.metadata("deny", namespace="lab"), "spec": whole}


def test_a_serving_namespace_is_denied_by_a_policy_that_reaches_every_member() -> None:
    """Of pods that serve beside the fleet; the fleet's own namespace is denied by what it declares."""
    (serving,) = next(each.objects for each in BAD if each.rule == "namespace-default-deny")
    assert _found("namespace-default-deny", serving, _deny(), _everywhere(_deny())) == []
    assert _found("namespace-default-deny", serving, _deny())
    only_in = _deny(policyTypes=["Ingress"])
    assert _found("namespace-default-deny", serving, only_in, _everywhere(only_in))
    open_door = _deny(egress=[{}])
    assert _found("namespace-default-deny", serving, open_door, _everywhere(open_door))


def _istio(kind: str, spec: Object) -> Object:
    where = changes.metadata("callers", namespace="istio-ingress")
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": where, "spec": {"selector": {"matchLabels": {"istio": "front-door"}}, **spec}}


def test_front_doors_demand_an_identity_also_by_objects_beside_the_fleet() -> None:
    def found(*objects: Object) -> list[str]:
        spec = changes.read(AMERICAS)
        del spec["frontDoors"]
        return [each.text for each in breaches(stack(AMERICAS, spec, objects)).get("front-door-authentication", [])]

    asks = _istio("AuthorizationPolicy", {"action": "CUSTOM", "provider": {"name": "keys"}, "rules": [{}]})
    tokens = _istio("RequestAuthentication", {"jwtRules": [{"issuer": "https://login.example.com"}]})
    denies = _istio("AuthorizationPolicy", {"action": "DENY", "rules": [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]})
    assert found(asks, _everywhere(asks)) == []
    assert found(tokens, denies, _everywhere(tokens, denies)) == []
    assert found(denies, _everywhere(denies))
    # Only some are asked.
    for part in ({"to": [{"operation": {"ports": ["8443"]}}]}, {"when": [{"key": "request.headers[x-test]", "values": ["1"]}]}):
        some = _istio("AuthorizationPolicy", {"action": "DENY", "rules": [{**denies["spec"]["rules"][0], **part}]})
        assert found(tokens, some, _everywhere(tokens, some)), part
    [told] = found(tokens, _everywhere(tokens))
    assert "a RequestAuthentication alone lets requests without a token pass" in told


def test_signatures_are_verified_where_the_environment_requires_them() -> None:
    spec = {"validationActions": ["Deny"], "attestors": [{"name": "ours"}]}
    verifies = {"apiVersion": "policies.kyverno.io/v1", "kind": "ImageValidatingPolicy", "metadata": {"name": "signed"}, "spec": spec}
    assert _found("image-signed") == []
    assert _found("image-signed", signed=True)
    assert _found("image-signed", verifies, _everywhere(verifies), signed=True) == []
    assert _found("image-signed", verifies, signed=True)
    audits = {**verifies, "spec": {**spec, "validationActions": ["Audit"]}}
    assert _found("image-signed", audits, _everywhere(audits), signed=True)


def test_what_a_work_carries_is_judged_too() -> None:
    carried = changes.deployment("exporter", securityContext=changes.security(privileged=True))
    work = {"apiVersion": "work.karmada.io/v1alpha1", "kind": "Work", "metadata": changes.metadata("by-hand"), "spec": {"workload": {"manifests": [carried]}}}
    assert _found("pod-privilege", work) == ["Deployment models/exporter: container `main` is privileged"]


def test_an_override_is_judged_in_the_clusters_that_get_it() -> None:
    change = next(each for each in BAD if each.rule == "image-by-digest" and each.objects)
    [told] = _found("image-by-digest", *change.objects)
    assert told.startswith("InferenceService models/llama-3-8b in us-east: ")


def test_a_secret_is_never_shown() -> None:
    change = next(each for each in BAD if each.rule == "plaintext-secret" and each.about == "hub")
    told = _found("plaintext-secret", *change.objects)
    assert told
    assert "aaaa" not in " ".join(told)


@pytest.mark.parametrize(
    "kind",
    [
        "aws:eks/cluster:Cluster",
        "gcp:container/cluster:Cluster",
        "azure-native:containerservice:ManagedCluster",
        "azure-native:containerservice/v20250101:ManagedCluster",
        "azure:containerservice/kubernetesCluster:KubernetesCluster",
    ],
)
def test_a_clouds_cluster_is_protected_too(kind: str) -> None:
    whole = stack(AMERICAS, changes.read(AMERICAS))
    for protected in (True, False):
        made = replace(whole, resources=[*whole.resources, Resource(type=kind, name="made", props={}, protected=protected)], _variants={})
        assert [each.subject for each in breaches(made).get("deletion-protection", [])] == ([] if protected else ["made"])
