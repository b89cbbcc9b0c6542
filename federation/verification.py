"""Verification of clusters and control planes that somebody else set up, before anything is changed.

Reads and dry runs only. Everything that is wrong is found at once; what is right, and the command that sets it, is
specs/control_planes. Not verified: what a control plane does with its settings.
"""

import datetime as dt
import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

import yaml

from core.errors import FleetError
from kube.client import ApiError, Kube, UnknownKind, Unreachable
from specs import propagation
from specs.control_planes import istio, karmada, kserve
from specs.control_planes.finding import Finding
from specs.failback_access import NAME as FAILBACK
from specs.labels import NAMESPACE_INGRESS, TAINT_LOST

Object = dict[str, Any]

_DEPLOYMENT = ("apps/v1", "Deployment")
_RBAC = "rbac.authorization.k8s.io/v1"

# Seconds for one request: an API server behind a VPN, with a token plugin before it.
_TIMEOUT_S = 30.0

# Ends of the API groups that each control plane serves on a member, and how its CRDs get there.
_CRDS = {
    "serving.kserve.io": "install the charts kserve-crd and kserve-resources of one release: docs/existing-clusters.md",
    "istio.io": "helm upgrade --install istio-base istio/base -n istio-system --create-namespace",
    "karmada.io": "is this the kubeconfig of Karmada's own API server? That of the cluster in which Karmada runs serves none of its kinds",
}


class VerificationError(FleetError):
    """A cluster lacks something. The message lists all of it."""


def require(cluster: str, found: Iterable[Finding]) -> None:
    """Prints what is a warning. Raises VerificationError with everything that is required and missing."""
    every = list(found)
    for each in every:
        if not each.required:
            print(f"warning: {each.told(cluster)}", file=sys.stderr, flush=True)
    lacking = [each for each in every if each.required]
    if lacking:
        lines = "\n".join(each.told(cluster) for each in lacking)
        count = f"{len(lacking)} setting{'s' if len(lacking) > 1 else ''}"
        raise VerificationError(f"{cluster}: {count} to fix before it can be used; nothing was changed\n{lines}")


def verify(spec: Object) -> Object:
    """Verifies the control plane `spec["controlPlane"]` that somebody installed.

    `kubeconfig` leads to the cluster that it serves, for Karmada to Karmada's API server; `hostKubeconfig` to the cluster in which
    Karmada runs, where it is known. `kinds`: `apiVersion/Kind` that the hub sends. A member that does not answer is skipped with a
    line on stderr: a dead region must not hold up an update. Raises VerificationError, ApiError, and Unreachable for the hub.
    """
    plane, settings = spec["controlPlane"], spec.get("settings") or {}
    with Kube.from_kubeconfig(spec["kubeconfig"], spec.get("context") or None, _TIMEOUT_S) as kube:
        if plane == "karmada":
            found = _told_once([*hub_findings(kube, spec["kinds"]), *_host_findings(spec, karmada.of_settings(settings))])
        else:
            try:
                found = member_findings(kube, [plane], spec["kinds"], spec.get("provider") or "")
            except Unreachable as error:
                print(f"skipped: {plane} of cluster {spec['cluster']} was not verified: {error}", file=sys.stderr, flush=True)
                return {}
    require(spec["cluster"], found)
    return {}


def _told_once(found: Iterable[Finding]) -> list[Finding]:
    """The last finding of each setting: what Karmada's webhook refuses by a dry run is a flag of the host too, where the Deployment says more."""
    return list({each.setting: each for each in found}.values())


def member_findings(kube: Kube, planes: Sequence[str], kinds: Sequence[str], provider: str) -> list[Finding]:
    """What a member lacks of these control planes, and which of their kinds; with both planes, which of all kinds."""
    found: list[Finding] = []
    if "kserve" in planes:
        found += kserve_findings(kube)
    if "istio" in planes:
        found += istio_findings(kube, provider)
    groups = {"kserve": "serving.kserve.io", "istio": "istio.io"}
    others = {groups[plane] for plane in groups.keys() - set(planes)}
    return [*found, *kind_findings(kube, [each for each in kinds if not any(_group(each).endswith(group) for group in others)])]


def _group(kind: str) -> str:
    """Of `apiVersion/Kind`; empty for the core group."""
    return kind.rpartition("/")[0].rpartition("/")[0]


def kind_findings(kube: Kube, kinds: Iterable[str], *, on_hub: bool = False) -> list[Finding]:
    """Kinds, as `apiVersion/Kind`, that the API server does not serve. `on_hub`: templates of what members run, which the hub does not."""
    found: list[Finding] = []
    for each in kinds:
        api_version, _, kind = each.rpartition("/")
        try:
            kube.resource(api_version, kind)
        except UnknownKind:
            group = _group(each)
            hint = next((command for end, command in _CRDS.items() if group.endswith(end)), f"kubectl api-resources --api-group={group}")
            wrong = "must be served: Karmada passes over a cluster without a kind that it sends, without an error"
            if on_hub:
                wrong = "must be served: the hub holds a template of what it sends to members"
                names = [name for each_kind in propagation.of([each]) if (name := f"{each_kind.resource}.{group}") in karmada.propagated_crds()]
                hint = karmada.copy_crds(*names) if names else hint
            found.append(Finding(setting=f"kind {kind}", wrong=wrong, got=f"not in {api_version}", hint=hint))
    return found


# KServe


def kserve_findings(kube: Kube) -> list[Finding]:
    config = kube.find("v1", "ConfigMap", kserve.CONFIG, kserve.NAMESPACE)
    manager = kube.find(*_DEPLOYMENT, kserve.MANAGER, kserve.NAMESPACE)
    return [*kserve.findings(None if config is None else config.get("data") or {}), *kserve.manager_findings(_image(manager))]


def _image(deployment: Object | None) -> str | None:
    """The image of the first container: sidecars come after it in what the projects ship."""
    return None if deployment is None else deployment["spec"]["template"]["spec"]["containers"][0].get("image", "")


# Istio


def istio_findings(kube: Kube, provider: str) -> list[Finding]:
    istiod = next(iter(kube.list(*_DEPLOYMENT, namespace=istio.NAMESPACE, label_selector="app=istiod")), None)
    revision = (istiod["metadata"].get("labels") or {}).get("istio.io/rev", "default") if istiod else "default"
    name = "istio" if revision == "default" else f"istio-{revision}"
    config = kube.find("v1", "ConfigMap", name, istio.NAMESPACE)
    pods = kube.list("v1", "Pod", namespace=NAMESPACE_INGRESS)
    services = kube.list("v1", "Service", namespace=NAMESPACE_INGRESS)
    return [
        *istio.istiod_findings(_image(istiod)),
        *_mesh_findings(config, name, provider),
        *istio.gateway_findings(pods, services),
    ]


def _mesh_findings(config: Object | None, name: str, provider: str) -> list[Finding]:
    text: str | None = (config or {}).get("data", {}).get("mesh")
    try:
        mesh: Any = None if text is None else yaml.safe_load(text) or {}
    except yaml.YAMLError:
        mesh = text
    if mesh is None or isinstance(mesh, dict):
        return istio.mesh_findings(cast("Object | None", mesh), provider, name)
    hint = f"kubectl -n {istio.NAMESPACE} edit configmap {name}"
    return [Finding(setting=f"Istio's ConfigMap {istio.NAMESPACE}/{name}, mesh", wrong="must be a YAML mapping", got=text or "", hint=hint)]


# Karmada


# Beside Karmada's kinds and what is propagated: where credentials of members are kept.
_ON_THE_HUB = ("v1/Namespace", "v1/Secret")


def hub_findings(kube: Kube, kinds: Sequence[str]) -> list[Finding]:
    """What Karmada's own API tells: kinds, rights, and by a dry run what its webhook refuses. `kinds`: of what is propagated."""
    own = [f"{api_version}/{kind}" for api_version, kind in karmada.KINDS]
    if missing := kind_findings(kube, own):
        # Most likely another API server: nothing else that could be said of it is of use.
        return missing
    missing = kind_findings(kube, kinds, on_hub=True)
    absent = {each.setting for each in missing}
    declared = [each for each in dict.fromkeys([*_ON_THE_HUB, *own, *kinds]) if f"kind {each.rpartition('/')[2]}" not in absent]
    objects = [{"apiVersion": api_version, "kind": kind, "metadata": {}} for api_version, _, kind in (each.rpartition("/") for each in declared)]
    return [*missing, *access_findings(kube, objects), *_taint_policy_findings(kube), *failback_findings(kube)]


def _taint_policy_findings(kube: Kube) -> list[Finding]:
    probe = {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterTaintPolicy",
        "metadata": {"name": "inference-fleet-probe"},
        "spec": {
            "addOnConditions": [{"conditionType": "Ready", "operator": "NotIn", "statusValues": ["True"]}],
            "taints": [{"key": TAINT_LOST, "effect": "NoExecute"}],
        },
    }
    try:
        kube.create(probe, dry_run=True)
    except ApiError as error:
        # The webhook names the effect; without its flag it refuses nothing else of this object.
        if "NoExecute" not in error.message:
            raise
        return [karmada.refused_taint_policy(error.message)]
    return []


# Many times what its lease is renewed in, and more than two clocks differ by.
_LEASE_STALE_S = 300


def failback_findings(kube: Kube) -> list[Finding]:
    """Whether the failback controller runs, by its lease."""
    try:
        leases = kube.list("coordination.k8s.io/v1", "Lease", field_selector=f"metadata.name={FAILBACK}")
    except ApiError as error:
        return [karmada.without_failback(f"its lease cannot be read: {error}")]
    renewed = max((str(each["spec"].get("renewTime") or "") for each in leases if each["spec"].get("holderIdentity")), default="")
    if not renewed:
        return [karmada.without_failback(f"no Lease {FAILBACK} that somebody holds")]
    silent = dt.datetime.now(tz=dt.UTC) - dt.datetime.fromisoformat(renewed)
    return [karmada.without_failback(f"its lease was last renewed {renewed}")] if silent.total_seconds() > _LEASE_STALE_S else []


def _host_findings(spec: Object, flags: karmada.Flags) -> list[Finding]:
    if not spec.get("hostKubeconfig"):
        return [karmada.unverified()]
    with Kube.from_kubeconfig(spec["hostKubeconfig"], spec.get("hostContext") or None, _TIMEOUT_S) as host:
        return karmada.findings(karmada_processes(host, spec.get("hostNamespace") or None), flags)


def karmada_processes(host: Kube, namespace: str | None) -> dict[karmada.Component, karmada.Process]:
    """Karmada's processes, by the Deployments of the cluster in which it runs. Raises FleetError where there are several."""
    deployments = host.list(*_DEPLOYMENT, namespace=namespace)
    found: dict[karmada.Component, karmada.Process] = {}
    for component in karmada.COMPONENTS:
        running = [process for each in deployments if (process := karmada.process_of(each, component)) is not None]
        if len(running) > 1:
            places = ", ".join(f"{each.namespace}/{each.deployment}" for each in running)
            raise FleetError(
                f"hub: driver.host.namespace: must say which Karmada it is, got: `{places}`",
                hint=f"set hub.driver.host.namespace, such as: {running[0].namespace}",
            )
        if running:
            found[component] = running[0]
    return found


# Rights


def access_findings(kube: Kube, objects: Sequence[Object]) -> list[Finding]:
    """Rights that the kubeconfig lacks to declare `objects` and to take them back."""
    if _may(kube, "*", "*", "*", None):
        return []
    user = _user(kube)
    wanted: dict[str, dict[str | None, list[str]]] = {}
    for item in objects:
        resource = kube.resource(item["apiVersion"], item["kind"])
        group, namespace = _group(f"{item['apiVersion']}/{item['kind']}"), item["metadata"].get("namespace")
        places = wanted.setdefault(f"{resource.plural}.{group}".rstrip("."), {})
        if namespace not in places:
            places[namespace] = [verb for verb in _VERBS if not _may(kube, verb, group, resource.plural, namespace)]
    found = [_right(resource, places, user) for resource, places in wanted.items() if any(places.values())]
    # One that may not grant the rights of one role may as a rule grant none: one finding says so.
    escalations = [each for item in objects if item.get("rules") and item["kind"] == "ClusterRole" for each in _escalation(kube, item, user)]
    return [*found, *escalations[:1]]


_VERBS = ("get", "create", "patch", "delete")


def _right(resource: str, places: dict[str | None, list[str]], user: str) -> Finding:
    """`places` are the verbs that are lacking, by namespace."""
    verbs = [verb for verb in _VERBS if any(verb in lacking for lacking in places.values())]
    namespaces = [namespace for namespace, lacking in places.items() if namespace and lacking]
    name = f"inference-fleet-{resource}"
    where = f" in {', '.join(namespaces)}" if namespaces else ""
    role = f"kubectl create clusterrole {name} --verb={','.join(verbs)} --resource={resource}"
    binding = f"kubectl create clusterrolebinding {name} --clusterrole={name} --user='{user}'"
    wrong = f"must allow {', '.join(verbs)}{where}: the program declares such objects and removes them"
    return Finding(setting=f"rights of `{user}` on {resource}", wrong=wrong, got="denied", hint=f"{role}\n        {binding}")


def _escalation(kube: Kube, role: Object, user: str) -> list[Finding]:
    """Nobody may grant a right without having it: a dry run says which ones are lacking."""
    try:
        kube.apply(role, dry_run=True)
    except ApiError as error:
        if error.status != 403 or "attempting to grant" not in error.message:
            return []
        wrong = "must hold every right that the join gives to Karmada, or the verb `escalate` on clusterroles"
        hint = f"kubectl create clusterrolebinding inference-fleet-join --clusterrole=cluster-admin --user='{user}'   # for the join; take it back after"
        return [Finding(setting=f"rights of `{user}` on clusterroles.{_RBAC.partition('/')[0]}", wrong=wrong, got=error.message, hint=hint)]
    return []


def _may(kube: Kube, verb: str, group: str, resource: str, namespace: str | None) -> bool:
    attributes = {"verb": verb, "group": group, "resource": resource, **({"namespace": namespace} if namespace else {})}
    return bool(_review(kube, "authorization.k8s.io/v1", "SelfSubjectAccessReview", {"resourceAttributes": attributes}).get("allowed"))


def _user(kube: Kube) -> str:
    user: Object = _review(kube, "authentication.k8s.io/v1", "SelfSubjectReview", {}).get("userInfo") or {}
    return user.get("username") or "unknown"


def _review(kube: Kube, api_version: str, kind: str, spec: Object) -> Object:
    """The status of a review: an object that is answered and never kept. Its place is fixed: no discovery."""
    body = {"apiVersion": api_version, "kind": kind, "spec": spec}
    return kube.request("POST", f"/apis/{api_version}/{kind.lower()}s", json=body).json().get("status") or {}
