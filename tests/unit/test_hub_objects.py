"""Any manifest becomes a resource as a whole: nothing of it is lost, and its type is the SDK's."""

from typing import Any

import pulumi
import pytest
from pulumi_kubernetes import core, networking, rbac
from pulumi_kubernetes.apiextensions import CustomResource

from components.federation.hub_objects import hub_object, type_token
from tests.unit import engine

Object = dict[str, Any]

RBAC = "rbac.authorization.k8s.io/v1"
MANIFESTS: list[Object] = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}, "binaryData": {"b": "AA=="}, "immutable": True},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "imagePullSecrets": [{"name": "b"}], "automountServiceAccountToken": False},
    {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a"}, "spec": {"accessModes": ["ReadOnlyMany"]}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
    {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "a"}, "rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}], "aggregationRule": {}},
    {
        "apiVersion": RBAC,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "a"},
        "subjects": [{"kind": "ServiceAccount", "name": "b", "namespace": "c"}],
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "a"},
        "webhooks": [{"name": "a.b.c", "clientConfig": {"url": "https://x"}, "sideEffects": "None", "admissionReviewVersions": ["v1"]}],
    },
    {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "a"}, "provisioner": "p", "parameters": {"type": "ssd"}},
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "a"}, "value": 0, "globalDefault": False},
    {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "snake_case": 1}, "spec": {"a": [1]}, "extra": {"b": None, "c": ""}},
]


def declare(*manifests: Object) -> list[engine.Declared]:
    def program() -> dict[str, Any]:
        for number, manifest in enumerate(manifests):
            hub_object(f"object-{number}", manifest, pulumi.ResourceOptions())
        return {}

    return engine.run(program)[0].declared


def ids(manifest: Object) -> str:
    return manifest["kind"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=ids)
def test_a_manifest_is_declared_whole(manifest: Object) -> None:
    [declared] = declare(manifest)
    # On the wire null is no value.
    expected = {**manifest, **({"extra": {"c": ""}} if "extra" in manifest else {})}
    assert declared.inputs == expected
    assert declared.secrets == frozenset()


def test_it_is_the_resource_that_the_classes_of_the_sdk_declare() -> None:
    typed = {
        "Namespace": core.v1.Namespace,
        "ConfigMap": core.v1.ConfigMap,
        "ServiceAccount": core.v1.ServiceAccount,
        "NetworkPolicy": networking.v1.NetworkPolicy,
        "ClusterRoleBinding": rbac.v1.ClusterRoleBinding,
    }
    names = {"apiVersion": "api_version", "binaryData": "binary_data", "roleRef": "role_ref", "imagePullSecrets": "image_pull_secrets"}
    names["automountServiceAccountToken"] = "automount_service_account_token"
    chosen = [each for each in MANIFESTS if each["kind"] in typed]
    custom: Object = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"a": [1]}}

    def program() -> dict[str, Any]:
        for number, each in enumerate(chosen):
            fields = {names.get(key, key): value for key, value in each.items() if key != "kind"}
            typed[each["kind"]](f"object-{number}", **fields)
        CustomResource(f"object-{len(chosen)}", api_version=custom["apiVersion"], kind=custom["kind"], metadata=custom["metadata"], spec=custom["spec"])
        return {}

    theirs = engine.run(program)[0].declared
    assert [(each.type, each.inputs) for each in declare(*chosen, custom)] == [(each.type, each.inputs) for each in theirs]


def test_the_core_group_has_a_name_in_types_only() -> None:
    assert type_token({"apiVersion": "v1", "kind": "Secret"}) == "kubernetes:core/v1:Secret"
    assert type_token({"apiVersion": RBAC, "kind": "ClusterRole"}) == f"kubernetes:{RBAC}:ClusterRole"


def test_values_of_a_secret_stay_secret_whatever_they_come_as() -> None:
    def declare_secret() -> dict[str, Any]:
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "type": "Opaque"}
        hub_object("plain", {**manifest, "data": {"k": "dg=="}}, pulumi.ResourceOptions())
        shared = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        hub_object("leaf", {**shared, "data": {"k": pulumi.Output.secret("v")}}, pulumi.ResourceOptions())
        hub_object("output", {**manifest, "stringData": {"k": pulumi.Output.secret("v")}}, pulumi.ResourceOptions())
        return {}

    found = {each.name: each for each in engine.run(declare_secret)[0].declared}
    assert found["plain"].secrets == {"data"}
    assert found["output"].secrets == {"stringData"}
    assert found["output"].inputs["stringData"] == {"k": "v"}
    assert found["plain"].inputs["type"] == "Opaque"
    # As any secret Output does, in any kind.
    assert (found["leaf"].secrets, found["leaf"].inputs["data"]) == ({"data"}, {"k": "v"})
