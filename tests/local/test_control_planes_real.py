"""Real Karmada, KServe, istiod and Envoy on a real hub and two members: the traps of their combination.

The clusters are made once. Tests that end a member come last, and each says what it leaves behind.
"""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.federation.federation import cluster_taint_policy
from components.federation.interpreter import resource_interpreter
from federation import membership
from kube.client import ApiError, Kube, condition
from local import gateways, istio, karmada, kserve, kubernetes, pki
from local.host_cluster import HostCluster
from specs import labels, naming, propagation
from specs.control_planes import karmada as settings
from specs.failover import CapacityFailoverSpec
from toolchain import paths

SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
DEPLOYMENT = ("apps/v1", "Deployment")
GATEWAY = ("networking.istio.io/v1", "Gateway")
POLICY_API = "policy.karmada.io/v1alpha1"
MODELS = labels.NAMESPACE_MODELS
HUB = "hub"
MEMBERS = ("us-east", "us-west")
KINDS = [str(each) for each in propagation.KINDS]
# Seconds a lost member keeps its replicas in these tests.
TOLERATION = 3
FAST = settings.flags(CapacityFailoverSpec.model_validate({"statusIntervalSeconds": 1, "failureThresholdSeconds": 2, "successThresholdSeconds": 2}))
RETRY_MAX_S = 5
for _component in (settings.CONTROLLERS, settings.SCHEDULER):
    FAST[_component]["rate-limiter-max-delay"] = f"{RETRY_MAX_S}s"

Object = dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    hub: Kube
    members: dict[str, Kube]

    def join_spec(self, name: str) -> Object:
        hub, member = HostCluster(HUB).kubeconfig, HostCluster(name).kubeconfig
        place = {"region": name, "zone": f"{name}-1", "provider": "local", "labels": {"tier": "test"}, "kinds": KINDS}
        return {"cluster": name, "hubKubeconfig": hub.read_text(), "memberKubeconfig": member.read_text(), **place}


def make_member(name: str) -> None:
    kubernetes.apply({"name": name, "role": "member", "region": name, "zone": f"{name}-1"})
    kserve.apply({"cluster": name, "controlPlane": "kserve", "settings": {}})
    istio.apply({"cluster": name, "controlPlane": "istio", "settings": {}})
    gateways.apply({"cluster": name, "region": name, "zone": f"{name}-1"})


def make_hub() -> None:
    kubernetes.apply({"name": HUB, "role": "hub", "region": "", "zone": ""})
    karmada.apply({"cluster": HUB, "controlPlane": "karmada", "settings": {"flags": FAST}})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "STATE", tmp_path_factory.mktemp("state"))
        try:
            with ThreadPoolExecutor() as pool:
                for made in [pool.submit(make_hub), *(pool.submit(make_member, name) for name in MEMBERS)]:
                    made.result()
            clients = {name: Kube.from_kubeconfig(HostCluster(name).kubeconfig) for name in (HUB, *MEMBERS)}
            made_fleet = Fleet(clients.pop(HUB), clients)
            for name in MEMBERS:
                membership.join(made_fleet.join_spec(name))
                add_nodes(made_fleet.members[name], name)
            declare(made_fleet.hub)
            yield made_fleet
        finally:
            for name in (*MEMBERS, "late", HUB):
                HostCluster(name).delete()


def add_nodes(member: Kube, name: str) -> None:
    room = {"nvidia.com/gpu": "8", "cpu": "64", "memory": "512Gi", "pods": "110"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"{name}-h100-0"}}
    annotated = {"name": f"{name}-h100-0", "annotations": {"kwok.x-k8s.io/node": "fake"}}
    member.apply({**node, "metadata": annotated})
    member.apply({**node, "status": {"capacity": room, "allocatable": room}}, subresource="status")
    member.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MODELS}})
    metadata = {"name": "model-store", "namespace": MODELS}
    size: Object = {"storage": "1Gi"}
    claim = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": "model-store", "resources": {"requests": size}}
    volume = {"capacity": size, "accessModes": ["ReadOnlyMany"], "storageClassName": "", "hostPath": {"path": "/none"}, "claimRef": metadata}
    member.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "model-store"}, "spec": volume})
    member.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim})


def runtime() -> Object:
    container = {
        "name": "kserve-container",
        "image": "vllm",
        "command": ["vllm", "serve"],
        "args": ["/mnt/models", "--port=8080"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": {"name": "vllm", "labels": {labels.LABEL_PROPAGATE: labels.PROPAGATE_ALL}},
        "spec": {"supportedModelFormats": [{"name": "vLLM", "version": "1"}], "protocolVersions": ["v2", "v1"], "containers": [container]},
    }


def service(name: str, replicas: int) -> Object:
    room = {"nvidia.com/gpu": "1", "cpu": "1", "memory": "1Gi"}
    model = {"modelFormat": {"name": "vLLM"}, "runtime": "vllm", "storageUri": f"pvc://model-store/{name}", "resources": {"limits": room, "requests": room}}
    annotations = {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"}
    return {
        "apiVersion": SERVICE[0],
        "kind": SERVICE[1],
        "metadata": {"name": name, "namespace": MODELS, "annotations": annotations},
        "spec": {"predictor": {"minReplicas": replicas, "maxReplicas": replicas, "model": model}},
    }


def policy(name: str, weights: dict[str, int]) -> Object:
    static = [{"targetCluster": {"clusterNames": [cluster]}, "weight": weight} for cluster, weight in weights.items()]
    divided = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Weighted", "weightPreference": {"staticWeightList": static}}
    tolerated = [{"key": labels.TAINT_LOST, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION}]
    placement = {"clusterAffinity": {"clusterNames": list(weights)}, "clusterTolerations": tolerated, "replicaScheduling": divided}
    return {
        "apiVersion": POLICY_API,
        "kind": "PropagationPolicy",
        "metadata": {"name": name, "namespace": MODELS},
        "spec": {
            "resourceSelectors": [{"apiVersion": SERVICE[0], "kind": SERVICE[1], "name": name}],
            "conflictResolution": "Overwrite",
            "placement": placement,
        },
    }


def everywhere(name: str, kinds: list[tuple[str, str]], *, preserve: bool = False) -> Object:
    selector = {"matchLabels": {labels.LABEL_PROPAGATE: labels.PROPAGATE_ALL}}
    return {
        "apiVersion": POLICY_API,
        "kind": "ClusterPropagationPolicy",
        "metadata": {"name": name},
        "spec": {
            "resourceSelectors": [{"apiVersion": api, "kind": kind, "labelSelector": selector} for api, kind in kinds],
            "conflictResolution": "Overwrite",
            "preserveResourcesOnDeletion": preserve,
            "placement": {"replicaScheduling": {"replicaSchedulingType": "Duplicated"}},
        },
    }


def declare(hub: Kube) -> None:
    """What every test builds on: interpreter, namespaces, a runtime and one model, two thirds of it in us-east."""
    own = {labels.LABEL_PROPAGATE: labels.PROPAGATE_ALL, "namespace.karmada.io/skip-auto-propagation": "true"}
    for name in (MODELS, labels.NAMESPACE_INGRESS):
        hub.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": own}})
    mesh = [("networking.istio.io/v1", kind) for kind in ("Gateway", "ServiceEntry", "DestinationRule", "VirtualService")]
    for item in (
        everywhere("namespaces", [("v1", "Namespace")], preserve=True),
        everywhere("shared", [("serving.kserve.io/v1alpha1", "ClusterServingRuntime"), *mesh]),
        resource_interpreter(),
        cluster_taint_policy(),
        runtime(),
        policy("llama", {"us-east": 2, "us-west": 1}),
        service("llama", 3),
    ):
        hub.apply(item)


def ready(kube: Kube, name: str = "llama") -> bool:
    found = kube.find(*SERVICE, name, MODELS)
    return found is not None and condition(found, "Ready").get("status") == "True"


def template(member: Kube, name: str = "llama") -> Object:
    return member.get(*DEPLOYMENT, f"{name}-predictor", MODELS)["spec"]["template"]


def seconds(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def listeners() -> set[str]:
    """Addresses on which any process of these clusters accepts TCP connections, as /proc shows them."""
    inodes: set[str] = set()
    for cluster in (HUB, *MEMBERS):
        for status in HostCluster(cluster).status():
            for link in Path(f"/proc/{status.pid}/fd").iterdir():
                try:
                    inodes.add(str(link.readlink()))
                except OSError:
                    continue
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                found.add(local.split(":")[0])
    return found


def test_a_service_declared_on_the_hub_becomes_ready_with_its_replicas_divided(fleet: Fleet) -> None:
    fleet.hub.wait(lambda: ready(fleet.hub), 120, "llama to be Ready on the hub")
    replicas = {name: member.get(*DEPLOYMENT, "llama-predictor", MODELS)["spec"]["replicas"] for name, member in fleet.members.items()}
    assert replicas == {"us-east": 2, "us-west": 1}


def test_kserve_mounts_a_model_of_a_registry_as_a_volume_of_its_image(fleet: Fleet) -> None:
    image = f"registry.example.com/models/x@sha256:{'0' * 64}"
    made = fleet.members["us-east"].create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "of-a-registry",
                "namespace": MODELS,
                "labels": {"serving.kserve.io/inferenceservice": "of-a-registry"},
                "annotations": {"internal.serving.kserve.io/storage-initializer-sourceuri": f"oci://{image}"},
            },
            "spec": {"containers": [{"name": "kserve-container", "image": "vllm"}]},
        },
        dry_run=True,
    )["spec"]
    (volume,) = (each for each in made["volumes"] if "image" in each)
    assert volume["image"]["reference"] == image
    mounts = [each for each in made["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    # The sub-path is where artifacts have the model's files; nothing else of the pod is changed by KServe.
    assert [(each["mountPath"], each["subPath"]) for each in mounts] == [("/mnt/models", "models")]
    assert [each["name"] for each in made["containers"]] == ["kserve-container"]


def test_nothing_listens_beyond_loopback(fleet: Fleet) -> None:
    # 7F in the last byte of the little-endian address: 127.x.y.z.
    beyond = {address for address in listeners() if not address.endswith("7F")}
    assert listeners()
    assert not beyond, "a control plane listens on an address that other machines reach"


def test_applying_again_changes_no_process(fleet: Fleet) -> None:
    def pids() -> dict[tuple[str, str], int | None]:
        return {(name, status.name): status.pid for name in (HUB, "us-east") for status in HostCluster(name).status()}

    before = pids()
    make_hub()
    make_member("us-east")
    assert membership.join(fleet.join_spec("us-east")) == membership.join(fleet.join_spec("us-east"))
    assert pids() == before


def test_an_edit_on_the_hub_rolls_no_pod(fleet: Fleet) -> None:
    """Karmada stamps each edit on the member's service, and KServe copies annotations into pod templates."""
    member = fleet.members["us-east"]
    fleet.hub.wait(lambda: ready(fleet.hub), 120, "llama to be Ready on the hub")
    before, stamp = template(member), stamped_generation(member)
    fleet.hub.patch(*SERVICE, "llama", {"spec": {"predictor": {"maxReplicas": 9}}}, MODELS)
    # The stamp is what would roll the pods; it must have come, or this test would prove nothing.
    member.wait(lambda: stamped_generation(member) != stamp, 30, "Karmada's stamp of the new generation")
    settled(member)
    assert template(member) == before
    assert not [key for key in before["metadata"].get("annotations", {}) if "karmada.io" in key]


def test_a_policy_made_anew_rolls_no_pod(fleet: Fleet) -> None:
    """The policy's id is a label on the member's service, and KServe copies labels too; the interpreter retains the first."""
    member = fleet.members["us-east"]
    before = template(member)
    fleet.hub.delete(POLICY_API, "PropagationPolicy", "llama", MODELS)
    fleet.hub.wait(lambda: fleet.hub.find(POLICY_API, "PropagationPolicy", "llama", MODELS) is None, 30, "the policy to go")
    fleet.hub.apply(policy("llama", {"us-east": 2, "us-west": 1}))
    made = fleet.hub.get(POLICY_API, "PropagationPolicy", "llama", MODELS)["metadata"]["labels"]["propagationpolicy.karmada.io/permanent-id"]

    def bound() -> bool:
        binding = fleet.hub.get("work.karmada.io/v1alpha2", "ResourceBinding", "llama-inferenceservice", MODELS)
        return binding["metadata"]["labels"].get("propagationpolicy.karmada.io/permanent-id") == made

    fleet.hub.wait(bound, 30, "the binding to take the new policy")
    settled(member)
    assert template(member) == before


def stamped_generation(member: Kube) -> str:
    return member.get(*SERVICE, "llama", MODELS)["metadata"]["annotations"]["resourcetemplate.karmada.io/generation"]


def settled(member: Kube, quiet_s: float = 3) -> None:
    """Returns when KServe and Karmada have left the service and its Deployment alone for a while."""
    seen: list[str] = []
    since = time.monotonic()
    while time.monotonic() - since < quiet_s:
        now = [member.get(*kind, name, MODELS)["metadata"]["resourceVersion"] for kind, name in ((SERVICE, "llama"), (DEPLOYMENT, "llama-predictor"))]
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.2)


def test_what_a_webhook_outage_held_up_arrives_soon_after_it(fleet: Fleet) -> None:
    """Karmada's own longest pause between two tries is 1000 s."""
    member, cluster = fleet.members["us-east"], HostCluster("us-east")
    definition = (cluster.dir / "units" / "kserve.json").read_text()
    cluster.remove_unit(kserve.UNIT)
    fleet.hub.patch(*SERVICE, "llama", {"spec": {"predictor": {"maxReplicas": 7}}}, MODELS)
    stamp = stamped_generation(member)
    # Long enough for the pause to grow: 5 ms doubles past 10 s in eleven failures.
    time.sleep(20)
    assert stamped_generation(member) == stamp, "the edit must wait for the webhook"
    (cluster.dir / "units" / "kserve.json").write_text(definition)
    cluster.wait_ready(kserve.UNIT, 60)
    # Without the longest delay that the fleet sets, Karmada's own would be 1000 s.
    member.wait(lambda: stamped_generation(member) != stamp, 60, "the edit to arrive")


def test_the_manager_recovers_when_crds_come_late(fleet: Fleet) -> None:
    kubernetes.apply({"name": "late", "role": "member", "region": "late", "zone": "late-1"})
    late = HostCluster("late")
    with Kube.from_kubeconfig(late.kubeconfig) as member:
        for item in ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kserve.NAMESPACE}}, kserve.configuration()):
            member.apply(item)
        late.put_unit(kserve.unit(late, pki.serving_certificate(late, kserve.UNIT, [])))
        member.wait(lambda: restarts(late, kserve.UNIT) > 0, 60, "the manager to exit for want of CRDs")
    kserve.apply({"cluster": "late", "controlPlane": "kserve", "settings": {}})
    late.delete()


def restarts(cluster: HostCluster, unit: str) -> int:
    return next(status.restarts for status in cluster.status() if status.name == unit)


def test_a_gateway_opens_no_port_beyond_loopback(fleet: Fleet) -> None:
    open_to_all = {
        "apiVersion": GATEWAY[0],
        "kind": GATEWAY[1],
        "metadata": {"name": "open", "namespace": MODELS},
        "spec": {"selector": {"istio": "front-door"}, "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]},
    }
    with pytest.raises(ApiError, match="loopback address"):
        fleet.members["us-east"].create(open_to_all, dry_run=True)


def test_a_request_travels_through_both_doors_and_a_gateway_waits_for_its_override(fleet: Fleet) -> None:
    member = fleet.members["us-east"]
    where = gateways.addresses(HostCluster("us-east"))
    for item in mesh_objects(where["regionalGateway"]["port"]):
        fleet.hub.apply(item)
    member.wait(lambda: member.find("networking.istio.io/v1", "VirtualService", "front", MODELS), 60, "routes on us-east")
    assert member.find(*GATEWAY, gateways.FRONT_DOOR, labels.NAMESPACE_INGRESS) is None, "without its override it would listen everywhere"
    for door, port in ((gateways.FRONT_DOOR, where["frontDoor"]["port"]), (gateways.REGIONAL_GATEWAY, where["regionalGateway"]["port"])):
        fleet.hub.apply(local_listener(door, port))
    pod = {"app": "isvc.llama-predictor"}
    entry = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": {"name": "pod", "namespace": MODELS, "labels": pod}}
    with answering("127.77.0.1", 8080):
        member.apply({**entry, "spec": {"address": "127.77.0.1", "labels": pod}})
        answer = member.wait(lambda: answers(f"{where['frontDoor']['url']}/llama/v1/models"), 60, "an answer through both doors")
        assert answer.text == "/v1/models"
        member.delete("networking.istio.io/v1", "WorkloadEntry", "pod", MODELS)
        gone = member.wait(lambda: not answers(f"{where['frontDoor']['url']}/llama/v1/models"), 10, "503 without a pod")
        assert gone
    assert not {address for address in listeners() if not address.endswith("7F")}


def answers(url: str) -> httpx.Response | None:
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return None
    return response if response.status_code == 200 else None


class answering:  # noqa: N801 (a context manager, used like a function)
    """A server on one loopback address that answers with the path it was asked for."""

    def __init__(self, address: str, port: int) -> None:
        class Echo(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(self.path.encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name of the base class)
                return

        self.server = http.server.ThreadingHTTPServer((address, port), Echo)

    def __enter__(self) -> None:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def mesh_objects(regional_port: int) -> list[Object]:
    host = "llama.fleet.internal"
    api = "networking.istio.io/v1"
    shared = {labels.LABEL_PROPAGATE: labels.PROPAGATE_ALL}

    def door(name: str, protocol: str) -> Object:
        server = {"port": {"number": 80, "name": protocol.lower(), "protocol": protocol}, "hosts": ["*"]}
        metadata = {"name": name, "namespace": labels.NAMESPACE_INGRESS, "labels": shared}
        return {"apiVersion": api, "kind": "Gateway", "metadata": metadata, "spec": {"selector": {"istio": name}, "servers": [server]}}

    def routes(name: str, gateway: str, http_route: Object) -> Object:
        spec = {"hosts": ["*"], "gateways": [f"{labels.NAMESPACE_INGRESS}/{gateway}"], "http": [http_route]}
        return {"apiVersion": api, "kind": "VirtualService", "metadata": {"name": name, "namespace": MODELS, "labels": shared}, "spec": spec}

    def to(destination: str) -> Object:
        return {"match": [{"uri": {"prefix": "/llama/v1/"}}], "route": [{"destination": {"host": destination, "port": {"number": 80}}}]}

    endpoint = {"address": gateways.ADDRESS, "ports": {"http2": regional_port}, "locality": "us-east/us-east-1"}
    regions = {"hosts": [host], "location": "MESH_EXTERNAL", "resolution": "STATIC", "endpoints": [endpoint]}
    ports = [{"number": 80, "name": "http2", "protocol": "HTTP2"}]
    return [
        door(gateways.FRONT_DOOR, "HTTP"),
        door(gateways.REGIONAL_GATEWAY, "HTTP2"),
        {"apiVersion": api, "kind": "ServiceEntry", "metadata": {"name": "llama", "namespace": MODELS, "labels": shared}, "spec": {**regions, "ports": ports}},
        routes("front", gateways.FRONT_DOOR, to(host)),
        routes("regional", gateways.REGIONAL_GATEWAY, {**to(f"llama-predictor.{MODELS}.svc.cluster.local"), "rewrite": {"uri": "/v1/"}}),
    ]


def local_listener(door: str, port: int) -> Object:
    changes = [
        {"path": "/spec/servers/0/bind", "operator": "add", "value": gateways.ADDRESS},
        {"path": "/spec/servers/0/port/number", "operator": "replace", "value": port},
    ]
    rule = {"targetCluster": {"clusterNames": ["us-east"]}, "overriders": {"plaintext": changes}}
    selector = {"apiVersion": GATEWAY[0], "kind": GATEWAY[1], "namespace": labels.NAMESPACE_INGRESS, "name": door}
    spec = {"resourceSelectors": [selector], "overrideRules": [rule]}
    return {"apiVersion": POLICY_API, "kind": "ClusterOverridePolicy", "metadata": {"name": f"us-east-{door}"}, "spec": spec}


def test_replicas_of_a_lost_member_move(fleet: Fleet) -> None:
    """All five switches of cluster failover. Leaves us-east killed, and a model that has nowhere else to go."""
    fleet.hub.apply(policy("solo", {"us-east": 1}))
    fleet.hub.apply(service("solo", 1))
    fleet.hub.wait(lambda: ready(fleet.hub) and ready(fleet.hub, "solo"), 120, "llama and solo to be Ready on the hub")
    HostCluster("us-east").kill()

    def moved() -> bool:
        return fleet.members["us-west"].get(*DEPLOYMENT, "llama-predictor", MODELS).get("status", {}).get("readyReplicas") == 3

    took = seconds(lambda: fleet.hub.wait(moved, 90, "all three replicas in us-west"))
    print(f"replicas moved {took:.1f} s after the kill")
    assert took > TOLERATION, "not before the toleration ends"
    assert took < 45


def division(fleet: Fleet, name: str) -> dict[str, int]:
    binding = fleet.hub.get("work.karmada.io/v1alpha2", "ResourceBinding", f"{name}-inferenceservice", MODELS)
    return {target["name"]: target["replicas"] for target in binding["spec"].get("clusters") or []}


def test_a_member_that_returns_gets_its_share_again_by_itself(fleet: Fleet) -> None:
    """us-east is dead since the test before. A model that could go nowhere is still being evicted then, for 600 s."""
    fleet.hub.wait(lambda: not division(fleet, "solo"), 30, "the eviction of solo")
    HostCluster("us-east").start()
    held = fleet.members["us-east"].get(*SERVICE, "solo", MODELS)["metadata"]["uid"]
    took = seconds(lambda: fleet.hub.wait(lambda: division(fleet, "llama") == {"us-east": 2, "us-west": 1}, 90, "the declared division of llama"))
    print(f"declared division {took:.1f} s after the start")
    fleet.hub.wait(lambda: division(fleet, "solo") == {"us-east": 1} and ready(fleet.hub, "solo"), 60, "solo to be Ready in us-east")
    fleet.hub.wait(lambda: ready(fleet.members["us-east"]), 60, "llama to be Ready in us-east")
    assert fleet.members["us-east"].get(*SERVICE, "solo", MODELS)["metadata"]["uid"] == held, "a copy that is there is kept"


def test_what_karmada_left_behind_on_a_member_is_deleted_through_its_proxy(fleet: Fleet) -> None:
    """Objects that no Work stands for, beside twice as many that one does."""
    west, space = fleet.members["us-west"], "karmada-es-us-west"
    carried = ((each, each["spec"]["workload"]["manifests"][0]) for each in fleet.hub.list(membership.WORK_API, "Work", space))
    (work,) = (each for each, manifest in carried if (manifest["kind"], manifest["metadata"]["name"]) == ("InferenceService", "llama"))
    own = {key: value for key, _, value in (each.partition("=") for each in propagation.MANAGED.split(","))}

    def put(name: str, work: str) -> None:
        notes = {"work.karmada.io/namespace": space, "work.karmada.io/name": work}
        west.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": MODELS, "labels": own, "annotations": notes}})

    put("left-behind", "gone-1")
    for name in ("kept-0", "kept-1"):
        put(name, work["metadata"]["name"])
    west.wait(lambda: west.find("v1", "ConfigMap", "left-behind", MODELS) is None, 120, "the orphan to be deleted")
    for name in ("kept-0", "kept-1"):
        assert west.delete("v1", "ConfigMap", name, MODELS)


def test_a_dead_member_can_leave(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    """Leaves us-east dead and out of the federation."""
    HostCluster("us-east").kill()
    spec = fleet.join_spec("us-east")
    id_before = fleet.hub.get(membership.CLUSTER_API, "Cluster", "us-east")["spec"]["id"]
    assert membership.join({**spec, "labels": {"tier": "edited"}}) == {"id": id_before}, "an update while it is dead succeeds"
    assert "skipped: cluster us-east" in capfd.readouterr().err
    assert fleet.hub.get(membership.CLUSTER_API, "Cluster", "us-east")["metadata"]["labels"]["tier"] == "edited"
    took = seconds(lambda: membership.unjoin(spec))
    print(f"left in {took:.1f} s")
    assert took < 30
    assert fleet.hub.find(membership.CLUSTER_API, "Cluster", "us-east") is None
    assert fleet.hub.find("v1", "Namespace", "karmada-es-us-east") is None
    assert fleet.hub.find("v1", "Secret", "us-east", naming.CLUSTER_NAMESPACE) is None
    said = capfd.readouterr().err
    assert "does not answer" in said
    assert membership.unjoin(spec) == {}, "leaving twice is fine"


def test_a_member_that_returns_joins_again_and_serves(fleet: Fleet) -> None:
    HostCluster("us-east").start()
    membership.join(fleet.join_spec("us-east"))
    fleet.hub.wait(lambda: ready(fleet.members["us-east"]), 90, "llama to be Ready in us-east")


def test_a_living_member_leaves_clean(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    """Leaves us-west out of the federation."""
    member = fleet.members["us-west"]
    token = member.get("v1", "Secret", "karmada-us-west", naming.CLUSTER_NAMESPACE)["data"]["token"]
    took = seconds(lambda: membership.unjoin(fleet.join_spec("us-west")))
    print(f"left in {took:.1f} s")
    assert fleet.hub.find(membership.CLUSTER_API, "Cluster", "us-west") is None
    member.wait(lambda: member.find(*SERVICE, "llama", MODELS) is None, 30, "Karmada's copy to go")
    assert member.find("rbac.authorization.k8s.io/v1", "ClusterRole", "karmada-controller-manager:karmada-us-west") is None
    assert member.find("v1", "PersistentVolumeClaim", "model-store", MODELS), "what the member had of its own stays"
    said = capfd.readouterr()
    assert token not in said.out + said.err
