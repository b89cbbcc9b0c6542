"""A real vLLM in a pod of the node agent, started by the arguments of the fleet's own CPU runtime."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from components import labels, serving
from kube.client import Kube, condition
from local import kubernetes, model_store, node_agent
from local.host_cluster import HostCluster
from local.node_agent import processes
from toolchain import paths

pytestmark = [pytest.mark.fleet, pytest.mark.slow]

Object = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostCluster]:
    before, paths.STATE = paths.STATE, tmp_path_factory.mktemp("state")
    made = HostCluster("vllm-test")
    try:
        kubernetes.apply({"name": made.name, "role": "member", "region": "region-a", "zone": "zone-a"})
        node_agent.apply(made, "region-a", "zone-a")
        model_store.apply({"cluster": made.name})
        yield made
    finally:
        made.delete()
        paths.STATE = before


def pod(name: str) -> Object:
    """As KServe makes it of the runtime and an InferenceService with storageUri pvc://model-store/tiny-chat."""
    runtime = serving.serving_runtime(labels.RUNTIME_CPU, serving.RuntimesSpec().vllm_cpu)
    (container,) = runtime["spec"]["containers"]
    own = ["--max-model-len=1024", "--max-num-seqs=8", "--kv-cache-memory-bytes=67108864", "--enforce-eager"]
    container["args"] = [argument.replace("{{.Name}}", name) for argument in container["args"]] + own
    container["volumeMounts"] = [{"name": "models", "mountPath": "/mnt/models", "subPath": "tiny-chat", "readOnly": True}]
    claim = {"claimName": labels.MODEL_STORE, "readOnly": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": labels.NAMESPACE_MODELS, "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "nodeSelector": {labels.LABEL_ACCELERATOR: "cpu"},
            "volumes": [{"name": "models", "persistentVolumeClaim": claim}],
        },
    }


def post(url: str, body: Object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def test_vllm_serves_the_tiny_model_at_the_pods_own_address(cluster: HostCluster) -> None:
    name = "tiny-chat"
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        api.wait(lambda: api.find("v1", "ServiceAccount", "default", labels.NAMESPACE_MODELS), 30, "the service account")
        begun = time.monotonic()
        uid = api.create(pod(name))["metadata"]["uid"]
        get = lambda: api.find("v1", "Pod", name, labels.NAMESPACE_MODELS) or {}  # noqa: E731 - asked again and again
        api.wait(lambda: condition(get(), "Ready").get("status") == "True", 300, "vLLM to be ready")
        took = time.monotonic() - begun
        host = json.loads((cluster.dir / "addresses.json").read_text())["hosts"][uid]
        base = f"http://127.{10 + cluster.index}.{host >> 8}.{host & 255}:8080"

        with urllib.request.urlopen(f"{base}/v1/models", timeout=10) as answer:
            assert [each["id"] for each in json.load(answer)["data"]] == [name]
        # Before any other request: on processors with AMX, vLLM in bfloat16 dies of a first prompt of one token.
        with post(f"{base}/v1/completions", {"model": name, "prompt": [5], "max_tokens": 2}) as answer:
            assert json.load(answer)["usage"]["prompt_tokens"] == 1
        body: Object = {"model": name, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 16, "seed": 1}
        with post(f"{base}/v1/chat/completions", body) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] > 0
        with post(f"{base}/v1/chat/completions", {**body, "stream": True}) as answer:
            events = [line for line in answer.read().decode().splitlines() if line]
        assert events[-1] == "data: [DONE]"
        assert len(events) > 3

        pids = processes.members(uid)
        assert processes.beyond_loopback(pids) is None
        assert len(pids) > 1, "vLLM's engine is a process of its own, and carries the marker although it renames itself"
        proportional = sum(_pss_kib(pid) for pid in pids)
        print(f"ready after {took:.0f} s, {proportional / 1024:.0f} MiB in {len(pids)} processes")
        assert proportional < 2.5 * 1024 * 1024

        api.delete("v1", "Pod", name, labels.NAMESPACE_MODELS, grace_period_seconds=5)
        api.wait(lambda: not get(), 60, "the pod to be gone")
        assert processes.members(uid) == []


def _pss_kib(pid: int) -> int:
    """Memory of a process with shared pages divided among those who share them, in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:  # noqa: PTH123 - a file of /proc, read line by line
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
