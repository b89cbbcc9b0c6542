"""The failback controller as a process against a real API server with Karmada's CRDs, with no rights but those it is granted.

The tests play Karmada. Clusters are a CRD here; in Karmada an API server of its own serves them, and the proxy to members.
"""

import re
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kube.client import Kube
from local import karmada, manifests
from specs import failback_access, propagation
from tests.conftest import ApiServer, free_port, process, wait_until
from toolchain import tools

NAMESPACE = "karmada-system"
BINDING = ("work.karmada.io/v1alpha2", "ResourceBinding")
WORK = ("work.karmada.io/v1alpha1", "Work")
REBALANCER = ("apps.karmada.io/v1alpha1", "WorkloadRebalancer")
LONG_AGO = "2026-01-01T00:00:00Z"
SERVICE = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "namespace": "models"}
NEEDED = ("workloadrebalancers", "resourcebindings", "works")

Object = dict[str, Any]


def cluster_crd() -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "clusters", "singular": "cluster", "kind": "Cluster", "listKind": "ClusterList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # The suffix .karmada.io is nobody's that Kubernetes would protect.
        "metadata": {"name": "clusters.cluster.karmada.io"},
        "spec": {"group": "cluster.karmada.io", "scope": "Cluster", "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
def hub(api_server: ApiServer) -> ApiServer:
    bases = tools.share("karmada") / "charts/karmada/_crds/bases"
    crds = [crd for path in sorted(bases.rglob("*.yaml")) if path.stem.split("_")[1] in NEEDED for crd in manifests.read(path)]
    assert len(crds) == len(NEEDED)
    manifests.apply_crds(api_server.kube, [*crds, cluster_crd()])
    spaces = [manifests.namespace(name) for name in (NAMESPACE, "models", "karmada-es-us-east")]
    manifests.apply_all(api_server.kube, [*spaces, *failback_access.hub_access(NAMESPACE)])
    for name in ("us-east", "us-west", "eu-west"):
        cluster = {"apiVersion": "cluster.karmada.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}}
        serves = [{"groupVersion": SERVICE["apiVersion"], "resources": [{"kind": SERVICE["kind"]}]}]
        ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": LONG_AGO}
        api_server.kube.apply({**cluster, "spec": {"syncMode": "Push"}})
        api_server.kube.apply({**cluster, "status": {"conditions": [ready], "apiEnablements": serves}}, subresource="status")
    return api_server


def test_rights_name_resources_as_the_crds_do() -> None:
    crds = [*karmada.kserve_crds(minimal=True), *karmada.istio_crds()]
    known = {(crd["spec"]["group"], crd["spec"]["names"]["plural"]) for crd in crds}
    of_crds = {(each.group, each.resource) for each in propagation.KINDS if each.served_by != "Kubernetes"}
    assert of_crds
    assert of_crds <= known


@dataclass(frozen=True)
class Controller:
    process: subprocess.Popen[bytes]
    log: Path
    metrics: str

    def value(self, name: str, **labels: str) -> float:
        """Of a sample; 0 where there is none."""
        text = httpx.get(self.metrics, trust_env=False).raise_for_status().text
        for line in text.splitlines():
            found = re.fullmatch(rf"fleet_failback_{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")) == labels:
                return float(found[2])
        return 0.0


@contextmanager
def controller(server: ApiServer, folder: Path, name: str) -> Generator[Controller]:
    """As the user of failback_access.hub_access, by impersonation."""
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"]["as"] = failback_access.NAME
    (folder / name).mkdir()
    (folder / name / "kubeconfig").write_text(yaml.safe_dump(config))
    metrics, health = free_port(), free_port()
    command = [
        str(tools.acquire(failback_access.NAME)),
        f"--kubeconfig={folder / name / 'kubeconfig'}",
        f"--lease-namespace={NAMESPACE}",
        f"--metrics-bind-address=127.0.0.1:{metrics}",
        f"--health-probe-bind-address=127.0.0.1:{health}",
        f"--orphan-kinds={','.join(propagation.removable_kinds())}",
        "--orphan-interval=1s",
        "--stable-for=1s",
        "--settle-timeout=1s",
    ]
    log = folder / f"{name}.log"

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{health}/readyz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    with process(command, log) as running:
        wait_until(ready, f"{name} to be ready", log=log)
        yield Controller(running, log, f"http://127.0.0.1:{metrics}/metrics")


@pytest.fixture(scope="module")
def pair(hub: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Controller]]:
    folder = tmp_path_factory.mktemp("failback")
    with controller(hub, folder, "first") as first:
        wait_until(lambda: first.value("leader") == 1, "the first to lead", log=first.log)
        with controller(hub, folder, "second") as second:
            yield [first, second]


def declare(kube: Kube, model: str, clusters: list[Object], tasks: list[Object] | None = None) -> None:
    """A model of six replicas, 3:2:1, as the scheduler left it."""
    weights = [{"targetCluster": {"clusterNames": [name]}, "weight": weight} for name, weight in (("us-east", 3), ("us-west", 2), ("eu-west", 1))]
    division = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Weighted", "weightPreference": {"staticWeightList": weights}}
    placement = {"clusterAffinity": {"clusterNames": ["eu-west", "us-east", "us-west"]}, "replicaScheduling": division}
    binding = {"apiVersion": BINDING[0], "kind": BINDING[1], "metadata": {"name": f"{model}-inferenceservice", "namespace": "models"}}
    spec = {"resource": {**SERVICE, "name": model}, "replicas": 6, "placement": placement, "clusters": clusters, "gracefulEvictionTasks": tasks or []}
    # Until the status is there, the controller takes the scheduler for busy.
    kube.create({**binding, "spec": spec})
    scheduled(kube, model, LONG_AGO)


def scheduled(kube: Kube, model: str, at: str, clusters: list[Object] | None = None) -> None:
    """What the scheduler writes."""
    name = f"{model}-inferenceservice"
    if clusters is not None:
        kube.patch(*BINDING, name, {"spec": {"clusters": clusters}}, "models")
    generation = kube.get(*BINDING, name, "models")["metadata"]["generation"]
    kube.patch(*BINDING, name, {"status": {"schedulerObservedGeneration": generation, "lastScheduledTime": at}}, "models", subresource="status")


DECLARED = [{"name": "us-east", "replicas": 3}, {"name": "us-west", "replicas": 2}, {"name": "eu-west", "replicas": 1}]


def reasons(kube: Kube, namespace: str, name: str) -> set[str]:
    return {event["reason"] for event in kube.list("v1", "Event", namespace) if event["involvedObject"]["name"] == name}


def test_a_region_that_is_well_gets_its_share_by_a_request_to_karmada(hub: ApiServer, pair: list[Controller]) -> None:
    kube, leader = hub.kube, pair[0]
    name = "failback.models.chat-inferenceservice"
    declare(kube, "chat", [{"name": "us-west", "replicas": 4}, {"name": "eu-west", "replicas": 2}])
    wait_until(lambda: kube.find(*REBALANCER, name) is not None, "the request", log=leader.log)
    request = kube.get(*REBALANCER, name)
    assert request["spec"] == {"workloads": [{**SERVICE, "name": "chat"}], "ttlSecondsAfterFinished": 60}
    scheduled(kube, "chat", request["metadata"]["creationTimestamp"], DECLARED)
    wait_until(lambda: kube.find(*REBALANCER, name) is None, "the request to be deleted", log=leader.log)
    assert leader.value("rescheduled_total", model="chat", cluster="us-east", result="restored") == 1
    assert leader.value("bindings", state="due") == 0
    assert leader.value("last_successful_sync_timestamp_seconds") > 0
    wait_until(lambda: {"FailbackRequested", "FailbackRestored"} <= reasons(kube, "models", "chat-inferenceservice"), "its events", log=leader.log)


def test_an_eviction_whose_taint_is_gone_is_cancelled(hub: ApiServer, pair: list[Controller]) -> None:
    task = {"fromCluster": "us-east", "reason": "TaintUntolerated", "producer": "TaintManager", "purgeMode": "Gracefully", "replicas": 3}
    declare(hub.kube, "solo", [], [task])

    def kept() -> bool:
        spec = hub.kube.get(*BINDING, "solo-inferenceservice", "models")["spec"]
        return not spec.get("gracefulEvictionTasks") and spec.get("clusters") == [{"name": "us-east", "replicas": 3}]

    wait_until(kept, "the eviction to be cancelled", log=pair[0].log)
    scheduled(hub.kube, "solo", LONG_AGO, DECLARED)


def test_a_work_that_karmada_takes_for_refused_is_changed_once(hub: ApiServer, pair: list[Controller]) -> None:
    kube = hub.kube
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "models"}}
    work = {"apiVersion": WORK[0], "kind": WORK[1], "metadata": {"name": "x-1", "namespace": "karmada-es-us-east"}}
    kube.create({**work, "spec": {"workload": {"manifests": [manifest]}}})
    applied = {"type": "Applied", "status": "False", "reason": "ReCreateFailed", "message": '"x" already exists', "lastTransitionTime": LONG_AGO}
    kube.patch(*WORK, "x-1", {"status": {"conditions": [applied]}}, "karmada-es-us-east", subresource="status")
    found = lambda: kube.get(*WORK, "x-1", "karmada-es-us-east")  # noqa: E731
    wait_until(lambda: found()["spec"].get("suspendDispatching") is False, "the Work to be changed", log=pair[0].log)
    assert found()["spec"]["workload"] == {"manifests": [manifest]}
    kube.patch(*WORK, "x-1", {"status": {"conditions": [{**applied, "status": "True"}]}}, "karmada-es-us-east", subresource="status")
    wait_until(lambda: pair[0].value("stuck_works") == 0, "no Work to be stuck", log=pair[0].log)
    assert pair[0].value("works_resynced_total", cluster="us-east") == 1


def test_nothing_was_forbidden_and_another_replica_takes_over(hub: ApiServer, pair: list[Controller]) -> None:
    """Ends the first one."""
    first, second = pair
    assert "forbidden" not in first.log.read_text()
    assert (first.value("leader"), second.value("leader")) == (1, 0)
    first.process.terminate()
    assert first.process.wait(20) == 0, first.log.read_text()
    wait_until(lambda: second.value("leader") == 1, "the second to lead", log=second.log)
    declare(hub.kube, "code", [{"name": "us-west", "replicas": 6}])
    wait_until(lambda: hub.kube.find(*REBALANCER, "failback.models.code-inferenceservice") is not None, "a request of the second", log=second.log)
