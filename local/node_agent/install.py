"""Installing the node agent into a local cluster: its unit, its Node, and their removal."""

import json
import sys

from core.files import write_atomically
from kube.client import Kube, Unreachable, condition
from local import pki
from local import processes as host
from local.host_cluster import HostCluster
from local.node_agent import node, processes
from local.node_agent.agent import HALT_S
from local.units import HttpReady, Unit
from toolchain import paths, tools

UNIT = "node-agent"

# Image repositories that the toolchain's vLLM stands for. components/serving/models.py names the image.
VLLM_IMAGES = ("vllm/vllm-openai-cpu",)

_START_S = 60.0


def unit(cluster: HostCluster, region: str, zone: str) -> Unit:

    serving = pki.serving_certificate(cluster, UNIT, [])
    client_cert, client_key = pki.client_certificate(cluster, "kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
    authority = pki.authority(cluster)
    port = cluster.port(UNIT)
    return Unit(
        name=UNIT,
        after=["kube-apiserver"],
        argv=[
            sys.executable,
            "-m",
            "local.node_agent",
            f"--cluster={cluster.name}",
            f"--folder={cluster.dir.resolve()}",
            f"--index={cluster.index}",
            f"--region={region}",
            f"--zone={zone}",
            f"--port={port}",
            f"--cert={serving.cert}",
            f"--key={serving.key}",
            f"--client-ca={authority}",
        ],
        cwd=str(paths.REPO),
        ready=HttpReady(url=f"https://127.0.0.1:{port}/healthz", ca=str(authority), cert=str(client_cert), key=str(client_key)),
        # Killed earlier, the agent would leave processes of pods to the next one.
        stop_timeout_s=HALT_S + 5,
    )


def apply(cluster: HostCluster, region: str, zone: str) -> None:
    """The agent runs and its Node is Ready. Raises UnitError, TimeoutError, KubeError."""

    write_atomically(cluster.dir / "images.json", json.dumps(_images()))
    cluster.put_unit(unit(cluster, region, zone))
    cluster.wait_ready(UNIT, _START_S)
    name = node.name_of(cluster.name)
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        log = cluster.dir / "logs" / f"{UNIT}.log"
        api.wait(lambda: condition(api.find("v1", "Node", name) or {}, "Ready").get("status") == "True", _START_S, f"node `{name}` to be Ready (log: {log})")


def _images() -> dict[str, object]:

    try:
        folder = tools.path("vllm").parent
    except tools.ToolError as error:
        # A fleet without a model on CPU does not need it; a pod that does says so in its status.
        print(f"node agent: no vLLM on this machine, pods of {', '.join(VLLM_IMAGES)} will not start: {error}", file=sys.stderr)
        return {}
    # Kept from pod to pod: what vLLM finds out about a model's class costs a third of a start (docs/benchmarks.md).
    env = {"VLLM_CACHE_ROOT": str(folder.parent / "cache")}
    return {repository: {"path": [str(folder)], "entrypoint": ["vllm", "serve"], "env": env} for repository in VLLM_IMAGES}


def delete(cluster: HostCluster) -> None:
    """No agent, no process of a pod, no Node. Fine where there was none, or the API server is away."""

    cluster.remove_unit(UNIT)
    for uid in processes.pods_of(str(cluster.dir.resolve())):
        host.kill_all(host.equals(processes.POD, uid))
    name = node.name_of(cluster.name)
    try:
        with Kube.from_kubeconfig(cluster.kubeconfig) as api:
            if not api.delete("v1", "Node", name):
                return
            # Nobody is left to confirm the end of the node's pods.
            for pod in api.list("v1", "Pod", field_selector=f"spec.nodeName={name}"):
                api.delete("v1", "Pod", pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_seconds=0)
    except Unreachable:
        print(f"node {name}: the API server of {cluster.name} does not answer, the Node object stays", file=sys.stderr)
