"""The failback controller's Deployment, beside a Karmada that runs in pods.

Pure manifests, no Pulumi. What the controller does: docs/failback.md. Its rights are specs/failback_access.py; as a host process of
a local hub it is local/failback.py.
"""

from typing import Any

from specs import labels, propagation
from specs.failback_access import NAME

METRICS_PORT = 9466
_HEALTH_PORT = 9467
# Key of the kubeconfig in its Secret.
_KUBECONFIG = "kubeconfig"
# Any user that is not root; the image names none.
_USER = 65532

Manifest = dict[str, Any]


def deployment(namespace: str, image: str, kubeconfig_secret: str, *, lease_namespace: str, replicas: int = 2) -> Manifest:
    """Two replicas, of which one acts: a second one takes over within the 15 seconds of the lease.

    kubeconfig_secret: name of a Secret with the key `kubeconfig`, for the Karmada API server as the user NAME.
    """
    arguments = [
        f"--kubeconfig=/etc/{NAME}/{_KUBECONFIG}",
        f"--lease-namespace={lease_namespace}",
        f"--orphan-kinds={','.join(propagation.removable_kinds())}",
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
        "metadata": labels.metadata(NAME, namespace, component="failback", extra=_SELECTOR),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": _SELECTOR},
            "template": {"metadata": {"labels": {**_SELECTOR, labels.LABEL_PART_OF: labels.PART_OF}}, "spec": pod},
        },
    }


_SELECTOR = {"app.kubernetes.io/name": NAME}
