"""Telling the mesh about ready pods: one Istio WorkloadEntry each.

istiod selects WorkloadEntries by the selectors of Kubernetes Services, so KServe's Service leads to the pod's loopback
address as it leads to a pod IP elsewhere. Garbage collection removes the entry with its pod if the agent cannot.
"""

from typing import Any

from kube.client import ApiError, Kube

Object = dict[str, Any]

API_VERSION = "networking.istio.io/v1"
KIND = "WorkloadEntry"
# The node whose agent wrote an entry. Written and read here.
LABEL_NODE = "inference-fleet.dev/node"


def workload_entry(pod: Object, address: str, node: str) -> Object:
    metadata = pod["metadata"]
    labels = dict(metadata.get("labels") or {})
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**labels, LABEL_NODE: node},
            "ownerReferences": [owner],
        },
        "spec": {"address": address, "labels": labels, "serviceAccount": pod["spec"].get("serviceAccountName", "default")},
    }


def publish(api: Kube, entry: Object) -> bool:
    """True once the mesh has it; False where Istio is not installed yet. Raises KubeError otherwise."""
    try:
        api.apply(entry, field_manager="node-agent")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def withdraw(api: Kube, namespace: str, name: str) -> None:
    """Raises KubeError other than for what is not there."""
    try:
        api.delete(API_VERSION, KIND, name, namespace)
    except ApiError as error:
        if error.status != 404:
            raise


def published(api: Kube, node: str) -> list[Object]:
    """The entries of this node, also of pods that are gone."""
    try:
        return api.list(API_VERSION, KIND, label_selector=f"{LABEL_NODE}={node}")
    except ApiError as error:
        if error.status != 404:
            raise
        return []
