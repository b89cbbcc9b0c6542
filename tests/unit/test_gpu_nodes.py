"""Simulated GPU nodes: what a pool's nodes are when capacity is unavailable, and the taints they carry."""

import json
from pathlib import Path
from typing import Any

import pytest

from local import desired_state, gpu_nodes
from local.host_cluster import HostCluster
from specs.labels import LABEL_CAPACITY_TYPE, LABEL_POOL
from toolchain import paths

Object = dict[str, Any]

POOL: Object = {"name": "h100", "accelerator": "H100", "nodes": 2, "gpusPerNode": 8, "capacityTypes": ["reserved", "spot"], "taints": []}
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
OURS = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


class Api:
    """The Nodes of one API server; what is applied turns Ready."""

    def __init__(self) -> None:
        self.nodes: dict[str, Object] = {}

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, body: Object) -> Object:
        name = body["metadata"]["name"]
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.nodes[name] = {"spec": {"taints": [NOT_READY]}, **self.nodes.get(name, {}), "metadata": body["metadata"], "status": status}
        return self.nodes[name]

    def patch(self, api_version: str, kind: str, name: str, patch: Object, subresource: str | None = None) -> None:
        if subresource is None:
            self.nodes[name]["spec"].update(patch["spec"])

    def list(self, *_: str, label_selector: str) -> list[Object]:
        assert label_selector == LABEL_POOL
        return list(self.nodes.values())

    def get(self, api_version: str, kind: str, name: str) -> Object:
        return self.nodes[name]

    def delete(self, api_version: str, kind: str, name: str) -> None:
        del self.nodes[name]

    def wait(self, done: Any, *_: object) -> None:
        assert done()

    def kinds(self) -> dict[str, str]:
        return {name: each["metadata"]["labels"][LABEL_CAPACITY_TYPE] for name, each in self.nodes.items()}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    monkeypatch.setattr(paths, "STATE", tmp_path)
    folder = tmp_path / "clusters" / "east"
    folder.mkdir(parents=True)
    (folder / "cluster.json").write_text(json.dumps({"name": "east", "role": "member", "region": "east", "zone": ""}))
    monkeypatch.setattr(gpu_nodes.Kube, "from_kubeconfig", lambda *_: made)
    monkeypatch.setattr(gpu_nodes.node_agent, "delete", lambda _: None)
    return made


def applied(pool: Object = POOL) -> Object:
    return gpu_nodes.apply({"cluster": "east", "pools": [pool], "cpuNode": False})


def available(capacity: str, *, yes: bool) -> None:
    gpu_nodes.set_available(HostCluster("east"), "h100", capacity, available=yes)


def test_nodes_are_of_the_first_capacity_type_that_is_available(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert applied() == {"nodes": 2, "gpus": 16}
    assert api.kinds() == {"east-h100-0": "reserved", "east-h100-1": "reserved"}
    assert capsys.readouterr().err == ""
    available("reserved", yes=False)
    applied()
    assert api.kinds() == {"east-h100-0": "spot", "east-h100-1": "spot"}
    assert capsys.readouterr().err == "east: pool `h100` has `spot` nodes instead of `reserved`: unavailable here: reserved\n"
    available("reserved", yes=True)
    applied()
    assert set(api.kinds().values()) == {"reserved"}


def test_without_any_capacity_a_pool_has_no_nodes(api: Api) -> None:
    applied()
    for each in ("reserved", "spot", "spot"):
        available(each, yes=False)
    assert applied() == {"nodes": 0, "gpus": 0}
    assert api.nodes == {}
    available("spot", yes=True)
    assert applied() == {"nodes": 2, "gpus": 16}


def test_a_command_takes_capacity_away_and_the_nodes_follow(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostCluster, "alive", lambda _: True)
    desired_state.apply("gpu-pools", {"cluster": "east", "pools": [POOL], "cpuNode": False})
    assert desired_state.set_capacity("east", "h100", "reserved", available=False) == {"nodes": 2, "gpus": 16}
    assert set(api.kinds().values()) == {"spot"}
    # The program's next update changes nothing about it.
    desired_state.apply("gpu-pools", {"cluster": "east", "pools": [{**POOL, "nodes": 3}], "cpuNode": False})
    assert len(api.nodes) == 3
    assert set(api.kinds().values()) == {"spot"}
    with pytest.raises(ValueError, match="no such pool and capacity type in east, got: `h100 on-demand`; it has: h100: reserved, spot"):
        desired_state.set_capacity("east", "h100", "on-demand", available=False)
    with pytest.raises(ValueError, match="no such cluster with GPU pools on this machine, got: `west`"):
        desired_state.set_capacity("west", "h100", "spot", available=False)


def test_nodes_carry_the_taints_of_their_pool_beside_those_of_kubernetes(api: Api) -> None:
    applied({**POOL, "nodes": 1, "taints": [OURS, {"key": "dedicated", "value": "", "effect": "NoExecute"}]})
    assert api.nodes["east-h100-0"]["spec"]["taints"] == [NOT_READY, OURS, {"key": "dedicated", "effect": "NoExecute"}]
    applied({**POOL, "nodes": 1})
    assert api.nodes["east-h100-0"]["spec"]["taints"] == [NOT_READY]
