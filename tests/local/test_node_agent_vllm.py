"""A real vLLM in a pod of the node agent, started by the arguments of the fleet's own CPU runtime."""

import json
import os
import signal
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.serving import serving_runtimes
from kube.client import Kube, condition
from local import kubernetes, model_store, node_agent
from local.host_cluster import HostCluster
from local.node_agent import processes
from runtime_image import engine_guard
from specs import labels, runtimes
from specs.failover import RequestFailoverSpec
from toolchain import paths

Object = dict[str, Any]

NAME = "tiny-chat"
STALL_S = 3.0
CAPACITY = 4
LONG = {"model": NAME, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 900, "ignore_eos": True, "stream": True}


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
    failover = RequestFailoverSpec().model_copy(update={"stall_seconds": STALL_S})
    runtime = serving_runtimes.serving_runtime(labels.RUNTIME_CPU, runtimes.RuntimesSpec().vllm_cpu, failover)
    (container,) = runtime["spec"]["containers"]
    own = ["--max-model-len=1024", "--max-num-seqs=8", "--kv-cache-memory-bytes=67108864", "--enforce-eager"]
    container["args"] = [argument.replace("{{.Name}}", name) for argument in container["args"]] + own
    container["env"] += [{"name": engine_guard.CAPACITY, "value": str(CAPACITY)}, {"name": engine_guard.REVISION, "value": "r1"}]
    # Seen soon, so that the test is short.
    container["readinessProbe"] |= {"periodSeconds": 1, "failureThreshold": 1}
    container["volumeMounts"].append({"name": "models", "mountPath": "/mnt/models", "subPath": "tiny-chat", "readOnly": True})
    claim = {"claimName": labels.MODEL_STORE, "readOnly": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": labels.NAMESPACE_MODELS, "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "nodeSelector": {labels.LABEL_ACCELERATOR: "cpu"},
            "volumes": [*runtime["spec"]["volumes"], {"name": "models", "persistentVolumeClaim": claim}],
        },
    }


@dataclass(frozen=True)
class Served:
    """A pod with vLLM that has become ready."""

    uid: str
    url: str
    api: Kube
    seconds: float

    def ask(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=chat(**body), timeout=60)

    @contextmanager
    def frozen(self) -> Generator[None]:
        """The engine computes nothing; the server before it lives on, and calls itself healthy."""
        (engine,) = [pid for pid in processes.members(self.uid) if "EngineCore" in _title(pid)]
        os.kill(engine, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(engine, signal.SIGCONT)

    def ready(self) -> bool:
        return condition(self.api.find("v1", "Pod", NAME, labels.NAMESPACE_MODELS) or {}, "Ready").get("status") == "True"


def chat(**more: Any) -> Object:
    return {"model": NAME, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 16, "seed": 1, **more}


@pytest.fixture(scope="module")
def served(cluster: HostCluster) -> Iterator[Served]:
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        api.wait(lambda: api.find("v1", "ServiceAccount", "default", labels.NAMESPACE_MODELS), 30, "the service account")
        api.apply(serving_runtimes.guard_files())
        begun = time.monotonic()
        uid = api.create(pod(NAME))["metadata"]["uid"]
        get = lambda: api.find("v1", "Pod", NAME, labels.NAMESPACE_MODELS) or {}  # noqa: E731 - asked again and again
        api.wait(lambda: condition(get(), "Ready").get("status") == "True", 300, "vLLM to be ready")
        took = time.monotonic() - begun
        host = json.loads((cluster.dir / "addresses.json").read_text())["hosts"][uid]
        yield Served(uid, f"http://127.{10 + cluster.index}.{host >> 8}.{host & 255}:8080", api, took)
        api.delete("v1", "Pod", NAME, labels.NAMESPACE_MODELS, grace_period_seconds=5)
        api.wait(lambda: not get(), 60, "the pod to be gone")
        assert processes.members(uid) == []


def test_vllm_serves_the_tiny_model_at_the_pods_own_address(served: Served) -> None:
    assert [each["id"] for each in httpx.get(f"{served.url}/v1/models").json()["data"]] == [NAME]
    # Before any other request: on processors with AMX, vLLM in bfloat16 dies of a first prompt of one token.
    first = httpx.post(f"{served.url}/v1/completions", json={"model": NAME, "prompt": [5], "max_tokens": 2}, timeout=60)
    assert first.json()["usage"]["prompt_tokens"] == 1
    assert served.ask().json()["usage"]["completion_tokens"] > 0
    events = [line for line in served.ask(stream=True).text.splitlines() if line]
    assert events[-1] == "data: [DONE]"
    assert len(events) > 3

    pids = processes.members(served.uid)
    assert processes.beyond_loopback(pids) is None
    assert len(pids) > 1, "vLLM's engine is a process of its own, and carries the marker although it renames itself"
    proportional = sum(_pss_kib(pid) for pid in pids)
    print(f"ready after {served.seconds:.0f} s, {proportional / 1024:.0f} MiB in {len(pids)} processes")
    assert proportional < 2.5 * 1024 * 1024


def test_answers_tell_the_revision_and_bad_requests_are_told_as_such(served: Served) -> None:
    answer = served.ask()
    assert (answer.status_code, answer.headers["x-fleet-revision"]) == (200, "r1")
    assert served.ask(max_tokens=-1).status_code == 400
    assert served.ask(model="another", stream=True).status_code == 404
    assert httpx.get(f"{served.url}/fleet/ready").json() == {"status": "ready", "revision": "r1"}


def test_a_stream_has_no_headers_before_its_first_token(served: Served) -> None:
    with ThreadPoolExecutor() as pool:
        with served.frozen():
            asked = pool.submit(_headers_of_a_stream, served)
            time.sleep(STALL_S / 3)
            assert not asked.done()
        assert asked.result() == 200


def test_a_full_replica_refuses_at_once(served: Served) -> None:
    with ThreadPoolExecutor() as pool:
        with served.frozen():
            under_way = [pool.submit(served.ask) for _ in range(CAPACITY)]
            time.sleep(STALL_S / 3)
            refused = served.ask()
            assert not any(each.done() for each in under_way)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "overloaded"
        assert [each.result().status_code for each in under_way] == [200] * CAPACITY


def test_a_hung_engine_gives_its_requests_back_and_is_taken_back_when_it_goes_on(served: Served) -> None:
    with ThreadPoolExecutor() as pool, httpx.stream("POST", f"{served.url}/v1/chat/completions", json=LONG, timeout=60) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        with served.frozen():
            waiting = [pool.submit(served.ask), pool.submit(served.ask, stream=True)]
            for each in waiting:
                answer = each.result()
                assert (answer.status_code, answer.headers["x-fleet-reason"]) == (503, "engine-stalled")
                assert answer.json()["error"]["type"] == "engine_stalled"
            rest = [line for line in lines if line]
            assert json.loads(rest[-1].removeprefix("data: "))["error"]["type"] == "engine_stalled"
            assert "data: [DONE]" not in rest
            assert served.ask().status_code == 503
            assert httpx.get(f"{served.url}/health").status_code == 200
            told = httpx.get(f"{served.url}/fleet/ready")
            assert (told.status_code, told.json()["status"]) == (503, "stalled")
            served.api.wait(lambda: not served.ready(), 30, "the pod to be not ready")
        served.api.wait(served.ready, 30, "the pod to be ready again")
    assert served.ask().status_code == 200
    # Nothing of what was given back is still computed.
    running = [line for line in httpx.get(f"{served.url}/metrics", follow_redirects=True).text.splitlines() if line.startswith("vllm:num_requests_running")]
    assert [float(line.rsplit(" ", 1)[1]) for line in running] == [0]


def _headers_of_a_stream(served: Served) -> int:
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=chat(stream=True), timeout=60) as stream:
        return stream.status_code


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _pss_kib(pid: int) -> int:
    """Memory of a process with shared pages divided among those who share them, in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:  # noqa: PTH123 - a file of /proc, read line by line
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
