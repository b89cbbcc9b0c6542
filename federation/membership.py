"""Making a cluster a member of the hub, and taking it out again, alive or dead.

Declares what `karmadactl join` does in push mode, for any cluster of which there is a kubeconfig, but with the rights of
rights.py in place of all. Credentials go from one API server to the other and nowhere else: nothing here prints or returns
them. Every step can be repeated: a join that was interrupted goes on when it is called again.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from federation import verification
from federation.rights import IMPERSONATOR_ACCOUNT, account, grants
from kube.client import ApiError, Kube, KubeError, Unreachable, condition
from kube.kubeconfig import KubeconfigError
from specs import naming, propagation
from specs.naming import CLUSTER_NAMESPACE
from specs.propagation import Kind

CLUSTER_API = "cluster.karmada.io/v1alpha1"
WORK_API = "work.karmada.io/v1alpha1"

# karmadactl and Karmada's controllers recognise by it what the federation made.
SYSTEM = {"karmada.io/system": "true"}

JOIN_TIMEOUT_S = 90.0
# For the member's token controller.
TOKEN_TIMEOUT_S = 30.0
# What Karmada itself may take to remove its objects from a living member before they are left behind.
LEAVE_TIMEOUT_S = 60.0
# A dead member's Cluster object is let go after this, even while policies still name the cluster.
FORGET_AFTER_S = 10.0
# A member that does not answer within this is taken for dead.
PROBE_TIMEOUT_S = 3.0

# Of the rights that Karmada's unifiedAuth controller would give away on members.
_RBAC_KINDS = ("ClusterRole", "ClusterRoleBinding")

Object = dict[str, Any]


def join(spec: Object) -> Object:
    """Makes `spec["cluster"]` a member and waits until Karmada would place models on it.

    Returns {"id"}: the UID of the member's kube-system, by which Karmada knows a cluster. A member that does not answer
    gets its region and labels changed on the hub, and a line on stderr says what was skipped; one that was never joined
    raises Unreachable. So does a hub that does not answer. Raises VerificationError, before anything is changed, where the
    member lacks a kind that the hub sends or the kubeconfig a right; ApiError, Unauthorized where credentials expire on the
    way; or TimeoutError that says what is missing.
    """
    name = spec["cluster"]
    with Kube.from_kubeconfig(spec["hubKubeconfig"]) as hub:
        member = reach(spec["memberKubeconfig"])
        if member is not None:
            with member:
                return {"id": _join(hub, member, spec)}
        known = hub.find(CLUSTER_API, "Cluster", name)
        if known is None:
            raise Unreachable(f"cluster `{name}` cannot be reached with its kubeconfig, and is not a member yet")
        _say(f"skipped: cluster {name} does not answer; its labels and its place are changed on the hub, nothing there")
        hub.apply(cluster_object(spec, known["spec"]["apiEndpoint"], known["spec"]["id"]))
        return {"id": known["spec"]["id"]}


def check(spec: Object) -> Object:
    """Verifies that `spec["cluster"]` can become a member, before anything is changed: control planes, kinds, rights, gateways.

    `kinds` are those that the hub sends, as `apiVersion/Kind`; `provider` is the extension provider that authenticates callers, or
    "". Raises VerificationError with everything that it lacks, Unreachable, ApiError.
    """
    with Kube.from_kubeconfig(spec["memberKubeconfig"], spec.get("context") or None) as member:
        found = verification.member_findings(member, ("kserve", "istio"), spec["kinds"], spec.get("provider") or "")
        verification.require(spec["cluster"], [*found, *verification.access_findings(member, member_objects(spec["cluster"]))])
    return {}


def _join(hub: Kube, member: Kube, spec: Object) -> str:
    name = spec["cluster"]
    kinds = propagation.of(spec["kinds"])
    verification.require(name, [*verification.kind_findings(member, spec["kinds"]), *verification.access_findings(member, member_objects(name))])
    uid: str = member.get("v1", "Namespace", "kube-system")["metadata"]["uid"]
    refuse_twin(hub, name, uid)
    for item in member_objects(name):
        member.apply(item)
    full, impersonator = (_wait_token(member, each, name) for each in (account(name), IMPERSONATOR_ACCOUNT))
    _say(f"joining `{name}` to the hub")
    hub.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLUSTER_NAMESPACE, "labels": SYSTEM}})
    secrets = [
        _secret(name, {"token": full["token"], "caBundle": full["ca.crt"]}),
        _secret(f"{name}-impersonator", {"token": impersonator["token"]}),
    ]
    for item in secrets:
        hub.apply(item)
    cluster = hub.apply(cluster_object(spec, member.server, uid))
    # With the Cluster object its credentials go too.
    owner = {"apiVersion": CLUSTER_API, "kind": "Cluster", "name": name, "uid": cluster["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}
    for item in secrets:
        hub.apply({**item, "metadata": {**item["metadata"], "ownerReferences": [owner]}})
    _wait_ready(hub, name, kinds)
    return uid


def unjoin(spec: Object) -> Object:
    """Takes `spec["cluster"]` out of the federation. A cluster that is no member is fine.

    Alive, Karmada first removes from it what it put there. Dead, or not done within LEAVE_TIMEOUT_S, the hub forgets it
    and what Karmada put there stays behind; a line on stderr says so. Raises Unreachable only where the hub is away.

    A token in a kubeconfig lives for an hour, and this gets the kubeconfig of the last update. Karmada has credentials of its own:
    where it says that the member is Ready it cleans up, and only its access stays.
    """
    name = spec["cluster"]
    with Kube.from_kubeconfig(spec["hubKubeconfig"]) as hub:
        reached = _reach(spec.get("memberKubeconfig"))
        member = reached.member
        cleans = member is not None or (reached.refused and condition(hub.find(CLUSTER_API, "Cluster", name) or {}, "Ready").get("status") == "True")
        if not cleans:
            _say(f"`{name}` does not answer: the hub forgets it, what Karmada put there stays behind")
        elif member is None:
            _say(f"`{name}` refuses the kubeconfig: Karmada removes what it put there; its namespace {CLUSTER_NAMESPACE} and its roles stay behind")
        _remove(hub, name, forced=not cleans)
        for secret in (name, f"{name}-impersonator"):
            hub.delete("v1", "Secret", secret, CLUSTER_NAMESPACE)
        if member is not None:
            with member:
                _clean(member, name)
    return {}


def member_objects(name: str) -> list[Object]:
    """What the member grants: two service accounts with tokens, their rights, and the namespaces in which they hold."""
    objects: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLUSTER_NAMESPACE, "labels": SYSTEM}}]
    # Karmada labels them later; it may not create any.
    objects += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}} for each in propagation.NAMESPACES]
    for service_account in (IMPERSONATOR_ACCOUNT, account(name)):
        metadata = {"name": service_account, "namespace": CLUSTER_NAMESPACE, "labels": SYSTEM}
        token = {"annotations": {"kubernetes.io/service-account.name": service_account}}
        objects += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": {**metadata, **token}},
        ]
    return [*objects, *grants(name, SYSTEM)]


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


def _wait_token(member: Kube, service_account: str, name: str) -> Object:
    return member.wait(lambda: _token(member, service_account), TOKEN_TIMEOUT_S, f"the token of service account {service_account} on `{name}`")


def _token(member: Kube, service_account: str) -> Object | None:
    """The member's token controller fills the Secret in, `ca.crt` in the same write."""
    data = member.get("v1", "Secret", service_account, CLUSTER_NAMESPACE).get("data") or {}
    return data if data.get("token") and data.get("ca.crt") else None


def refuse_twin(hub: Kube, name: str, uid: str) -> None:
    """Raises ValueError where the cluster with this UID is a member under another name."""
    for cluster in hub.list(CLUSTER_API, "Cluster"):
        other = cluster["metadata"]["name"]
        if other != name and cluster["spec"].get("id") == uid:
            raise ValueError(f"cluster `{name}`: is a member already, under the name: `{other}`")


def _wait_ready(hub: Kube, name: str, kinds: Sequence[Kind]) -> None:
    missing = "an answer of the hub"

    def ready() -> bool:
        nonlocal missing
        cluster = hub.get(CLUSTER_API, "Cluster", name)
        state = condition(cluster, "Ready")
        if state.get("status") != "True":
            missing = f"Cluster to be Ready: {state.get('message') or 'no status yet'}"
            return False
        absent = absent_kinds(cluster, kinds)
        missing = f"Karmada to see on it {', '.join(f'{each.kind} ({each.api_version})' for each in absent)}"
        return not absent

    try:
        hub.wait(ready, JOIN_TIMEOUT_S, "the member")
    except TimeoutError as error:
        _, _, last = str(error).partition("; ")
        raise TimeoutError(
            f"cluster `{name}`: waited {JOIN_TIMEOUT_S:.0f} s for {missing}{f'; {last}' if last else ''}\n"
            "  hint: see the log of karmada-controller-manager on the hub; re-run to resume"
        ) from None


def absent_kinds(cluster: Object, kinds: Sequence[Kind]) -> list[Kind]:
    """Those of `kinds` that Karmada has not seen on the member: it would send none of them there, without an error."""
    reported = {(api["groupVersion"], item["kind"]) for api in (cluster.get("status") or {}).get("apiEnablements") or [] for item in api.get("resources") or []}
    return [each for each in kinds if (each.api_version, each.kind) not in reported]


@dataclass(frozen=True)
class _Reached:
    """What came of asking a member. `refused`: it may be well, but there are no credentials for it."""

    member: Kube | None
    refused: bool = False


def reach(kubeconfig: str | None) -> Kube | None:
    """A client for the member, None where it does not answer or its credentials are of no use."""
    return _reach(kubeconfig).member


def _reach(kubeconfig: str | None) -> _Reached:
    if not kubeconfig:
        return _Reached(None)
    try:
        member = Kube.from_kubeconfig(kubeconfig)
    except KubeconfigError as error:
        _say(str(error))
        return _Reached(None, refused=True)
    try:
        member.request("GET", "/version", timeout=PROBE_TIMEOUT_S)
    except KubeError as error:
        _say(str(error))
        member.close()
        return _Reached(None, refused=isinstance(error, ApiError) and error.status in (401, 403))
    return _Reached(member)


def _remove(hub: Kube, name: str, *, forced: bool) -> None:
    """Deletes the Cluster object and sees to it that it goes, with its execution space."""
    space = naming.EXECUTION_SPACE + name
    started = time.monotonic()
    hub.delete(CLUSTER_API, "Cluster", name)
    while (cluster := hub.find(CLUSTER_API, "Cluster", name)) is not None or hub.find("v1", "Namespace", space) is not None:
        waited = time.monotonic() - started
        if waited > LEAVE_TIMEOUT_S and not forced:
            _say(f"`{name}`: Karmada did not clean up within {LEAVE_TIMEOUT_S:.0f} s; the hub forgets it, what is left there stays behind")
            forced = True
        elif waited > 2 * LEAVE_TIMEOUT_S:
            raise TimeoutError(
                f"cluster `{name}`: waited {waited:.0f} s for the hub to forget it\n  hint: see the log of karmada-controller-manager on the hub"
            )
        works = hub.list(WORK_API, "Work", space)
        for work in works:
            _drop(hub, work, forced=forced or _never_arrived(work))
        if cluster is not None and not works:
            # Karmada looks again only every 10 s; a change of the object makes it look now. What it still waits for when
            # forced is a binding that names the cluster, and nobody can move that one.
            held = {"finalizers": None} if forced and waited > FORGET_AFTER_S else {"annotations": {"inference-fleet.dev/leaving": str(time.time())}}
            _patch(hub, CLUSTER_API, "Cluster", name, {"metadata": held})
        time.sleep(0.3)


def _never_arrived(work: Object) -> bool:
    """Whether it is of Karmada's unifiedAuth controller, which a Karmada of others may run. Karmada has no rights on RBAC of a
    member: it could not bring these, and tries for ever to take them back."""
    manifests: list[Object] = ((work.get("spec") or {}).get("workload") or {}).get("manifests") or []
    ours = [each for each in manifests if each.get("kind") in _RBAC_KINDS and each.get("metadata", {}).get("name") == IMPERSONATOR_ACCOUNT]
    return bool(ours) and ours == manifests and condition(work, "Applied").get("status") != "True"


def _drop(hub: Kube, work: Object, *, forced: bool) -> None:
    """Deletes a Work; Karmada then removes its object from the member, unless forced: nobody could.

    The namespace's own deletion would come to it too, but looks only every 8 s.
    """
    metadata = work["metadata"]
    if not metadata.get("deletionTimestamp"):
        hub.delete(WORK_API, "Work", metadata["name"], metadata["namespace"])
    if forced:
        _patch(hub, WORK_API, "Work", metadata["name"], {"metadata": {"finalizers": None}}, metadata["namespace"])


def _patch(hub: Kube, api_version: str, kind: str, name: str, patch: Object, namespace: str | None = None) -> None:
    """Karmada works on the same objects: what is gone or just changed is seen again in the next round."""
    try:
        hub.patch(api_version, kind, name, patch, namespace)
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def _clean(member: Kube, name: str) -> None:
    """Takes back what member_objects granted; namespaces with models in them stay. A member that dies meanwhile is not waited for."""
    try:
        # Bindings first: a role without one grants nothing.
        for item in reversed(grants(name, SYSTEM)):
            member.delete(item["apiVersion"], item["kind"], item["metadata"]["name"], item["metadata"].get("namespace"))
        member.delete("v1", "Namespace", CLUSTER_NAMESPACE)
    except Unreachable as error:
        _say(f"`{name}`: the access of Karmada was not taken back: {error}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
