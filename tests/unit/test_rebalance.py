"""Which models are divided afresh when a cluster comes back."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from kube.client import Kube, Unreachable
from local import rebalance
from local.rebalance import lacks, leaving, not_leaving, rebalancer


def binding(held: dict[str, int], named: list[str] | None, kind: str = "InferenceService") -> dict[str, object]:
    placement = {"clusterAffinity": {"clusterNames": named}} if named is not None else {}
    clusters = [{"name": name, "replicas": replicas} for name, replicas in held.items()]
    return {"spec": {"resource": {"kind": kind, "name": "chat"}, "placement": placement, "clusters": clusters}}


@pytest.mark.parametrize(
    ("held", "named", "kind", "want"),
    [
        pytest.param({"west": 2}, ["east", "west"], "InferenceService", True, id="moved away"),
        pytest.param({"west": 1, "east": 1}, ["east", "west"], "InferenceService", False, id="still there"),
        pytest.param({"west": 2, "east": 0}, ["east", "west"], "InferenceService", True, id="there without replicas"),
        pytest.param({"west": 2}, ["west"], "InferenceService", False, id="never meant for it"),
        pytest.param({"west": 2}, ["east", "west"], "ConfigMap", False, id="not a model"),
        pytest.param({}, None, "InferenceService", False, id="no placement"),
    ],
)
def test_a_model_is_divided_afresh_when_its_share_went_elsewhere(held: dict[str, int], named: list[str] | None, kind: str, want: bool) -> None:
    assert lacks(binding(held, named, kind), "east") is want


def test_the_request_names_every_model_and_goes_by_itself() -> None:
    request = rebalancer("east", ["chat", "code"])
    assert [workload["name"] for workload in request["spec"]["workloads"]] == ["chat", "code"]
    assert request["spec"]["ttlSecondsAfterFinished"] > 0


def evicting(cluster: str, held: dict[str, int], replicas: int | None = 3) -> dict[str, Any]:
    found: dict[str, Any] = binding(held, ["east", "west"])
    found["spec"]["gracefulEvictionTasks"] = [{"fromCluster": cluster, **({"replicas": replicas} if replicas else {})}]
    return found


def test_a_model_leaves_a_cluster_while_it_is_being_evicted_from_it() -> None:
    assert leaving(evicting("east", {"west": 2}), "east")
    assert not leaving(evicting("north", {"west": 2}), "east")
    assert not leaving(binding({"west": 2}, ["east", "west"]), "east")


@pytest.mark.parametrize(
    ("held", "replicas", "want"),
    [
        pytest.param({}, 2, {"east": 2}, id="nowhere else to go"),
        pytest.param({"west": 3}, 2, {"west": 3, "east": 2}, id="on its way"),
        pytest.param({"west": 3, "east": 0}, 2, {"west": 3, "east": 2}, id="named without replicas"),
        pytest.param({}, None, {"east": 1}, id="replicas not noted"),
    ],
)
def test_an_eviction_called_off_leaves_the_cluster_what_it_had(held: dict[str, int], replicas: int | None, want: dict[str, int]) -> None:
    before = evicting("east", held, replicas)
    before["spec"]["gracefulEvictionTasks"].append({"fromCluster": "north"})
    spec = not_leaving(before, "east")["spec"]
    assert {each["name"]: each["replicas"] for each in spec["clusters"]} == want
    assert spec["gracefulEvictionTasks"] == [{"fromCluster": "north"}]


class Hub:
    """A hub with one Cluster, Ready, and its bindings."""

    alive_now = True
    kubeconfig = ""

    def __init__(self, *bindings: dict[str, Any], member: bool = True, fails: Exception | None = None) -> None:
        self.bindings = {str(number): {**each, "metadata": {"name": str(number)}} for number, each in enumerate(bindings)}
        self.member = member
        self.fails = fails
        self.conflicts = 1
        self.created: list[dict[str, Any]] = []

    def describe(self) -> dict[str, str]:
        return {"role": "hub"}

    def alive(self) -> bool:
        return self.alive_now

    def find(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        if self.fails:
            raise self.fails
        ready = {"spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        return ready if kind == "Cluster" and self.member else None

    def get(self, api_version: str, kind: str, name: str, *_: str) -> dict[str, Any]:
        found = self.bindings[name] if kind == "ResourceBinding" else self.find(api_version, kind, name)
        assert found is not None
        return found

    def list(self, *_: str) -> list[dict[str, Any]]:
        return list(self.bindings.values())

    def replace(self, body: dict[str, Any]) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise Unreachable("someone else was first")
        self.bindings[body["metadata"]["name"]] = body

    def delete(self, *_: str) -> None:
        pass

    def create(self, body: dict[str, Any]) -> None:
        self.created.append(body)

    def wait(self, check: Any, timeout: float, what: str) -> Any:
        for _ in range(5):
            with suppress(Unreachable):
                if result := check():
                    return result
        raise TimeoutError(f"waited {timeout:.0f} s for {what}")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(hub: Hub) -> Hub:
        @contextmanager
        def client(_: Any) -> Generator[Hub]:
            yield hub

        monkeypatch.setattr(rebalance, "all_clusters", lambda: [hub])
        monkeypatch.setattr(Kube, "from_kubeconfig", client)
        return hub

    return install


def asked(hub: Hub) -> list[str]:
    return [workload["name"] for request in hub.created for workload in request["spec"]["workloads"]]


def test_the_eviction_is_called_off_before_a_fresh_division_is_asked_for(use: Any) -> None:
    hub = use(Hub(evicting("east", {}), binding({"west": 1, "east": 1}, ["east", "west"])))
    assert rebalance.refill("east") == asked(hub) == ["chat"]
    assert hub.bindings["0"]["spec"]["gracefulEvictionTasks"] == [], "also when Karmada changed the binding meanwhile"


def test_a_cluster_that_does_not_become_ready_is_a_line_not_an_error(use: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use(Hub(binding({"west": 2}, ["east", "west"])))
    monkeypatch.setattr(rebalance, "_is_back", lambda *_: False)
    assert rebalance.refill("east") == asked(hub) == []
    assert "east: no fresh division is asked for: waited 90 s for Karmada to take `east` for Ready" in capsys.readouterr().err


def test_nothing_is_asked_where_every_model_has_its_share(use: Any) -> None:
    hub = use(Hub(binding({"west": 1, "east": 1}, ["east", "west"])))
    assert rebalance.refill("east") == asked(hub) == []


def test_a_cluster_that_is_no_member_is_not_waited_for(use: Any) -> None:
    hub = use(Hub(binding({"west": 2}, ["east", "west"]), member=False))
    assert rebalance.refill("east") == asked(hub) == []


def test_a_hub_that_is_away_is_a_line_not_an_error(use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    use(Hub(fails=Unreachable("hub does not answer")))
    assert rebalance.refill("east") == []
    assert "east: no fresh division is asked for: hub does not answer\n  hint: " in capsys.readouterr().err
    use(Hub()).alive_now = False
    assert rebalance.refill("east") == []
    assert capsys.readouterr().err == "east: the hub is not running, no fresh division is asked for\n"
