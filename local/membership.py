"""Making a cluster a member of the hub, and taking it out again, alive or dead.

Declares what `karmadactl join` does in push mode, for any cluster of which there is a kubeconfig. Credentials go from one
API server to the other and nowhere else: nothing here prints or returns them.
"""

import sys
import time
from typing import Any

from kube.client import ApiError, Kube, KubeError, Unreachable, condition
from kube.kubeconfig import KubeconfigError
from local.karmada import CLUSTER_NAMESPACE

CLUSTER_API = "cluster.karmada.io/v1alpha1"
WORK_API = "work.karmada.io/v1alpha1"
BINDING_API = "work.karmada.io/v1alpha2"
RBAC_API = "rbac.authorization.k8s.io/v1"

# Kinds that the hub propagates. The scheduler leaves out a cluster whose reported APIs lack the kind, without a word, so
# a member counts as joined once it reports them all.
PROPAGATED = {
    "serving.kserve.io/v1beta1": {"InferenceService"},
    "serving.kserve.io/v1alpha1": {"ClusterServingRuntime"},
    "networking.istio.io/v1": {"Gateway", "ServiceEntry", "DestinationRule", "VirtualService"},
}

# karmadactl and Karmada's controllers recognise by it what the federation made.
SYSTEM = {"karmada.io/system": "true"}

JOIN_TIMEOUT_S = 90.0
# What Karmada itself may take to remove its objects from a living member before they are left behind.
LEAVE_TIMEOUT_S = 60.0
# A member that does not answer within this is taken for dead when it leaves.
PROBE_TIMEOUT_S = 3.0

Object = dict[str, Any]


def join(spec: Object) -> Object:
    """Makes `spec["cluster"]` a member and waits until Karmada would place models on it.

    Returns {"id"}: the UID of the member's kube-system, by which Karmada knows a cluster. Raises Unreachable where the hub
    or the member does not answer, ApiError, or TimeoutError that says what is missing.
    """
    name = spec["cluster"]
    with Kube.from_kubeconfig(spec["hubKubeconfig"]) as hub, Kube.from_kubeconfig(spec["memberKubeconfig"]) as member:
        uid = member.get("v1", "Namespace", "kube-system")["metadata"]["uid"]
        _refuse_twin(hub, name, uid)
        for item in member_objects(name):
            member.apply(item)
        full = member.wait(lambda: _token(member, f"karmada-{name}"), 30, f"token of service account karmada-{name} on `{name}`")
        impersonator = member.wait(lambda: _token(member, "karmada-impersonator"), 30, f"token of karmada-impersonator on `{name}`")
        _say(f"joining `{name}` to the hub")
        hub.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLUSTER_NAMESPACE, "labels": SYSTEM}})
        secrets = [
            _secret(name, {"token": full["token"], "caBundle": full["ca.crt"]}),
            _secret(f"{name}-impersonator", {"token": impersonator["token"]}),
        ]
        for item in secrets:
            hub.apply(item)
        cluster = hub.apply(cluster_object(spec, member.server, uid))
        owner = {"apiVersion": CLUSTER_API, "kind": "Cluster", "name": name, "uid": cluster["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}
        for item in secrets:
            hub.apply({**item, "metadata": {**item["metadata"], "ownerReferences": [owner]}})
        _wait_ready(hub, name)
    return {"id": uid}


def unjoin(spec: Object) -> Object:
    """Takes `spec["cluster"]` out of the federation. A cluster that is no member is fine.

    Alive, Karmada first removes from it what it put there. Dead, or not done within LEAVE_TIMEOUT_S, the hub forgets it
    and what Karmada put there stays behind; a line on stderr says so. Raises Unreachable only where the hub is away.
    """
    name = spec["cluster"]
    with Kube.from_kubeconfig(spec["hubKubeconfig"]) as hub:
        member = _reach(spec.get("memberKubeconfig"))
        try:
            if member is None:
                _say(f"`{name}` does not answer: the hub forgets it, what Karmada put there stays behind")
            _remove(hub, name, forced=member is None)
            for secret in (name, f"{name}-impersonator"):
                hub.delete("v1", "Secret", secret, CLUSTER_NAMESPACE)
            if member is not None:
                _clean(member, name)
        finally:
            if member is not None:
                member.close()
    return {}


def member_objects(name: str) -> list[Object]:
    """What the member grants to Karmada: two service accounts with tokens, one of them with all rights."""
    account = f"karmada-{name}"
    role = f"karmada-controller-manager:{account}"
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    objects: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLUSTER_NAMESPACE, "labels": SYSTEM}}]
    for service_account in ("karmada-impersonator", account):
        metadata = {"name": service_account, "namespace": CLUSTER_NAMESPACE, "labels": SYSTEM}
        token = {"annotations": {"kubernetes.io/service-account.name": service_account}}
        objects += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": {**metadata, **token}},
        ]
    return [
        *objects,
        {
            "apiVersion": RBAC_API,
            "kind": "ClusterRole",
            "metadata": {"name": role, "labels": SYSTEM},
            "rules": [everything, {"nonResourceURLs": ["*"], "verbs": ["get"]}],
        },
        {
            "apiVersion": RBAC_API,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role, "labels": SYSTEM},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": CLUSTER_NAMESPACE}],
        },
    ]


def cluster_object(spec: Object, endpoint: str, uid: str) -> Object:
    name = spec["cluster"]
    # Policies choose by these; an empty one is left out, as Karmada takes "" for a value.
    place = {key: value for key, value in (("region", spec.get("region")), ("provider", spec.get("provider"))) if value}
    zones = {"zones": [spec["zone"]]} if spec.get("zone") else {}
    return {
        "apiVersion": CLUSTER_API,
        "kind": "Cluster",
        "metadata": {"name": name, "labels": spec.get("labels") or {}},
        "spec": {
            "syncMode": "Push",
            "id": uid,
            "apiEndpoint": endpoint,
            "secretRef": {"namespace": CLUSTER_NAMESPACE, "name": name},
            "impersonatorSecretRef": {"namespace": CLUSTER_NAMESPACE, "name": f"{name}-impersonator"},
            **place,
            **zones,
        },
    }


def _secret(name: str, data: dict[str, str]) -> Object:
    """`data` is base64 already, as it was read."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": CLUSTER_NAMESPACE, "labels": SYSTEM}, "data": data}


def _token(member: Kube, account: str) -> Object | None:
    """The member's token controller fills the Secret in, `ca.crt` in the same write."""
    data = member.get("v1", "Secret", account, CLUSTER_NAMESPACE).get("data") or {}
    return data if data.get("token") and data.get("ca.crt") else None


def _refuse_twin(hub: Kube, name: str, uid: str) -> None:
    for cluster in hub.list(CLUSTER_API, "Cluster"):
        other = cluster["metadata"]["name"]
        if other != name and cluster["spec"].get("id") == uid:
            raise ValueError(f"cluster `{name}`: is a member already, under the name: `{other}`")


def _wait_ready(hub: Kube, name: str) -> None:
    missing = "Cluster to be Ready"

    def ready() -> bool:
        nonlocal missing
        cluster = hub.get(CLUSTER_API, "Cluster", name)
        state = condition(cluster, "Ready")
        if state.get("status") != "True":
            missing = f"Cluster to be Ready: {state.get('message') or 'no status yet'}"
            return False
        absent = absent_kinds(cluster)
        missing = f"kinds {', '.join(absent)}, which the member does not serve"
        return not absent

    try:
        hub.wait(ready, JOIN_TIMEOUT_S, "Cluster to be Ready")
    except TimeoutError:
        raise TimeoutError(f"cluster `{name}`: waited {JOIN_TIMEOUT_S:.0f} s for {missing}\n  hint: see the log of karmada-controller-manager on the hub") from None


def absent_kinds(cluster: Object) -> list[str]:
    """Kinds of PROPAGATED that the member has not reported."""
    reported = {api["groupVersion"]: {item["kind"] for item in api.get("resources") or []} for api in (cluster.get("status") or {}).get("apiEnablements") or []}
    return sorted(f"{kind} ({version})" for version, kinds in PROPAGATED.items() for kind in kinds - reported.get(version, set()))


def _reach(kubeconfig: str | None) -> Kube | None:
    """A client for the member, None where it does not answer."""
    if not kubeconfig:
        return None
    try:
        member = Kube.from_kubeconfig(kubeconfig, timeout=PROBE_TIMEOUT_S)
    except KubeconfigError as error:
        _say(str(error))
        return None
    try:
        member.request("GET", "/version")
    except KubeError:
        member.close()
        return None
    return member


def _remove(hub: Kube, name: str, *, forced: bool) -> None:
    """Deletes the Cluster object and sees to it that it goes."""
    try:
        if not hub.delete(CLUSTER_API, "Cluster", name):
            return
    except ApiError as error:
        if error.status != 404:
            raise
        return
    started = time.monotonic()
    while hub.find(CLUSTER_API, "Cluster", name) is not None:
        if not forced and time.monotonic() - started > LEAVE_TIMEOUT_S:
            _say(f"`{name}`: Karmada did not clean up within {LEAVE_TIMEOUT_S:.0f} s; the hub forgets it, what is left there stays behind")
            forced = True
        if forced:
            _forget(hub, name)
        elif hub.find("v1", "Namespace", f"karmada-es-{name}") is None:
            # Karmada looks again only every 10 s; a change of the object makes it look now.
            _patch(hub, CLUSTER_API, "Cluster", name, {"metadata": {"annotations": {"inference-fleet.dev/leaving": str(time.time())}}})
        time.sleep(0.5)


def _forget(hub: Kube, name: str) -> None:
    """Drops what keeps the Cluster object: Works that can no longer be undone on the member, and its own finalizer."""
    space = f"karmada-es-{name}"
    for work in hub.list(WORK_API, "Work", space):
        hub.delete(WORK_API, "Work", work["metadata"]["name"], space)
        _patch(hub, WORK_API, "Work", work["metadata"]["name"], {"metadata": {"finalizers": None}}, space)
    if hub.find("v1", "Namespace", space) is None or not hub.list(WORK_API, "Work", space):
        _patch(hub, CLUSTER_API, "Cluster", name, {"metadata": {"finalizers": None}})


def _patch(hub: Kube, api_version: str, kind: str, name: str, patch: Object, namespace: str | None = None) -> None:
    """Karmada works on the same objects: what is gone or just changed is seen again in the next round."""
    try:
        hub.patch(api_version, kind, name, patch, namespace)
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def _clean(member: Kube, name: str) -> None:
    """Takes back what member_objects granted. A member that dies meanwhile is not waited for."""
    role = f"karmada-controller-manager:karmada-{name}"
    try:
        member.delete(RBAC_API, "ClusterRoleBinding", role)
        member.delete(RBAC_API, "ClusterRole", role)
        member.delete("v1", "Namespace", CLUSTER_NAMESPACE)
    except Unreachable as error:
        _say(f"`{name}`: the access of Karmada was not taken back: {error}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
