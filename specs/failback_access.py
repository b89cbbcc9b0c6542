"""What the failback controller may do, as RBAC manifests.

It acts in the Karmada API server as the user NAME, by a client certificate without an organization, and reaches members only
through Karmada's proxy, which impersonates that user there. A user and not a service account, and of no group: the proxy
impersonates the groups of the caller too, and Karmada grants it only what a binding to the proxy names
(pkg/util/rbac.go, GenerateImpersonationRules).
"""

from typing import Any

from specs import labels, propagation

NAME = "fleet-failback"
_RBAC = "rbac.authorization.k8s.io"

Manifest = dict[str, Any]


def hub_access(namespace: str) -> list[Manifest]:
    """The rights of the user NAME in the Karmada API server. namespace: of the lease there, as `--lease-namespace` names it."""
    rules = [
        {"apiGroups": ["cluster.karmada.io"], "resources": ["clusters"], "verbs": ["get", "list", "watch"]},
        # One right for a GET of any object of a member, one for a DELETE. What the member allows is `member_access`.
        {"apiGroups": ["cluster.karmada.io"], "resources": ["clusters/proxy"], "verbs": ["get", "delete"]},
        # update: to cancel an eviction whose taint is gone.
        {"apiGroups": ["work.karmada.io"], "resources": ["resourcebindings"], "verbs": ["get", "list", "watch", "update"]},
        {"apiGroups": ["work.karmada.io"], "resources": ["works"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": ["apps.karmada.io"], "resources": ["workloadrebalancers"], "verbs": ["create", "delete"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    # A right to create cannot name the object.
    lease = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [NAME], "verbs": ["get", "update"]},
    ]
    return [*_grant("ClusterRole", None, rules), *_grant("Role", namespace, lease)]


def member_access() -> list[Manifest]:
    """What a member grants the user NAME: to list and delete what the fleet sends, and nothing else."""
    resources = propagation.resources()
    groups = sorted({group for group, _ in resources})
    rules = [{"apiGroups": [group], "resources": sorted(name for each, name in resources if each == group), "verbs": ["list", "delete"]} for group in groups]
    return _grant("ClusterRole", None, rules)


def _grant(kind: str, namespace: str | None, rules: list[Manifest]) -> list[Manifest]:
    metadata = labels.metadata(NAME, namespace, component="failback")
    reference = {"apiGroup": _RBAC, "kind": kind, "name": NAME}
    subject = {"apiGroup": _RBAC, "kind": "User", "name": NAME}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {"apiVersion": f"{_RBAC}/v1", "kind": f"{kind}Binding", "metadata": metadata, "roleRef": reference, "subjects": [subject]},
    ]
