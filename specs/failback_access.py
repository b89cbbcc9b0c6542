"""What the failback controller may do on the hub, as RBAC manifests. What it may do on members: federation/rights.py.

It acts in the Karmada API server as the user NAME, by a client certificate without an organization, and reaches members only
through Karmada's proxy, which impersonates that user there. A user and not a service account, and of no group: the proxy
impersonates the groups of the caller too, and members let it impersonate this user alone.
"""

from typing import Any

from specs import labels

NAME = "fleet-failback"
_RBAC = "rbac.authorization.k8s.io"

Manifest = dict[str, Any]


def hub_access(namespace: str) -> list[Manifest]:
    """The rights of the user NAME in the Karmada API server. namespace: of the lease there, as `--lease-namespace` names it."""
    rules = [
        {"apiGroups": ["cluster.karmada.io"], "resources": ["clusters"], "verbs": ["get", "list", "watch"]},
        # One right for a GET of any object of a member, one for a DELETE. What the member allows is federation/rights.py.
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


def _grant(kind: str, namespace: str | None, rules: list[Manifest]) -> list[Manifest]:
    metadata = labels.metadata(NAME, namespace, component="failback")
    reference = {"apiGroup": _RBAC, "kind": kind, "name": NAME}
    subject = {"apiGroup": _RBAC, "kind": "User", "name": NAME}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules},
        {"apiVersion": f"{_RBAC}/v1", "kind": f"{kind}Binding", "metadata": metadata, "roleRef": reference, "subjects": [subject]},
    ]
