"""What a replica looks like: runtime, arguments, probes, shutdown, and what differs by cluster."""

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from components.federation.placement import TIMEOUT_SECONDS, WAIT_FOR
from components.serving import models, serving_runtimes
from runtime_image import engine_guard
from specs import labels, propagation, runtimes
from specs.base import SpecError
from specs.failover import RequestFailoverSpec
from specs.fleet import FleetSpec
from specs.gpu_pools import TaintSpec
from specs.models import ModelSpec
from tests.unit import fleets
from tests.unit.fleets import parse_fleet


def parsed(**model: Any) -> tuple[FleetSpec, ModelSpec]:
    raw = fleets.small()
    raw["models"][0].update(model)
    fleet = parse_fleet(raw)
    return fleet, fleet.models[0]


@pytest.fixture(scope="module")
def local() -> FleetSpec:
    return parse_fleet(fleets.read(fleets.REPO / "stacks" / "Pulumi.local.yaml"))


def test_the_service_of_a_model_as_a_whole(local: FleetSpec) -> None:
    resources = {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "4"}
    assert models.inference_service(local.models[1], local.runtimes) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "llama-3-70b",
            "namespace": "models",
            "labels": {
                "app.kubernetes.io/part-of": "inference-fleet",
                "app.kubernetes.io/component": "serving",
                "inference-fleet.dev/model": "llama-3-70b",
                "networking.kserve.io/visibility": "cluster-local",
                "inference-fleet.dev/fetches": "true",
            },
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "none",
                "pulumi.com/waitFor": "condition=Ready",
                "pulumi.com/timeoutSeconds": "1920",
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": 6,
                "maxReplicas": 6,
                "nodeSelector": {"inference-fleet.dev/accelerator": "H100"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "terminationGracePeriodSeconds": 60,
                "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "model": {
                    "modelFormat": {"name": "vLLM"},
                    "runtime": "vllm",
                    "storageUri": "hf://meta-llama/Llama-3.3-70B-Instruct",
                    "args": ["--max-model-len=32768", "--tensor-parallel-size=4"],
                    "env": [{"name": "FLEET_MODEL_REVISION", "value": "1363884ca1"}],
                    "resources": {"requests": resources, "limits": resources},
                },
            }
        },
    }


def test_gpu_type_and_tensor_parallel_size_differ_by_cluster(local: FleetSpec) -> None:
    changes = models.cluster_overrides(local.models[1], local.runtimes)
    assert set(changes) == {"us-west", "eu-west"}
    assert changes["us-west"]["/spec/predictor/nodeSelector"] == {labels.LABEL_ACCELERATOR: "A100"}
    assert changes["us-west"]["/spec/predictor/model/args"] == ["--max-model-len=32768", "--tensor-parallel-size=8"]
    assert changes["us-west"]["/spec/predictor/model/resources"]["limits"]["nvidia.com/gpu"] == "8"
    # Four GPUs as in the base object: only the type differs, and only that is replaced.
    assert set(changes["eu-west"]) == {"/spec/predictor/nodeSelector"}


def test_an_override_that_says_the_same_changes_nothing() -> None:
    fleet, model = parsed()
    same = model.placement.clusters[0].model_copy(update={"accelerator": model.accelerator})
    placement = model.placement.model_copy(update={"clusters": (same, *model.placement.clusters[1:])})
    assert models.cluster_overrides(model.model_copy(update={"placement": placement}), fleet.runtimes) == {}


def test_a_cluster_without_gpus_gets_the_cpu_runtime_wholly() -> None:
    clusters = [{"name": "east"}, {"name": "west", "accelerator": {"type": "cpu"}}]
    fleet, model = parsed(placement={"clusters": clusters})
    (change,) = models.cluster_overrides(model, fleet.runtimes).values()
    assert change["/spec/predictor/model/runtime"] == "vllm-cpu"
    assert change["/spec/predictor/model/args"] == ["--max-model-len=8192"]
    assert "nvidia.com/gpu" not in change["/spec/predictor/model/resources"]["limits"]


TAINTED = (
    TaintSpec(key="dedicated", value="inference"),
    TaintSpec(key="example.com/gpu", effect="NoExecute"),
    TaintSpec(key="nvidia.com/gpu", value="present"),
)
USUAL = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def test_a_cluster_with_tainted_gpu_nodes_gets_tolerations_of_its_own() -> None:
    raw = fleets.small()
    raw["clusters"][1]["gpuPools"][0]["taints"] = [each.model_dump() for each in TAINTED]
    fleet = parse_fleet(raw)
    taints = {each.name: each.taints("H100") for each in fleet.clusters}
    # The other cluster's pods keep what they have: a change there would restart them.
    assert models.cluster_overrides(fleet.models[0], fleet.runtimes, taints) == {
        "west": {
            "/spec/predictor/tolerations": [
                USUAL,
                {"key": "dedicated", "operator": "Equal", "value": "inference", "effect": "NoSchedule"},
                {"key": "example.com/gpu", "operator": "Exists", "effect": "NoExecute"},
            ]
        }
    }


def test_taints_of_pools_with_other_gpus_are_not_tolerated() -> None:
    raw = fleets.small()
    raw["clusters"][1]["gpuPools"].append({"name": "l4", "accelerator": "L4", "gpusPerNode": 1, "nodes": 1, "taints": [{"key": "dedicated"}]})
    west = parse_fleet(raw).clusters[1]
    assert west.taints("H100") == ()
    assert west.taints("L4") == (TaintSpec(key="dedicated"),)


def test_tolerations_of_a_model_that_is_on_gpus_in_one_cluster_only_have_a_field_to_replace() -> None:
    clusters = [{"name": "east"}, {"name": "west", "accelerator": {"type": "H100"}}]
    fleet, model = parsed(accelerator={"type": "cpu"}, placement={"clusters": clusters})
    assert models.inference_service(model, fleet.runtimes)["spec"]["predictor"]["tolerations"] == [USUAL]
    assert "/spec/predictor/tolerations" in models.cluster_overrides(model, fleet.runtimes, {"west": TAINTED})["west"]


def test_a_model_on_cpu_asks_for_no_gpu_and_for_its_node(local: FleetSpec) -> None:
    predictor = models.inference_service(local.models[0], local.runtimes)["spec"]["predictor"]
    assert predictor["nodeSelector"] == {labels.LABEL_ACCELERATOR: "cpu"}
    assert "tolerations" not in predictor
    assert predictor["model"]["runtime"] == "vllm-cpu"
    assert predictor["model"]["resources"]["limits"] == {"cpu": "500m", "memory": "2Gi"}
    assert predictor["model"]["args"] == ["--max-model-len=1024", "--max-num-seqs=8", "--kv-cache-memory-bytes=67108864", "--enforce-eager"]
    assert predictor["deploymentStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def environment(body: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in body["spec"]["predictor"]["model"]["env"]}


def test_the_revision_is_the_same_wherever_answers_are(local: FleetSpec) -> None:
    revisions = {models.revision(model, model.accelerator) for model in local.models}
    assert len(revisions) == len(local.models)
    model = local.models[1]
    (here,) = {models.revision(model, model.accelerator_in(each.name)) for each in model.placement.clusters}
    assert here == environment(models.inference_service(model, local.runtimes))["FLEET_MODEL_REVISION"]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"source": "hf://example/other"}, True),
        ({"runtime": {"maxModelLength": 4096}}, True),
        ({"runtime": {"maxModelLength": 8192}}, False),
        ({"runtime": {"maxNumSeqs": 4, "maxQueued": 4, "kvCacheBytes": 1024, "enforceEager": True}}, False),
        ({"accelerator": {"type": "H100", "count": 2}}, False),
        ({"replicas": 4, "rollout": "replace"}, False),
    ],
)
def test_a_new_revision_is_what_would_answer_otherwise(change: dict[str, Any], *, differs: bool) -> None:
    (_, before), (_, after) = parsed(), parsed(**change)
    assert (models.revision(before, before.accelerator) != models.revision(after, after.accelerator)) is differs


def test_a_cluster_that_computes_in_another_precision_tells_another_revision() -> None:
    fleet, model = parsed(placement={"clusters": [{"name": "east"}, {"name": "west", "accelerator": {"type": "cpu"}}]})
    base = environment(models.inference_service(model, fleet.runtimes))["FLEET_MODEL_REVISION"]
    (told,) = models.cluster_overrides(model, fleet.runtimes)["west"]["/spec/predictor/model/env"]
    assert told["name"] == "FLEET_MODEL_REVISION"
    assert told["value"] != base


def test_a_replica_is_full_with_what_it_computes_and_what_waits() -> None:
    fleet, model = parsed(runtime={"maxNumSeqs": 8, "maxQueued": 4})
    assert environment(models.inference_service(model, fleet.runtimes))["FLEET_GUARD_CAPACITY"] == "12"
    fleet, model = parsed(runtime={"maxNumSeqs": 8, "maxQueued": 0})
    assert environment(models.inference_service(model, fleet.runtimes))["FLEET_GUARD_CAPACITY"] == "8"
    fleet, model = parsed(runtime={"maxNumSeqs": 8})
    assert "FLEET_GUARD_CAPACITY" not in environment(models.inference_service(model, fleet.runtimes))


def test_a_queue_without_a_known_batch_is_refused() -> None:
    with pytest.raises(SpecError, match=r"models\[0\]\.runtime: `maxQueued` needs `maxNumSeqs`"):
        parsed(runtime={"maxQueued": 4})


def test_without_a_length_the_model_gets_all_it_can() -> None:
    _, model = parsed()
    assert models.arguments(model, model.accelerator)[0] == "--max-model-len=8192"


def test_the_mode_is_written_out_because_kserves_default_differs() -> None:
    fleet, model = parsed()
    annotations = models.inference_service(model, fleet.runtimes)["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"
    # With an autoscaler KServe drops minReplicas, and with it Karmada's division.
    assert annotations["serving.kserve.io/autoscalerClass"] == "none"


def test_pulumi_waits_for_one_ready_cluster_and_longer_than_a_load_takes(local: FleetSpec) -> None:
    for model in local.models:
        annotations = models.inference_service(model, local.runtimes)["metadata"]["annotations"]
        assert annotations[WAIT_FOR] == "condition=Ready"
        runtime = local.runtimes.for_accelerator(model.accelerator.type)
        assert int(annotations[TIMEOUT_SECONDS]) > runtime.startup_seconds


@pytest.mark.parametrize("name", [labels.RUNTIME_GPU, labels.RUNTIME_CPU])
def test_the_runtimes_start_vllm_the_same_way_everywhere(local: FleetSpec, name: str) -> None:
    spec = local.runtimes.for_accelerator("cpu" if name == labels.RUNTIME_CPU else "H100")
    body = serving_runtimes.serving_runtime(name, spec, local.failover.requests)
    (container,) = body["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["command"] == ["python3", "-m", "vllm.entrypoints.cli.main", "serve"]
    assert container["args"][:4] == ["/mnt/models", "--served-model-name={{.Name}}", "--host=$(POD_IP)", "--port=8080"]
    assert container["env"][0] == {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    assert body["metadata"]["labels"][labels.LABEL_PROPAGATE] == "all"
    # Istio reads the protocol from the name of the port.
    assert container["ports"][0]["name"].startswith("http")


@pytest.mark.parametrize("name", [labels.RUNTIME_GPU, labels.RUNTIME_CPU])
def test_both_runtimes_run_the_engine_guard(name: str) -> None:
    failover = RequestFailoverSpec().model_copy(update={"stall_seconds": 2.5})
    body = serving_runtimes.serving_runtime(name, runtimes.RuntimesSpec().vllm, failover)
    (container,) = body["spec"]["containers"]
    mount, volume = container["volumeMounts"][0], body["spec"]["volumes"][0]
    files = serving_runtimes.guard_files()
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert "--middleware=engine_guard.EngineGuard" in container["args"]
    assert container["command"][:2] == ["python3", "-m"], "puts the working folder on Python's path"
    assert container["workingDir"] == mount["mountPath"]
    assert "PYTHONPATH" not in environment, "KServe refuses it"
    assert environment["FLEET_GUARD_STALL_SECONDS"] == "2.5"
    assert mount["name"] == volume["name"]
    assert volume["configMap"]["name"] == files["metadata"]["name"]
    assert list(files["data"]) == ["engine_guard.py"]


def test_the_engine_guard_reaches_every_member_as_it_is() -> None:
    files = serving_runtimes.guard_files()
    assert files["metadata"]["namespace"] == labels.NAMESPACE_MODELS
    assert files["metadata"]["labels"][labels.LABEL_PROPAGATE] == "all"
    assert files["data"]["engine_guard.py"] == Path(inspect.getfile(engine_guard)).read_text(encoding="utf-8")
    assert {"apiVersion": files["apiVersion"], "kind": files["kind"]} in [each.selector for each in propagation.sent("shared")]


def test_the_engine_guard_needs_nothing_that_vllm_has_not() -> None:
    tree = ast.parse(serving_runtimes.guard_files()["data"]["engine_guard.py"])
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    named = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {each.partition(".")[0] for each in plain | named} <= sys.stdlib_module_names


def test_probes_ask_what_they_mean_and_a_busy_server_is_never_restarted(local: FleetSpec) -> None:
    (container,) = serving_runtimes.serving_runtime(labels.RUNTIME_GPU, local.runtimes.vllm, local.failover.requests)["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["httpGet"] == {"path": "/health", "port": 8080}
    # /health stays true while the engine hangs.
    assert container["readinessProbe"]["httpGet"] == {"path": "/fleet/ready", "port": 8080}
    assert startup["periodSeconds"] * startup["failureThreshold"] >= local.runtimes.vllm.startup_seconds
    assert "livenessProbe" not in container


@pytest.mark.parametrize("drain", [0, 15])
def test_shutdown_drains_before_it_kills(drain: int) -> None:
    raw = fleets.small()
    raw["runtimes"] = {"vllm": {"drainSeconds": drain, "shutdownSeconds": 40}}
    fleet = parse_fleet(raw)
    (container,) = serving_runtimes.serving_runtime(labels.RUNTIME_GPU, fleet.runtimes.vllm, fleet.failover.requests)["spec"]["containers"]
    predictor = models.inference_service(fleet.models[0], fleet.runtimes)["spec"]["predictor"]
    # vLLM's default of 0 would cut off what is under way.
    assert "--shutdown-timeout=40" in container["args"]
    assert predictor["terminationGracePeriodSeconds"] > drain + 40
    assert container.get("lifecycle") == ({"preStop": {"sleep": {"seconds": drain}}} if drain else None)


@pytest.mark.parametrize("name", [labels.RUNTIME_GPU, labels.RUNTIME_CPU])
def test_pods_run_without_root_and_write_only_where_they_may(name: str) -> None:
    spec = runtimes.RuntimesSpec().for_accelerator("cpu" if name == labels.RUNTIME_CPU else "H100")
    body = serving_runtimes.serving_runtime(name, spec, RequestFailoverSpec())["spec"]
    (container,) = body["containers"]
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0, "a name would not do: the kubelet cannot tell whether it is root's"
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    # NVIDIA's hook writes into a GPU container before its start.
    assert security["readOnlyRootFilesystem"] is (name == labels.RUNTIME_CPU)
    empty = {each["name"] for each in body["volumes"] if "emptyDir" in each}
    writable = {each["mountPath"] for each in container["volumeMounts"] if each["name"] in empty}
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert {"/tmp", environment["HOME"]} <= writable
    assert environment["USER"], "PyTorch ends where it finds no name of the user"
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in body["volumes"]}


def test_processes_of_a_gpu_replica_get_memory_to_talk_by() -> None:
    spec_of = runtimes.RuntimesSpec()
    spec = spec_of.vllm.model_copy(update={"shared_memory": "4Gi"})
    body = serving_runtimes.serving_runtime(labels.RUNTIME_GPU, spec, RequestFailoverSpec())["spec"]
    (mount,) = [each for each in body["containers"][0]["volumeMounts"] if each["mountPath"] == "/dev/shm"]
    (volume,) = [each for each in body["volumes"] if each["name"] == mount["name"]]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
    on_cpu = serving_runtimes.serving_runtime(labels.RUNTIME_CPU, spec_of.vllm_cpu, RequestFailoverSpec())["spec"]
    assert "/dev/shm" not in {each["mountPath"] for each in on_cpu["containers"][0]["volumeMounts"]}


def test_the_cache_of_a_prompt_is_offered_at_the_pods_address() -> None:
    (container,) = serving_runtimes.serving_runtime(labels.RUNTIME_GPU, runtimes.RuntimesSpec().vllm, RequestFailoverSpec())["spec"]["containers"]
    names = [each["name"] for each in container["env"]]
    assert {each["name"]: each.get("value") for each in container["env"]}["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "$(POD_IP)"
    assert names.index("POD_IP") < names.index("VLLM_NIXL_SIDE_CHANNEL_HOST"), "Kubernetes expands only what stands before"


@pytest.mark.parametrize("name", [labels.RUNTIME_GPU, labels.RUNTIME_CPU])
def test_pods_say_where_their_metrics_are(name: str) -> None:
    body = serving_runtimes.serving_runtime(name, runtimes.RuntimesSpec().vllm, RequestFailoverSpec())["spec"]
    (port,) = body["containers"][0]["ports"]
    assert body["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": str(port["containerPort"]), "prometheus.io/path": "/metrics"}
