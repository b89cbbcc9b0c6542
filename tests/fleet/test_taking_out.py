"""A cluster leaves the stack file, alive and dead, and comes back between."""

from local import processes
from local.down import CELL
from specs import labels
from tests.fleet.conftest import Fleet, Object, Ran, wait_until

CLUSTER_API = "cluster.karmada.io/v1alpha1"


def _without_eu(spec: Object) -> None:
    """As one would edit it: the cluster, its name in every placement, and the model that has no other."""
    spec["clusters"] = [cluster for cluster in spec["clusters"] if cluster["name"] != "eu-west"]
    spec["models"] = [model for model in spec["models"] if model["name"] != "qwen-eu"]
    for model in spec["models"]:
        placement = model["placement"]
        placement["clusters"] = [each for each in placement["clusters"] if each["name"] != "eu-west"]
        if "failoverOrder" in placement:
            placement["failoverOrder"].remove("eu-west")
        # With one partner less nobody could hold all replicas of a lost region, and the stack file would be refused.
        model.get("objectives", {}).pop("restoreSeconds", None)


def _assert_gone(fleet: Fleet) -> None:
    folder = fleet.state / "clusters" / "eu-west"
    assert not folder.exists()
    assert not processes.find(processes.equals(CELL, folder))
    with fleet.kube("hub") as hub:
        assert sorted(each["metadata"]["name"] for each in hub.list(CLUSTER_API, "Cluster")) == ["us-east", "us-west"]
        assert hub.find("v1", "Namespace", "karmada-es-eu-west") is None
        assert hub.find("v1", "Secret", "eu-west", "karmada-cluster") is None
        assert hub.find("serving.kserve.io/v1beta1", "InferenceService", "qwen-eu", "models") is None
    outputs = fleet.outputs
    assert sorted(outputs["clusters"]) == ["us-east", "us-west"]
    assert sorted(outputs["kubeconfigs"]) == ["hub", "us-east", "us-west"]
    assert "eu-west" not in (fleet.state / "kubeconfig").read_text()
    assert sorted(outputs["endpoints"]["models"]) == ["llama-3-70b", "tiny-chat"]


def _pods(fleet: Fleet, model: str) -> set[str]:
    found: set[str] = set()
    for cluster in ("us-east", "us-west"):
        with fleet.kube(cluster) as api:
            found |= {pod["metadata"]["uid"] for pod in api.list("v1", "Pod", "models", label_selector=f"{labels.LABEL_MODEL}={model}")}
    return found


def _ready(fleet: Fleet, cluster: str, model: str) -> int:
    with fleet.kube(cluster) as api:
        return int(api.get("apps/v1", "Deployment", f"{model}-predictor", "models")["status"].get("readyReplicas", 0))


def test_a_living_cluster_is_taken_out_and_callers_of_the_others_do_not_notice(fleet: Fleet) -> None:
    tiny, llama = _pods(fleet, "tiny-chat"), _pods(fleet, "llama-3-70b")
    with fleet.calling("us-east", "us-west") as calls:
        fleet.update(_without_eu)
    _assert_gone(fleet)
    assert not [each.failures for each in calls.values() if each.failures]
    assert _pods(fleet, "tiny-chat") == tiny
    # The replica of eu-west is in the others now; theirs were not touched.
    wait_until(lambda: len(_pods(fleet, "llama-3-70b")) == 6, "six replicas in two clusters", 60)
    assert _pods(fleet, "llama-3-70b") > llama


def test_it_comes_back(fleet: Fleet) -> None:
    fleet.update()
    wait_until(lambda: _ready(fleet, "eu-west", "qwen-eu") == 2, "qwen-eu in eu-west", 120)
    wait_until(lambda: _ready(fleet, "eu-west", "llama-3-70b") == 1, "its share of llama-3-70b", 120)
    wait_until(lambda: fleet.ask("eu-west").status_code == 200, "its front door to serve what others hold", 60)


def test_a_dead_cluster_is_taken_out_as_well(fleet: Fleet) -> None:
    tiny = _pods(fleet, "tiny-chat")
    fleet.driver("cluster", "kill", "eu-west")
    told: Ran = fleet.update(_without_eu)
    _assert_gone(fleet)
    # Said, not hidden: what stood in it could not be taken back one by one.
    assert "eu-west" in told.out
    assert _pods(fleet, "tiny-chat") == tiny
    assert fleet.ask("us-west").status_code == 200
    assert not fleet.update(_without_eu).out.count("deleted")
