"""Simulated GPU nodes of a local cluster, and the one CPU node that runs real model servers.

A GPU node is a Node object that kwok keeps Ready: pods scheduled there turn Ready and do nothing. Pools say how many, and
which capacity types in order; what is unavailable is simulated too. The CPU node is played by node_agent.
"""

import json
import sys
from typing import Any

from core.files import write_atomically
from kube.client import Kube, condition
from local import node_agent
from local.host_cluster import HostCluster
from specs.accelerators import ACCELERATORS
from specs.labels import LABEL_ACCELERATOR, LABEL_CAPACITY_TYPE, LABEL_POOL

Object = dict[str, Any]

# Far above what GPUs need beside them, so that the accelerator is what a simulated node runs out of.
_HOST_CAPACITY = {"cpu": "192", "memory": "2Ti", "pods": "110", "ephemeral-storage": "8Ti"}

# Of a cluster: pool → capacity types that its simulated provider has none of.
_UNAVAILABLE = "unavailable-capacity.json"

# Keys of taints that node controllers set, e.g. while a node is not ready.
_KUBERNETES_TAINTS = "node.kubernetes.io/"


def apply(spec: Object) -> Object:
    """Makes the nodes of `spec` {cluster, pools, cpuNode} and removes those no longer listed; result {nodes, gpus}."""
    cluster = HostCluster(spec["cluster"])
    facts = cluster.describe()
    away = unavailable(cluster)
    pools = [(pool, kind) for pool in spec["pools"] if (kind := _capacity_type(cluster, pool, away.get(pool["name"], [])))]
    nodes = [node(cluster.name, pool, kind, number, facts) for pool, kind in pools for number in range(pool["nodes"])]
    taints = {f"{cluster.name}-{pool['name']}-{number}": pool.get("taints", []) for pool, _ in pools for number in range(pool["nodes"])}
    names = {each["metadata"]["name"] for each in nodes}
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        for each in nodes:
            _taint(api, api.apply(each), taints[each["metadata"]["name"]])
            # Capacity is status, and a Node's status is a subresource: kwok keeps what it finds there.
            api.patch("v1", "Node", each["metadata"]["name"], {"status": each["status"]}, subresource="status")
        for existing in api.list("v1", "Node", label_selector=LABEL_POOL):
            if existing["metadata"]["name"] not in names:
                api.delete("v1", "Node", existing["metadata"]["name"])
        api.wait(
            lambda: all(condition(api.get("v1", "Node", name), "Ready").get("status") == "True" for name in names),
            60,
            f"simulated nodes on `{cluster.name}` to be Ready (log: {cluster.dir / 'logs' / 'kwok.log'})",
        )
    if spec.get("cpuNode"):
        node_agent.apply(cluster, facts["region"], facts["zone"])
    else:
        node_agent.delete(cluster)
    return {"nodes": len(nodes), "gpus": sum(pool["nodes"] * pool["gpusPerNode"] for pool, _ in pools)}


def delete(spec: Object) -> Object:
    """Removes the nodes; pods on them go as the cluster's own garbage collection finds them."""
    cluster = HostCluster(spec["cluster"])
    if cluster.exists():
        node_agent.delete(cluster)
        with Kube.from_kubeconfig(cluster.kubeconfig) as api:
            for existing in api.list("v1", "Node", label_selector=LABEL_POOL):
                api.delete("v1", "Node", existing["metadata"]["name"])
    return {}


def unavailable(cluster: HostCluster) -> dict[str, list[str]]:
    """Capacity types that the simulated provider has none of, by pool."""
    try:
        return json.loads((cluster.dir / _UNAVAILABLE).read_text())
    except FileNotFoundError:
        return {}


def set_available(cluster: HostCluster, pool: str, capacity: str, *, available: bool) -> None:
    """Changes what the simulated provider has; the next `apply` makes the nodes follow."""
    found = unavailable(cluster)
    others = [each for each in found.get(pool, []) if each != capacity]
    write_atomically(cluster.dir / _UNAVAILABLE, json.dumps({**found, pool: others if available else [*others, capacity]}))


def _capacity_type(cluster: HostCluster, pool: Object, away: list[str]) -> str | None:
    """The first of the pool's capacity types that is available. None where no type is: then the pool has no nodes."""
    # A pending change that an older version wrote for a cluster that was down has one type.
    kinds: list[str] = pool["capacityTypes"]
    chosen = next((each for each in kinds if each not in away), None)
    if chosen != kinds[0]:
        instead = f"`{chosen}` nodes instead of `{kinds[0]}`" if chosen else "no nodes"
        print(f"{cluster.name}: pool `{pool['name']}` has {instead}: unavailable here: {', '.join(away)}", file=sys.stderr)
    return chosen


def _taint(api: Kube, existing: Object, taints: list[Object]) -> None:
    """Gives the node its pool's taints. Those of Kubernetes' own controllers stay: all are one list, which apply would replace."""
    now: list[Object] = existing["spec"].get("taints", [])
    kept = [each for each in now if each["key"].startswith(_KUBERNETES_TAINTS)]
    # The API server leaves out an empty value.
    wanted = [*kept, *({key: value for key, value in each.items() if value} for each in taints)]
    if wanted != now:
        api.patch("v1", "Node", existing["metadata"]["name"], {"spec": {"taints": wanted}})


def node(cluster: str, pool: Object, capacity: str, number: int, facts: Object) -> Object:
    """One simulated node, as kwok and the scheduler expect it."""
    name = f"{cluster}-{pool['name']}-{number}"
    gpus = str(pool["gpusPerNode"])
    resources = {**_HOST_CAPACITY, "nvidia.com/gpu": gpus}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": facts["region"],
        "topology.kubernetes.io/zone": facts["zone"],
        # As NVIDIA's GPU feature discovery writes them.
        "nvidia.com/gpu.product": ACCELERATORS[pool["accelerator"]].product,
        "nvidia.com/gpu.count": gpus,
        LABEL_ACCELERATOR: pool["accelerator"],
        LABEL_POOL: pool["name"],
        LABEL_CAPACITY_TYPE: capacity,
        # KServe and every other controller can tell it from a machine.
        "type": "kwok",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"capacity": resources, "allocatable": resources},
    }
