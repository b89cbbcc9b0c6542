"""Giving a cluster that came back its share of the replicas again.

Karmada moves replicas away from a lost cluster and leaves them where they went: a fresh division happens only when it is
asked for, by a WorkloadRebalancer.
"""

import sys
from typing import Any

from components.labels import NAMESPACE_MODELS, TAINT_LOST
from kube.client import Kube, condition
from local.host_cluster import all_clusters

# Karmada removes the request by itself, this long after it was met.
_KEEP_S = 60
# Karmada needs its success threshold and some rounds of its status loop.
_WAIT_S = 90

Object = dict[str, Any]


def refill(name: str) -> list[str]:
    """Asks for a fresh division of the models that name the cluster in their placement and have nothing there.

    Waits until Karmada takes the cluster for Ready. Returns the models; says so and returns none where the hub is away:
    then nobody moved anything either. Raises TimeoutError when the cluster does not become Ready.
    """
    hub = next((each for each in all_clusters() if each.describe()["role"] == "hub"), None)
    if hub is None or not hub.alive():
        print(f"{name}: the hub is not running, no fresh division is asked for", file=sys.stderr)
        return []
    with Kube.from_kubeconfig(hub.kubeconfig) as api:
        if api.find("cluster.karmada.io/v1alpha1", "Cluster", name) is None:
            return []
        api.wait(lambda: _is_back(api, name), _WAIT_S, f"Karmada to take `{name}` for Ready (see the Cluster object on the hub)")
        bindings = api.list("work.karmada.io/v1alpha2", "ResourceBinding", NAMESPACE_MODELS)
        models = sorted(binding["spec"]["resource"]["name"] for binding in bindings if lacks(binding, name))
        if models:
            request = rebalancer(name, models)
            kind = (request["apiVersion"], request["kind"], request["metadata"]["name"])
            api.delete(*kind)
            api.wait(lambda: api.find(*kind) is None, 10, "an earlier request to go")
            api.create(request)
    return models


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


def rebalancer(cluster: str, models: list[str]) -> Object:
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "namespace": NAMESPACE_MODELS}
    return {
        "apiVersion": "apps.karmada.io/v1alpha1",
        "kind": "WorkloadRebalancer",
        "metadata": {"name": f"return-of-{cluster}"},
        "spec": {"workloads": [{**service, "name": model} for model in models], "ttlSecondsAfterFinished": _KEEP_S},
    }
