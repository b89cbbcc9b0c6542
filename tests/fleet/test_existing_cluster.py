"""A cluster that stands already: joined by its kubeconfig, served, and left as it was found.

It is made by hand in a state folder of its own, with KServe and Istio, and with gateways that are simulated pods: where each
gateway has an address of its own, as in such a cluster, real ones would listen on all of this machine.
"""

import json

import pytest

from kube.client import Kube, condition
from local.manifests import namespace
from specs.control_planes.istio import LISTENERS
from specs.labels import NAMESPACE_INGRESS
from tests.fleet.conftest import Fleet, Object, wait_until

_NAME = "ap-south"
_POOL: Object = {"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "nodes": 1}


@pytest.fixture
def standing(spare: Fleet) -> Fleet:
    """A cluster with GPU nodes, KServe and Istio, of which the fleet under test knows nothing."""
    place = {"cluster": _NAME, "region": _NAME, "zone": ""}
    spare.driver("cluster", "apply", stdin=json.dumps({"name": _NAME, "role": "member", "region": _NAME, "zone": ""}))
    spare.driver("gpu-pools", "apply", stdin=json.dumps({**place, "pools": [{**_POOL, "capacityTypes": ["on-demand"], "taints": []}], "cpuNode": False}))
    for plane in ("kserve", "istio"):
        spare.driver("control-plane", "apply", stdin=json.dumps({"cluster": _NAME, "controlPlane": plane, "settings": {}}))
    with spare.kube(_NAME) as api:
        _add_gateways(api)
    return spare


def _add_gateways(api: Kube) -> None:
    """Pods that are Ready and answer nothing, and Services before them: what the verification looks for."""
    api.apply(namespace(NAMESPACE_INGRESS))
    wait_until(lambda: api.find("v1", "ServiceAccount", "default", NAMESPACE_INGRESS) is not None, "the account of the gateways", 60)
    node = api.list("v1", "Node")[0]["metadata"]["name"]
    for name, port in LISTENERS.items():
        metadata = {"name": name, "namespace": NAMESPACE_INGRESS, "labels": {"istio": name}}
        pod = {"nodeName": node, "tolerations": [{"operator": "Exists"}], "containers": [{"name": "istio-proxy", "image": "none"}]}
        api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
        service = {"selector": {"istio": name}, "ports": [{"name": "http2", "port": port}]}
        api.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    wait_until(lambda: all(condition(each, "Ready").get("status") == "True" for each in api.list("v1", "Pod", NAMESPACE_INGRESS)), "the gateways", 60)


def test_a_cluster_that_stands_already_is_joined_served_and_left_alone(fleet: Fleet, standing: Fleet) -> None:
    def join(spec: Object) -> None:
        driver = {
            "kind": "existing",
            "kubeconfigPath": str(standing.state / "clusters" / _NAME / "kubeconfig"),
            "frontDoor": {"url": "http://127.0.0.1:1"},
            "regionalGateway": {"address": "127.0.0.1", "port": 1},
        }
        spec["clusters"].append({"name": _NAME, "driver": driver, "region": _NAME, "gpuPools": [_POOL]})
        llama = next(model for model in spec["models"] if model["name"] == "llama-3-70b")
        llama["replicas"] = 7
        llama["placement"]["clusters"].append({"name": _NAME, "weight": 1})

    with standing.kube(_NAME) as api:
        nodes = {node["metadata"]["uid"] for node in api.list("v1", "Node")}
        try:
            fleet.update(join)
            wait_until(lambda: api.get("apps/v1", "Deployment", "llama-3-70b-predictor", "models")["status"]["readyReplicas"] == 1, "its replica", 120)
            assert fleet.outputs["placements"]["llama-3-70b"][_NAME] == {"weight": 1, "replicas": 1}
            assert fleet.outputs["clusters"][_NAME]["driver"] == "existing"
        finally:
            fleet.update()
        assert {node["metadata"]["uid"] for node in api.list("v1", "Node")} == nodes
        wait_until(lambda: not api.list("serving.kserve.io/v1beta1", "InferenceService"), "the model to leave it", 60)
        # No access of Karmada stays behind; the namespace goes when the cluster's own controllers come to it.
        wait_until(lambda: api.find("v1", "Namespace", "karmada-cluster") is None, "Karmada's namespace to go", 60)
        assert api.find("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", f"karmada-controller-manager:karmada-{_NAME}") is None
    with fleet.kube("hub") as hub:
        assert hub.find("cluster.karmada.io/v1alpha1", "Cluster", _NAME) is None
