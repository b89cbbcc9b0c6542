"""Simulated GPU nodes of a local cluster, and the one CPU node that runs real model servers.

A GPU node is a Node object that kwok keeps Ready: pods scheduled there turn Ready and do nothing. Pools say how many.
The CPU node is played by node_agent.
"""

from typing import Any

from kube.client import Kube, condition
from local import node_agent
from local.host_cluster import HostCluster
from specs.accelerators import ACCELERATORS
from specs.labels import LABEL_ACCELERATOR, LABEL_CAPACITY_TYPE, LABEL_POOL

Object = dict[str, Any]

# Far above what GPUs need beside them, so that the accelerator is what a simulated node runs out of.
_HOST_CAPACITY = {"cpu": "192", "memory": "2Ti", "pods": "110", "ephemeral-storage": "8Ti"}


def apply(spec: Object) -> Object:
    """Makes the nodes of `spec` {cluster, pools, cpuNode} and removes those no longer listed; result {nodes, gpus}."""
    cluster = HostCluster(spec["cluster"])
    facts = cluster.describe()
    nodes = [node(cluster.name, pool, number, facts) for pool in spec["pools"] for number in range(pool["nodes"])]
    names = {each["metadata"]["name"] for each in nodes}
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        for each in nodes:
            api.apply(each)
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
    return {"nodes": len(nodes), "gpus": sum(pool["nodes"] * pool["gpusPerNode"] for pool in spec["pools"])}


def delete(spec: Object) -> Object:
    """Removes the nodes; pods on them go as the cluster's own garbage collection finds them."""
    cluster = HostCluster(spec["cluster"])
    if cluster.exists():
        node_agent.delete(cluster)
        with Kube.from_kubeconfig(cluster.kubeconfig) as api:
            for existing in api.list("v1", "Node", label_selector=LABEL_POOL):
                api.delete("v1", "Node", existing["metadata"]["name"])
    return {}


def capacity_type(pool: Object) -> str:
    """The capacity type of the pool's nodes: every type is available here, so it is the first."""
    # What an older version wrote of a cluster that was down has one type.
    return pool["capacityTypes"][0] if "capacityTypes" in pool else pool["capacityType"]


def node(cluster: str, pool: Object, number: int, facts: Object) -> Object:
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
        LABEL_CAPACITY_TYPE: capacity_type(pool),
        # KServe and every other controller can tell it from a machine.
        "type": "kwok",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        # One list with one owner: left out where there is nothing to say, or it would take away what controllers put there.
        **({"spec": {"taints": taints}} if (taints := pool.get("taints")) else {}),
        "status": {"capacity": resources, "allocatable": resources},
    }
