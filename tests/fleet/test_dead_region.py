"""A whole region is killed: callers do not notice, updates go on, and the region catches up on its return."""

from collections.abc import Iterator

import pytest

from kube.client import condition
from tests.fleet.conftest import Fleet, Object, Ran, wait_until

# The slowest answer that a caller may get in the moment of the failure; a usual one takes a tenth of a second.
_SLOWEST_S = 5.0
_NEW_MODEL: Object = {
    "name": "late-model",
    "source": "hf://example/late-model",
    "facts": {"attentionHeads": 32, "keyValueHeads": 8, "layers": 32, "hiddenSize": 4096, "parameters": 8_030_261_248, "maxModelLength": 8192},
    "accelerator": {"type": "L40S", "count": 1},
    "replicas": 2,
    "placement": {"clusters": [{"name": "us-east"}, {"name": "us-west", "accelerator": {"type": "A100", "count": 2}}]},
}


def _change(spec: Object) -> None:
    """Something that concerns the dead region alone, and something that concerns it among others."""
    west = next(cluster for cluster in spec["clusters"] if cluster["name"] == "us-west")
    west["gpuPools"][0]["nodes"] = 5
    spec["models"].append(_NEW_MODEL)


def _gpu_nodes(fleet: Fleet, cluster: str) -> int:
    with fleet.kube(cluster) as api:
        return sum("nvidia.com/gpu" in node["status"]["allocatable"] for node in api.list("v1", "Node"))


def _ready(fleet: Fleet, cluster: str, model: str) -> int:
    with fleet.kube(cluster) as api:
        found = api.find("apps/v1", "Deployment", f"{model}-predictor", "models")
        return int(found["status"].get("readyReplicas", 0)) if found else 0


@pytest.fixture(scope="module")
def west_alive(whole: tuple[Fleet, Ran]) -> Iterator[None]:
    """Whatever a test of this module leaves, the region lives and the stack is as committed when it ends."""
    fleet = whole[0]
    yield
    fleet.driver("cluster", "start", "us-west")
    fleet.fleet("up")


@pytest.mark.usefixtures("west_alive")
class TestDeadRegion:
    """In this order: killed, changed while dead, revived."""

    def test_callers_elsewhere_do_not_notice_that_a_region_dies(self, fleet: Fleet) -> None:
        with fleet.calling("us-east", "eu-west") as calls:
            wait_until(lambda: all(len(each.clusters) >= 5 for each in calls.values()), "answers before the failure", 30)
            fleet.driver("cluster", "kill", "us-west")
            before = {door: len(each.clusters) for door, each in calls.items()}
            wait_until(lambda: all(len(each.clusters) > before[door] + 20 for door, each in calls.items()), "answers after the failure", 60)
        assert {door: each.failures for door, each in calls.items()} == {"us-east": [], "eu-west": []}
        assert max(max(each.seconds) for each in calls.values()) < _SLOWEST_S
        for door, each in calls.items():
            assert set(each.clusters[before[door] + 1 :]) == {"us-east"}

    def test_status_tells_of_the_dead_region_and_shows_the_others(self, fleet: Fleet) -> None:
        shown = {line.split()[0]: line for line in fleet.fleet("status").out.splitlines() if line}
        assert "does not answer" in shown["us-west"]
        assert "does not answer" not in shown["us-east"]

    def test_an_update_succeeds_and_names_what_it_skipped(self, fleet: Fleet) -> None:
        told = fleet.update(_change)
        assert "skipped: cluster us-west is not running; it is applied on its return" in told.out
        assert not [line for line in told.out.splitlines() if "skipped" in line and "us-west" not in line]
        wait_until(lambda: _ready(fleet, "us-east", "late-model") >= 1, "the new model in the region that lives", 60)

    def test_the_region_catches_up_on_its_return(self, fleet: Fleet) -> None:
        fleet.driver("cluster", "start", "us-west")
        assert _gpu_nodes(fleet, "us-west") == 5
        wait_until(lambda: fleet.ask("us-west", "late-model").status_code == 503, "the route of the new model in us-west", 60)
        wait_until(lambda: _ready(fleet, "us-west", "late-model") == 1, "the new model in us-west", 120)
        wait_until(lambda: _ready(fleet, "us-west", "tiny-chat") == 1, "tiny-chat in us-west", 180)
        wait_until(lambda: fleet.ask("us-west").headers.get("x-fleet-cluster") == "us-west", "us-west to answer by itself", 60)
        with fleet.kube("hub") as hub:
            wait_until(lambda: condition(hub.get("cluster.karmada.io/v1alpha1", "Cluster", "us-west"), "Ready")["status"] == "True", "us-west to be Ready", 60)

    def test_the_way_back_leaves_nothing_of_it(self, fleet: Fleet) -> None:
        fleet.update()
        # Karmada may still see us-west as it was, and then leaves there what it deletes elsewhere.
        fleet.fleet("up")
        assert _gpu_nodes(fleet, "us-west") == 4
        for cluster in ("us-east", "us-west"):
            with fleet.kube(cluster) as api:
                for version, kind, name in (
                    ("serving.kserve.io/v1beta1", "InferenceService", "late-model"),
                    ("networking.istio.io/v1", "VirtualService", "late-model-front-door"),
                ):
                    wait_until(lambda find=(version, kind, name): api.find(*find, "models") is None, f"{kind} {name} to go", 60)
        assert fleet.ask("us-east", "late-model").status_code == 404
