"""The Node object of the agent, its status and its lease: what makes the scheduler send pods."""

import os
import platform
from pathlib import Path
from typing import Any

from kube.client import ApiError, Kube, condition
from local.node_agent.containers import timestamp
from specs.labels import LABEL_ACCELERATOR

Object = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
_LEASE_SECONDS = 40
# Each pod is a server; far more than the memory of any machine allows.
_PODS = 32


def name_of(cluster: str) -> str:
    return f"{cluster}-cpu-0"


def capacity() -> dict[str, str]:
    """The whole machine. Regions share it, so this bounds what one pod may ask for, not what all of them use."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory.split()[1]}Ki", "pods": str(_PODS)}


def manifest(name: str, region: str, zone: str) -> Object:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": zone,
        LABEL_ACCELERATOR: "cpu",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def status(port: int, version: str, now: str) -> Object:
    """`port`: where the agent serves logs. `version`: of the API server, which a kubelet of the cluster would have."""
    calm = (("MemoryPressure", "NodeHasSufficientMemory"), ("DiskPressure", "NodeHasNoDiskPressure"), ("PIDPressure", "NodeHasSufficientPID"))
    conditions = [
        *({"type": kind, "status": "False", "reason": reason} for kind, reason in calm),
        {"type": "Ready", "status": "True", "reason": "NodeAgentReady", "message": "the node agent runs pods as host processes"},
    ]
    resources = capacity()
    return {
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{**each, "lastHeartbeatTime": now, "lastTransitionTime": now} for each in conditions],
        # Where the API server asks for logs; nothing else on this machine is reached through the Node.
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "architecture": manifest("", "", "")["metadata"]["labels"]["kubernetes.io/arch"],
            "operatingSystem": "linux",
            "osImage": platform.system(),
            "kernelVersion": platform.release(),
            "kubeletVersion": version,
            "kubeProxyVersion": "",
            "containerRuntimeVersion": "process://1",
            "bootID": "",
            "machineID": "",
            "systemUUID": "",
        },
    }


def register(api: Kube, name: str, region: str, zone: str, port: int, now: float) -> None:
    """Makes the Node and says that it is Ready. Raises KubeError."""
    api.apply(manifest(name, region, zone), field_manager="node-agent")
    _write_status(api, name, port, now)


def _write_status(api: Kube, name: str, port: int, now: float) -> None:
    version = str(api.request("GET", "/version").json()["gitVersion"])
    body = {"status": status(port, version, timestamp(now))}
    api.patch("v1", "Node", name, body, subresource="status", content_type="application/strategic-merge-patch+json")


def renew(api: Kube, name: str, region: str, zone: str, port: int, now: float) -> None:
    """Renews the lease, and repairs the Node where somebody removed it or declared it dead. Raises KubeError."""
    node = api.find("v1", "Node", name)
    if node is None:
        register(api, name, region, zone, port, now)
        node = api.get("v1", "Node", name)
    elif condition(node, "Ready").get("status") != "True":
        _write_status(api, name, port, now)
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": timestamp(now).replace("Z", ".000000Z")},
    }
    try:
        api.apply(lease, field_manager="node-agent")
    except ApiError as error:
        # The namespace comes a moment after a new API server; the Node's own status says the same until then.
        if error.status != 404:
            raise
