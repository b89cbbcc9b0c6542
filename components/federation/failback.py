"""The failback controller beside a Karmada that runs in pods: its Deployment on the host cluster, and its rights.

Pure manifests, no Pulumi. What the controller does: docs/failback.md. As a host process of a local hub it is local/failback.py.
Three API servers are involved. The Deployment runs on the host cluster; the controller acts in the Karmada API server as the
user NAME, by a client certificate; and it reaches members only through Karmada's proxy, which impersonates that user there.
A user and not a service account: the proxy impersonates the groups of the caller too, and Karmada grants it the groups of
service accounts only if all of them may use the proxy (pkg/util/rbac.go, GenerateImpersonationRules).
"""

from collections.abc import Sequence
from typing import Any

from specs import labels, propagation

NAME = "fleet-failback"
METRICS_PORT = 9466
_HEALTH_PORT = 9467
# Key of the kubeconfig in its Secret.
_KUBECONFIG = "kubeconfig"
_RBAC = "rbac.authorization.k8s.io"
# Any user that is not root; the image names none.
_USER = 65532

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


def member_access(resources: Sequence[tuple[str, str]]) -> list[Manifest]:
    """What a member grants the user NAME: to list and delete what the fleet sends, and nothing else.

    resources: (API group, plural) of each of the propagated kinds.
    """
    groups = sorted({group for group, _ in resources})
    rules = [{"apiGroups": [group], "resources": sorted(name for each, name in resources if each == group), "verbs": ["list", "delete"]} for group in groups]
    return _grant("ClusterRole", None, rules)


def deployment(namespace: str, image: str, kubeconfig_secret: str, *, lease_namespace: str, replicas: int = 2) -> Manifest:
    """Two replicas, of which one acts: a second one takes over within the 15 seconds of the lease.

    kubeconfig_secret: name of a Secret with the key `kubeconfig`, for the Karmada API server as the user NAME.
    """
    arguments = [
        f"--kubeconfig=/etc/{NAME}/{_KUBECONFIG}",
        f"--lease-namespace={lease_namespace}",
        f"--orphan-kinds={','.join(propagation.kinds())}",
        f"--orphan-selector={propagation.MANAGED}",
        f"--metrics-bind-address=:{METRICS_PORT}",
        f"--health-probe-bind-address=:{_HEALTH_PORT}",
    ]
    container = {
        "name": NAME,
        "image": image,
        "command": [NAME],
        "args": arguments,
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}, {"name": "health", "containerPort": _HEALTH_PORT}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "health"}, "periodSeconds": 10},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 5},
        # No limit of CPU: throttled, it would lose its lease when many things come back at once.
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": _KUBECONFIG, "mountPath": f"/etc/{NAME}", "readOnly": True}],
    }
    spread = {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _SELECTOR}}}
    pod = {
        # It has no business in the host cluster's API server.
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "fsGroup": _USER, "seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [spread]}},
        "containers": [container],
        "volumes": [{"name": _KUBECONFIG, "secret": {"secretName": kubeconfig_secret, "items": [{"key": _KUBECONFIG, "path": _KUBECONFIG}]}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(namespace),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": _SELECTOR},
            "template": {"metadata": {"labels": {**_SELECTOR, labels.LABEL_PART_OF: labels.PART_OF}}, "spec": pod},
        },
    }


_SELECTOR = {"app.kubernetes.io/name": NAME}


def _metadata(namespace: str | None) -> Manifest:
    return labels.metadata(NAME, namespace, component="failback", extra=_SELECTOR)


def _grant(kind: str, namespace: str | None, rules: list[Manifest]) -> list[Manifest]:
    subject = {"apiGroup": _RBAC, "kind": "User", "name": NAME}
    role = {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": _metadata(namespace), "rules": rules}
    reference = {"apiGroup": _RBAC, "kind": kind, "name": NAME}
    binding = {"apiVersion": f"{_RBAC}/v1", "kind": f"{kind}Binding", "metadata": _metadata(namespace), "roleRef": reference, "subjects": [subject]}
    return [role, binding]
