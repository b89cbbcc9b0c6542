"""Verification of provided control planes against a real API server: what is missing is listed, and nothing is changed.

The commands of the findings are run by kubectl as a person would, and then nothing is found.
"""

import base64
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from federation import membership, verification
from kube.client import ApiError, Kube
from local import karmada as local_karmada
from local import manifests
from specs import failback_access
from specs.control_planes import istio, karmada, kserve
from specs.failover import CapacityFailoverSpec
from tests.conftest import ApiServer
from tests.schema.conftest import karmada_crds
from toolchain import tools

pytestmark = pytest.mark.integration

Object = dict[str, Any]

KINDS = [
    "serving.kserve.io/v1beta1/InferenceService",
    "serving.kserve.io/v1alpha1/ClusterServingRuntime",
    "networking.istio.io/v1/VirtualService",
    "networking.istio.io/v1alpha3/EnvoyFilter",
    "security.istio.io/v1/AuthorizationPolicy",
    "networking.k8s.io/v1/NetworkPolicy",
]
FLAGS = karmada.flags(CapacityFailoverSpec())


def deployment(name: str, namespace: str, image: str, labels: dict[str, str] | None = None, command: list[str] | None = None) -> Object:
    container = {"name": name, "image": image, **({"command": command} if command else {})}
    pods = {"app": name}
    template = {"metadata": {"labels": pods}, "spec": {"containers": [container]}}
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"selector": {"matchLabels": pods}, "template": template}}


def gateway(name: str) -> list[Object]:
    metadata = {"name": name, "namespace": "istio-ingress", "labels": {"istio": name}}
    container = {"name": "istio-proxy", "image": "istio/proxyv2:1.31.1"}
    service = {"selector": {"istio": name}, "ports": [{"name": "http2", "port": 80}]}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], "automountServiceAccountToken": False}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


def add_gateways(kube: Kube) -> None:
    for name in istio.LISTENERS:
        pod, service = gateway(name)
        kube.apply(pod)
        kube.apply({**pod, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status")
        kube.apply(service)


def run(hint: str, server: ApiServer) -> None:
    """The commands of a hint, as a shell of a person runs them; lines that are no command say what else would do."""
    commands = "\n".join(line.strip() for line in hint.splitlines() if line.strip().startswith("kubectl"))
    kubectl = tools.path("kubectl").parent
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "PATH": f"{kubectl}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", commands], env=environment, check=True, capture_output=True, text=True)


def versions(kube: Kube) -> dict[str, str]:
    """What every object of the kinds that matter here was last changed at."""
    kinds = (("v1", "ConfigMap"), ("v1", "Secret"), ("v1", "Namespace"), ("apps/v1", "Deployment"), ("rbac.authorization.k8s.io/v1", "ClusterRole"))
    return {f"{kind} {each['metadata']['name']}": each["metadata"]["resourceVersion"] for api, kind in kinds for each in kube.list(api, kind)}


@pytest.fixture(scope="module")
def member(api_server: ApiServer) -> ApiServer:
    """A member with KServe as it ships, an Istio that exports nothing, and gateways without names."""
    kube = api_server.kube
    for name in ("kserve", "istio-system", "istio-ingress", "models"):
        manifests.apply_all(kube, [manifests.namespace(name)])
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": kserve.CONFIG, "namespace": "kserve"}, "data": shipped()})
    kube.apply(deployment(kserve.MANAGER, "kserve", "kserve/kserve-controller:v0.20.0"))
    kube.apply(deployment("istiod-canary", "istio-system", "istio/pilot:1.31.1", {"app": "istiod", "istio.io/rev": "canary"}))
    mesh = {"defaultVirtualServiceExportTo": ["."]}
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-canary", "namespace": "istio-system"}, "data": {"mesh": yaml.safe_dump(mesh)}}
    )
    return api_server


def shipped() -> dict[str, str]:
    path = tools.share("kserve") / "charts/kserve-resources/files/common/configmap.yaml"
    [config] = manifests.read(path)
    return {key: value for key, value in config["data"].items() if key != "_example"}


def check(server: ApiServer, *, kubeconfig: str | None = None) -> Object:
    given = kubeconfig or server.kubeconfig.read_text()
    return {"cluster": "west", "memberKubeconfig": given, "kinds": KINDS, "provider": "opa"}


def lacking(spec: Object) -> list[str]:
    """Settings of the findings of a check."""
    with pytest.raises(verification.VerificationError) as caught:
        membership.check(spec)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("to fix before it can be used; nothing was changed")
    return [line.removeprefix("west: ").partition(": ")[0] for line in lines[1:] if line.startswith("west: ")]


def test_a_member_is_told_everything_that_it_lacks_and_mended_by_the_commands(member: ApiServer) -> None:
    before = versions(member.kube)
    assert lacking(check(member)) == [
        "KServe's ConfigMap kserve/inferenceservice-config, section ingress, disableIngressCreation",
        "KServe's ConfigMap kserve/inferenceservice-config, section inferenceService, serviceAnnotationDisallowedList",
        "Istio's ConfigMap istio-system/istio-canary, mesh, defaultVirtualServiceExportTo",
        "Istio's ConfigMap istio-system/istio-canary, mesh, extensionProviders",
        "pods in istio-ingress with the label istio=front-door",
        "pods in istio-ingress with the label istio=regional-gateway",
        "kind InferenceService",
        "kind ClusterServingRuntime",
        "kind VirtualService",
        "kind EnvoyFilter",
        "kind AuthorizationPolicy",
    ]
    assert versions(member.kube) == before, "a check changes nothing"

    for each in verification.kserve_findings(member.kube):
        run(each.hint, member)
    assert verification.kserve_findings(member.kube) == []
    run(kserve.RESTART, member)
    restarted = member.kube.get("apps/v1", "Deployment", kserve.MANAGER, "kserve")["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in restarted

    manifests.apply_crds(member.kube, [*local_karmada.kserve_crds(minimal=True), *local_karmada.istio_crds()])
    add_gateways(member.kube)
    mesh = {"extensionProviders": [{"name": "opa", "envoyExtAuthzGrpc": {"service": "opa", "port": 9191}}]}
    member.kube.patch("v1", "ConfigMap", "istio-canary", {"data": {"mesh": yaml.safe_dump(mesh)}}, "istio-system")
    assert membership.check(check(member)) == {}


@pytest.fixture(scope="module")
def reader(member: ApiServer) -> str:
    """A kubeconfig that may read what is verified, and change nothing."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}}
    member.kube.apply(account)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
    }
    member.kube.apply(binding)
    # The role `view` is filled by a controller that does not run here.
    read = {"apiGroups": ["", "apps"], "resources": ["*"], "verbs": ["get", "list"]}
    member.kube.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "view"}, "rules": [read]})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = member.kube.request("POST", "/api/v1/namespaces/default/serviceaccounts/reader/token", json=request).json()["status"]["token"]
    config = yaml.safe_load(member.kubeconfig.read_text())
    # As text it has no folder, to which the file's path could be relative.
    authority = (member.folder / "certificates" / "apiserver.crt").read_bytes()
    config["clusters"][0]["cluster"] = {"server": member.url, "certificate-authority-data": base64.b64encode(authority).decode()}
    config["users"][0]["user"] = {"token": token}
    return yaml.safe_dump(config)


def resource_of(item: Object) -> str:
    """As RBAC has it; the plurals of what a join declares are regular."""
    return f"{item['kind'].lower()}s.{item['apiVersion'].rpartition('/')[0]}".rstrip(".")


def test_rights_that_the_join_lacks_are_listed_and_given_by_the_commands(member: ApiServer, reader: str) -> None:
    objects = membership.member_objects("west")
    with Kube.from_kubeconfig(reader) as kube:
        found = verification.access_findings(kube, objects)
        user = "system:serviceaccount:default:reader"
        assert {each.setting for each in found} == {f"rights of `{user}` on {resource_of(each)}" for each in objects}
        assert len({each.setting for each in found}) == len(found)
        wrong = {each.setting.rpartition(" ")[2]: each.wrong for each in found}
        assert wrong["namespaces"].startswith("must allow create, patch, delete:")
        assert wrong["secrets"].startswith("must allow create, patch, delete in karmada-cluster:")
        for each in found:
            run(each.hint, member)
        # It may write roles now, and not yet give away what it does not have.
        [escalation] = verification.access_findings(kube, objects)
        assert "must hold every right that the join gives to Karmada" in escalation.wrong
        run(escalation.hint, member)
        assert verification.access_findings(kube, objects) == []


def test_fleet_driver_ends_with_the_list_and_exit_code_1(member: ApiServer) -> None:
    spec = {**check(member), "kinds": ["serving.kserve.io/v9/InferenceService", "example.com/v1/Nothing"], "provider": "nobody"}
    done = subprocess.run([sys.executable, "-m", "operations.driver", "member", "check"], input=json.dumps(spec), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "west: kind InferenceService: must be served" in done.stderr
    assert "west: kind Nothing: must be served" in done.stderr
    assert done.stderr.count("  hint: ") >= 2


# Karmada: its API server here is the same one, as it keeps CRDs and Deployments alike


@pytest.fixture(scope="module")
def hub(member: ApiServer) -> ApiServer:
    manifests.apply_crds(member.kube, [*karmada_crds(), cluster_crd(), *local_karmada.kserve_crds(minimal=True), *local_karmada.istio_crds()])
    manifests.apply_all(member.kube, [manifests.namespace("karmada-system")])
    for component in karmada.COMPONENTS:
        member.kube.apply(deployment(component, "karmada-system", f"karmada/{component}:v1.18.2", command=[f"/bin/{component}", "--v=2"]))
    # The failback controller's, which runs.
    held = {"holderIdentity": "somebody", "renewTime": "2099-01-01T00:00:00.000000Z"}
    metadata = {"name": failback_access.NAME, "namespace": "karmada-system"}
    member.kube.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": held})
    return member


def cluster_crd() -> Object:
    """An aggregated API server serves this kind; that it is served is all that is looked at."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "Cluster", "listKind": "ClusterList", "plural": "clusters", "singular": "cluster"}
    spec = {"group": "cluster.karmada.io", "names": names, "scope": "Cluster", "versions": [version]}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "clusters.cluster.karmada.io"}, "spec": spec}


def verify(server: ApiServer, **more: Any) -> Object:
    text = server.kubeconfig.read_text()
    return {"cluster": "hub", "controlPlane": "karmada", "kubeconfig": text, "kinds": KINDS, "settings": {"flags": FLAGS}, **more}


def test_a_karmada_is_told_every_switch_that_it_lacks_and_mended_by_the_commands(hub: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    host = {"hostKubeconfig": hub.kubeconfig.read_text(), "hostNamespace": "karmada-system"}
    with pytest.raises(verification.VerificationError) as caught:
        verification.verify(verify(hub, **host))
    for flag in ("--feature-gates=Failover", "--enable-no-execute-taint-eviction", "--allow-no-execute-taint-policy", "--resource-eviction-rate"):
        assert f"{flag}: must be" in str(caught.value)
    # It works without, and is told all the same.
    assert "warning: hub: karmada-scheduler --rate-limiter-max-delay" in capsys.readouterr().err

    for each in karmada.findings(verification.karmada_processes(hub.kube, None), FLAGS):
        run(each.hint, hub)
    assert verification.verify(verify(hub, **host)) == {}
    assert capsys.readouterr().err == ""


def test_flags_that_cannot_be_read_are_a_warning(hub: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert verification.verify(verify(hub)) == {}
    told = capsys.readouterr().err
    assert "cannot be verified through Karmada's API" in told
    assert "hub.driver.host.kubeconfigPath" in told


def test_a_webhook_that_refuses_the_taint_policy_is_named_with_its_flag(hub: ApiServer) -> None:
    """The refusal of Karmada's webhook by a policy with the same words."""
    rules = [{"apiGroups": ["policy.karmada.io"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["clustertaintpolicies"]}]
    said = "spec.taints[0]: Forbidden: Configuring taint with NoExecute effect is not allowed, this capability must be explicitly enabled"
    spec = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "false", "message": said}]}
    api = "admissionregistration.k8s.io/v1"
    hub.kube.apply({"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "webhook"}, "spec": spec})
    binding = {"policyName": "webhook", "validationActions": ["Deny"]}
    hub.kube.apply({"apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "webhook"}, "spec": binding})
    try:
        # A new policy holds after a moment.
        hub.kube.wait(lambda: verification.hub_findings(hub.kube, []), 30, "the policy to hold")
        [found] = verification.hub_findings(hub.kube, [])
        assert found.setting == "karmada-webhook --allow-no-execute-taint-policy"
        assert "kubectl -n karmada-system patch deployment karmada-webhook" in found.hint
    finally:
        hub.kube.delete(api, "ValidatingAdmissionPolicyBinding", "webhook")
        hub.kube.delete(api, "ValidatingAdmissionPolicy", "webhook")


def test_an_api_server_that_is_no_karmada_is_told_apart(hub: ApiServer) -> None:
    hub.kube.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "clusters.cluster.karmada.io")
    hub.kube.wait(lambda: not _served(hub), 30, "the kind Cluster to go")
    with Kube.from_kubeconfig(hub.kubeconfig) as kube:
        [found] = verification.hub_findings(kube, KINDS)
    assert (found.setting, found.got) == ("kind Cluster", "not in cluster.karmada.io/v1alpha1")
    assert "is this the kubeconfig of Karmada's own API server?" in found.hint


def _served(hub: ApiServer) -> bool:
    try:
        listed = hub.kube.request("GET", "/apis/cluster.karmada.io/v1alpha1").json()["resources"]
    except ApiError:
        return False
    return any(each["kind"] == "Cluster" for each in listed)
