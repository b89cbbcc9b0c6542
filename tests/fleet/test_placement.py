"""Where replicas are, asked of the members' own API servers, and what the hub knows of them."""

import pytest

from kube.client import condition
from specs import labels
from tests.fleet.conftest import Fleet, Object, wait_until


def _deployment(fleet: Fleet, cluster: str, model: str) -> Object:
    with fleet.kube(cluster) as api:
        return api.get("apps/v1", "Deployment", f"{model}-predictor", "models")


def _pods(fleet: Fleet, cluster: str, model: str) -> list[Object]:
    with fleet.kube(cluster) as api:
        return api.list("v1", "Pod", "models", label_selector=f"{labels.LABEL_MODEL}={model}")


@pytest.mark.parametrize(("cluster", "replicas", "accelerator", "count"), [("us-east", 3, "H100", 4), ("us-west", 2, "A100", 8), ("eu-west", 1, "L40S", 4)])
def test_weights_divide_replicas_and_gpus_differ_by_cluster(fleet: Fleet, cluster: str, replicas: int, accelerator: str, count: int) -> None:
    deployment = _deployment(fleet, cluster, "llama-3-70b")
    assert (deployment["spec"]["replicas"], deployment["status"]["readyReplicas"]) == (replicas, replicas)
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert f"--tensor-parallel-size={count}" in container["args"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == str(count)
    assert pod["nodeSelector"] == {labels.LABEL_ACCELERATOR: accelerator}
    pods = _pods(fleet, cluster, "llama-3-70b")
    assert len(pods) == replicas
    with fleet.kube(cluster) as api:
        nodes = [api.get("v1", "Node", each["spec"]["nodeName"]) for each in pods]
    assert {node["metadata"]["labels"][labels.LABEL_ACCELERATOR] for node in nodes} == {accelerator}


def test_a_model_bound_to_a_jurisdiction_is_nowhere_else(fleet: Fleet) -> None:
    for cluster, replicas in (("eu-west", 2), ("us-east", 0), ("us-west", 0)):
        assert len(_pods(fleet, cluster, "qwen-eu")) == replicas
        with fleet.kube(cluster) as api:
            names = [each["metadata"]["name"] for each in api.list("serving.kserve.io/v1beta1", "InferenceService")]
        assert ("qwen-eu" in names) == (replicas > 0)


def test_the_hub_shows_what_the_members_report(fleet: Fleet) -> None:
    with fleet.kube("hub") as hub:
        service = hub.get("serving.kserve.io/v1beta1", "InferenceService", "llama-3-70b", "models")
    assert condition(service, "Ready")["status"] == "True"
    shown = {each["name"]: (each["ready"], each["replicas"]) for each in service["status"]["clusterStatuses"]}
    assert shown == {"us-east": (True, 3), "us-west": (True, 2), "eu-west": (True, 1)}


def test_the_kinds_that_members_hold_alike_are_in_each(fleet: Fleet) -> None:
    for cluster in ("us-east", "us-west", "eu-west"):
        with fleet.kube(cluster) as api:
            runtimes = {each["metadata"]["name"] for each in api.list("serving.kserve.io/v1alpha1", "ClusterServingRuntime")}
            routes = {each["metadata"]["name"] for each in api.list("networking.istio.io/v1", "VirtualService", "models")}
        assert runtimes >= {"vllm", "vllm-cpu"}
        assert routes == {f"{model}-{door}" for model in ("tiny-chat", "llama-3-70b", "qwen-eu") for door in ("front-door", "regional")}


def test_a_longer_timeout_of_pulumi_restarts_no_pod(fleet: Fleet) -> None:
    before = {cluster: [pod["metadata"]["uid"] for pod in _pods(fleet, cluster, "tiny-chat")] for cluster in ("us-east", "us-west")}
    key, kind = "inference-fleet.dev/test-note", ("serving.kserve.io/v1beta1", "InferenceService")
    with fleet.kube("hub") as hub, fleet.kube("us-east") as member:
        original = hub.get(*kind, "tiny-chat", "models")["metadata"]["annotations"]["pulumi.com/timeoutSeconds"]
        generation = member.get("apps/v1", "Deployment", "tiny-chat-predictor", "models")["metadata"]["generation"]
        # The label of the InferenceService's own is what shows that the edit has arrived.
        try:
            hub.patch(*kind, "llama-3-70b", {"metadata": {"annotations": {key: "1"}}}, "models")
            hub.patch(*kind, "tiny-chat", {"metadata": {"annotations": {"pulumi.com/timeoutSeconds": "9999"}}}, "models")
            wait_until(lambda: key in member.get(*kind, "llama-3-70b", "models")["metadata"]["annotations"], "an annotation to reach us-east", 60)
        finally:
            hub.patch(*kind, "tiny-chat", {"metadata": {"annotations": {"pulumi.com/timeoutSeconds": original}}}, "models")
            hub.patch(*kind, "llama-3-70b", {"metadata": {"annotations": {key: None}}}, "models")
        wait_until(lambda: key not in member.get(*kind, "llama-3-70b", "models")["metadata"]["annotations"], "the annotation to leave us-east", 60)
        assert member.get("apps/v1", "Deployment", "tiny-chat-predictor", "models")["metadata"]["generation"] == generation
    assert {cluster: [pod["metadata"]["uid"] for pod in _pods(fleet, cluster, "tiny-chat")] for cluster in before} == before
