"""The failback controller's Deployment, beside a Karmada that runs in pods.

Pure manifests, no Pulumi. What the controller does: docs/failback.md. Its rights are specs/failback_access.py; as a host process of
a local hub it is local/failback.py. `python -m components.federation.failback` prints what somebody has to apply by hand.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from specs import labels, propagation
from specs.failback_access import NAME, hub_access

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


def not_run_by_us(hub: str) -> str:
    return (
        f"hub `{hub}`: this program does not run the failback controller beside a Karmada that somebody else installed. Without it a region that "
        "comes back gets none of its replicas; docs/failback.md says how to deploy it, and `fleet check` whether it runs"
    )


def _printed(arguments: Sequence[str] | None = None) -> str:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description="Manifests of the failback controller, for kubectl apply -f -")
    parser.add_argument("where", choices=["hub", "host"], help="hub: rights in Karmada's API server; host: the Deployment where Karmada's processes run")
    parser.add_argument("--image", help="with host: a reference of the image, by digest")
    parser.add_argument("--namespace", default="karmada-system", help="of the lease and of the Deployment (default: %(default)s)")
    parser.add_argument("--secret", default=f"{NAME}-kubeconfig", help="with host: the Secret with the kubeconfig (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.where == "hub":
        items = hub_access(given.namespace)
    elif given.image:
        items = [deployment(given.namespace, given.image, given.secret, lease_namespace=given.namespace)]
    else:
        parser.error("host: --image is required")
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2)


_SELECTOR = {"app.kubernetes.io/name": NAME}


if __name__ == "__main__":
    print(_printed())
