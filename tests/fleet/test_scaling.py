"""Replicas of a model as processes: more, and fewer again, while requests go on."""

from pathlib import Path

from kube.client import Kube
from local import processes
from local.down import CELL
from specs import labels
from tests.fleet.conftest import Fleet, Object, wait_until


def _servers(fleet: Fleet, cluster: str) -> list[int]:
    """vLLM processes of tiny-chat in a cluster. Their workers call themselves otherwise."""
    found: list[int] = []
    for pid in processes.find(processes.equals(CELL, fleet.state / "clusters" / cluster)):
        try:
            if b"--served-model-name=tiny-chat" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return sorted(found)


def _ready(api: Kube) -> int:
    return int(api.get("apps/v1", "Deployment", "tiny-chat-predictor", "models")["status"].get("readyReplicas", 0))


def _pods(api: Kube) -> set[str]:
    return {pod["metadata"]["uid"] for pod in api.list("v1", "Pod", "models", label_selector=f"{labels.LABEL_MODEL}=tiny-chat")}


def _three(spec: Object) -> None:
    next(model for model in spec["models"] if model["name"] == "tiny-chat")["replicas"] = 3


def test_a_replica_more_is_a_process_more_and_nobody_else_restarts(fleet: Fleet) -> None:
    with fleet.kube("us-east") as east, fleet.kube("us-west") as west:
        pods, servers = _pods(east) | _pods(west), {name: _servers(fleet, name) for name in ("us-east", "us-west")}
        assert {name: len(each) for name, each in servers.items()} == {"us-east": 1, "us-west": 1}
        with fleet.calling("us-east") as calls:
            fleet.update(_three)
            wait_until(lambda: _ready(east) == 2, "two replicas of tiny-chat in us-east", 180)
            assert len(_servers(fleet, "us-east")) == 2
            assert set(_servers(fleet, "us-east")) > set(servers["us-east"])
            assert _pods(east) | _pods(west) > pods
            # Both get requests: the mesh knows each by an address of its own.
            entries = east.list("networking.istio.io/v1", "WorkloadEntry", "models")
            assert len({entry["spec"]["address"] for entry in entries}) == 2

            fleet.update()
            wait_until(lambda: len(_servers(fleet, "us-east")) == 1, "one of two vLLM processes to end", 60)
            wait_until(lambda: len(_pods(east)) == 1, "its pod to go", 30)
            assert len(east.list("networking.istio.io/v1", "WorkloadEntry", "models")) == 1
        assert _servers(fleet, "us-west") == servers["us-west"]
    assert not calls["us-east"].failures
