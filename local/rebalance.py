"""Giving a cluster that came back its share of the replicas again.

Karmada moves replicas away from a lost cluster and leaves them where they went. Its scheduler looks at a binding again when a
cluster changes, but divides anew only for another placement, another number of replicas, a cluster that is being deleted, or a
WorkloadRebalancer (1.18.2: pkg/scheduler/scheduler.go, lines 416 to 457).
"""

import sys
from typing import Any

from kube.client import Kube, KubeError, condition
from local.host_cluster import all_clusters
from specs.labels import NAMESPACE_MODELS, TAINT_LOST

# Karmada removes the request by itself, this long after it was met.
_KEEP_S = 60
# Karmada needs its success threshold and some rounds of its status loop.
_WAIT_S = 90
# For one change of an object that Karmada changes too.
_WRITE_S = 10

_BINDING = ("work.karmada.io/v1alpha2", "ResourceBinding")

Object = dict[str, Any]


def refill(name: str) -> list[str]:
    """Asks for a fresh division of the models that name the cluster in their placement and have nothing there.

    Waits until Karmada takes the cluster for Ready. Returns the models it asked for.
    What kept it from asking is a line on stderr and no error: the cluster runs all the same, and `make up` asks again.
    """
    hub = next((each for each in all_clusters() if each.describe()["role"] == "hub"), None)
    if hub is None or not hub.alive():
        _say(f"{name}: the hub is not running, no fresh division is asked for")
        return []
    try:
        with Kube.from_kubeconfig(hub.kubeconfig) as api:
            return _refill(api, name)
    except (KubeError, TimeoutError) as error:
        _say(f"{name}: no fresh division is asked for: {error}\n  hint: `make up` asks for it again")
        return []


def _refill(api: Kube, name: str) -> list[str]:
    if api.find("cluster.karmada.io/v1alpha1", "Cluster", name) is None:
        return []
    api.wait(lambda: _is_back(api, name), _WAIT_S, f"Karmada to take `{name}` for Ready (see the Cluster object on the hub)")
    bindings = [each for each in api.list(*_BINDING, NAMESPACE_MODELS) if lacks(each, name)]
    for binding in bindings:
        _call_off(api, binding["metadata"]["name"], name)
    models = sorted(str(each["spec"]["resource"]["name"]) for each in bindings)
    if models:
        request = rebalancer(name, models)
        kind = (request["apiVersion"], request["kind"], request["metadata"]["name"])
        api.delete(*kind)
        api.wait(lambda: api.find(*kind) is None, _WRITE_S, "an earlier request to go")
        api.create(request)
    return models


def _call_off(api: Kube, binding: str, cluster: str) -> None:
    """Ends the eviction of a model from the cluster, with the replicas that it has there."""

    def write() -> bool:
        found = api.get(*_BINDING, binding, NAMESPACE_MODELS)
        if leaving(found, cluster):
            api.replace(not_leaving(found, cluster))
        return True

    # Refused while Karmada changes the binding; then what it wrote is read and the change made again.
    api.wait(write, _WRITE_S, f"the eviction of `{binding}` from `{cluster}` to be called off")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_back(api: Kube, name: str) -> bool:
    cluster = api.get("cluster.karmada.io/v1alpha1", "Cluster", name)
    taints = [taint["key"] for taint in cluster["spec"].get("taints") or []]
    tainted = any(key == TAINT_LOST or key.startswith("cluster.karmada.io/") for key in taints)
    return condition(cluster, "Ready").get("status") == "True" and not tainted


def lacks(binding: Object, cluster: str) -> bool:
    """Whether an InferenceService is to run in the cluster and has no replica there."""
    spec = binding["spec"]
    named = ((spec.get("placement") or {}).get("clusterAffinity") or {}).get("clusterNames") or []
    holds = {target["name"] for target in spec.get("clusters") or [] if target.get("replicas", 0) > 0}
    return spec["resource"]["kind"] == "InferenceService" and cluster in named and cluster not in holds


def leaving(binding: Object, cluster: str) -> bool:
    """Whether Karmada still moves the model away from the cluster. Until that ends, its scheduler passes the cluster over.

    It ends when the model is healthy elsewhere, or after gracefulTimeoutSeconds where it can be nowhere else.
    """
    return any(task["fromCluster"] == cluster for task in binding["spec"].get("gracefulEvictionTasks") or [])


def not_leaving(binding: Object, cluster: str) -> Object:
    """The binding with the eviction undone. Were the cluster not among its clusters, Karmada would delete the copy there."""
    spec = binding["spec"]
    tasks = spec["gracefulEvictionTasks"]
    others = [each for each in spec.get("clusters") or [] if each["name"] != cluster]
    held = max(task.get("replicas") or 1 for task in tasks if task["fromCluster"] == cluster)
    kept = [task for task in tasks if task["fromCluster"] != cluster]
    return {**binding, "spec": {**spec, "clusters": [*others, {"name": cluster, "replicas": held}], "gracefulEvictionTasks": kept}}


def rebalancer(cluster: str, models: list[str]) -> Object:
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "namespace": NAMESPACE_MODELS}
    return {
        "apiVersion": "apps.karmada.io/v1alpha1",
        "kind": "WorkloadRebalancer",
        "metadata": {"name": f"return-of-{cluster}"},
        "spec": {"workloads": [{**service, "name": model} for model in models], "ttlSecondsAfterFinished": _KEEP_S},
    }
