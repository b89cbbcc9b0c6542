"""Giving a cluster that came back its share of the replicas again.

Karmada moves replicas away from a lost cluster and leaves them where they went: a fresh division happens only when it is
asked for, by a WorkloadRebalancer.
"""

import sys
from typing import Any

from components.labels import NAMESPACE_MODELS, TAINT_LOST
from kube.client import Kube, KubeError, condition
from local.host_cluster import all_clusters

# Karmada removes the request by itself, this long after it was met.
_KEEP_S = 60
# Karmada needs its success threshold and some rounds of its status loop.
_WAIT_S = 90
# The longest that a model may take to load where its replicas went, before the cluster's start goes on without it.
_MOVE_S = 120

Object = dict[str, Any]


def refill(name: str) -> list[str]:
    """Asks for a fresh division of the models that name the cluster in their placement and have nothing there.

    Waits until Karmada takes the cluster for Ready and has ended moving those models away. Returns the models it asked for.
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
    try:
        api.wait(lambda: not any(leaving(each, name) for each in _lacking(api, name)), _MOVE_S, "moved replicas to be ready elsewhere")
    except TimeoutError as error:
        moving = ", ".join(sorted(_model(each) for each in _lacking(api, name) if leaving(each, name)))
        _say(f"{name}: {moving} stays where it went: {error}\n  hint: `make up` asks for a fresh division again")
    models = sorted(_model(each) for each in _lacking(api, name) if not leaving(each, name))
    if models:
        request = rebalancer(name, models)
        kind = (request["apiVersion"], request["kind"], request["metadata"]["name"])
        api.delete(*kind)
        api.wait(lambda: api.find(*kind) is None, 10, "an earlier request to go")
        api.create(request)
    return models


def _lacking(api: Kube, cluster: str) -> list[Object]:
    return [each for each in api.list("work.karmada.io/v1alpha2", "ResourceBinding", NAMESPACE_MODELS) if lacks(each, cluster)]


def _model(binding: Object) -> str:
    return str(binding["spec"]["resource"]["name"])


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
    """Whether Karmada still moves the model away from the cluster. Until that ends, its scheduler passes the cluster over."""
    return any(task.get("fromCluster") == cluster for task in binding["spec"].get("gracefulEvictionTasks") or [])


def rebalancer(cluster: str, models: list[str]) -> Object:
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "namespace": NAMESPACE_MODELS}
    return {
        "apiVersion": "apps.karmada.io/v1alpha1",
        "kind": "WorkloadRebalancer",
        "metadata": {"name": f"return-of-{cluster}"},
        "spec": {"workloads": [{**service, "name": model} for model in models], "ttlSecondsAfterFinished": _KEEP_S},
    }
