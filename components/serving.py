"""Serving: the vLLM runtimes, and one InferenceService per model on the hub.

A model's own arguments are serving_arguments.py. Where copies run is placement.py; how callers reach them is mesh.py. KServe
on the members makes Deployments of them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import pulumi
from pulumi_kubernetes.core.v1 import ConfigMap
from pydantic import AfterValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from components import labels, naming
from components.driver_commands import driver_command, inside, result
from components.failover import RequestFailoverSpec
from components.gpu_pools import AcceleratorSpec
from components.hub_objects import hub_object
from components.placement import INFERENCE_SERVICE, TIMEOUT_SECONDS, WAIT_FOR, PlacementEntry, PlacementSpec
from components.runtime_image import RuntimeImageSpec, Variant
from components.serving_arguments import CPU_VLLM, GPU_VLLM, MODEL_PATH, Count, ModelRuntimeSpec, parser_table, rendered, shapes_answers
from components.spec import Spec, checked, dns_name, refuse
from planning.accelerators import CPU
from runtime_image import engine_guard, vllm_arguments

# Where vLLM listens in its pod. The runtimes, the probes and KServe's Service share it.
PORT = 8080
HEALTH_PATH = engine_guard.HEALTH_PATH
# True only while the engine computes, or has nothing to compute. The deep checks of the front doors ask for it too.
READY_PATH = engine_guard.READY_PATH
# ConfigMap with the engine guard, the module in it, and where pods find it: a folder of Python's path.
GUARD, GUARD_MODULE, GUARD_PATH = "engine-guard", "engine_guard", "/etc/inference-fleet/engine-guard"
# KServe's name of the container that it merges with a model's own fields.
CONTAINER = "kserve-container"

# Folders of a pod that may be written to: the root file system of the CPU runtime may not, and a user without an entry in
# /etc/passwd has no home. HOME holds vLLM's compiled graphs too, where the image names no other folder for them.
_HOME, _SCRATCH, _SHARED_MEMORY = "/home/vllm", "/tmp", "/dev/shm"
# A number, because the kubelet cannot tell whether a name is root. The group is root's as in vLLM's own images, whose files
# are open to it; it gives no rights over others' files. For an `oci://` source KServe's modelcar puts a user of its own here.
_USER, _GROUP = 2000, 0

# Between two looks of a probe. The first is shorter: it is time that a loaded model waits for its first request.
_STARTUP_PROBE_SECONDS = 2
_PROBE_SECONDS = 5
# After the drain: time for the engine to end its processes before the kubelet kills them.
_EXIT_SECONDS = 5
# Added to startupSeconds when waiting for a model: scheduling, pull of the image, the way of status through Karmada.
_WAIT_MARGIN_SECONDS = 120

_SOURCES = {
    "oci": (r"oci://[a-z0-9.:-]+(/[a-z0-9._-]+)+(:[\w.-]+|@sha256:[0-9a-f]{64})?", "oci://registry.example.com/models/name:tag"),
    "hf": (r"hf://[\w.-]+/[\w.-]+(:[\w./-]+)?", "hf://organisation/model or hf://organisation/model:revision"),
    "s3": (r"s3://[a-z0-9][a-z0-9.-]+(/[^\s/]+)+/?", "s3://bucket/path"),
    "pvc": (r"pvc://[a-z0-9][a-z0-9.-]*(/[^\s/]+)+/?", "pvc://claim/path"),
}

# KServe fetches these in a container of the pod. Images are pulled by the node, claims are there.
_FETCHED = ("hf://", "s3://")


def _source(value: str) -> str:
    scheme = value.split("://", 1)[0]
    if scheme not in _SOURCES:
        raise refuse("must start with one of " + ", ".join(f"`{each}://`" for each in _SOURCES))
    pattern, example = _SOURCES[scheme]
    if not re.fullmatch(pattern, value):
        raise refuse(f"is not a valid `{scheme}://` source", f"it looks like {example}")
    return value


ModelName = Annotated[str, *dns_name(naming.MODEL_LIMIT, "KServe writes `isvc.<name>-predictor` into a label of 63 characters")]
Owner = Annotated[
    str, *checked(r"[a-z0-9A-Z]([-\w.]*[a-z0-9A-Z])?", naming.LABEL_LIMIT, "must hold only letters, digits, `-`, `_` and `.`", "it becomes a label")
]
ModelSource = Annotated[str, AfterValidator(_source), Field(json_schema_extra={"pattern": "^(oci|hf|s3|pvc)://.+"})]
# A Kubernetes quantity, e.g. `500m`, `3Gi`.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class LatentAttention(Spec):
    """Numbers of multi-head latent attention (MLA), which keeps one latent per token in place of keys and values."""

    kv_lora_rank: Count
    """kv_lora_rank"""
    qk_rope_head_size: Count
    """qk_rope_head_dim"""


class ModelFacts(Spec):
    """The architecture of a model, as its config.json has it. Rules and plans are computed from it. `fleet model inspect` prints
    it for a model directory or an artifact."""

    attention_heads: Count
    """num_attention_heads"""
    key_value_heads: Count
    """num_key_value_heads"""
    layers: Count
    """num_hidden_layers"""
    hidden_size: Count
    """hidden_size"""
    parameters: Count
    """Weights, all experts included."""
    max_model_length: Count
    """max_position_embeddings: the longest sequence in tokens."""
    intermediate_size: Count | None = None
    """intermediate_size; of a mixture of experts moe_intermediate_size."""
    vocabulary_size: Count | None = None
    """vocab_size. Without it plans reserve memory for a large one."""
    experts: Count | None = None
    """Experts of each layer: num_experts, n_routed_experts or num_local_experts. None for a model without."""
    experts_per_token: Count | None = None
    """num_experts_per_tok. Only plans need it, as those below."""
    head_size: Count | None = None
    """head_dim; without it hiddenSize / attentionHeads."""
    weight_bytes: Count | None = None
    """Bytes of the weight files; without them two per parameter, or what the quantization makes of it."""
    sliding_window: Count | None = None
    """sliding_window: tokens that some layers look back."""
    full_attention_layers: Annotated[int, Field(ge=0)] | None = None
    """Layers without that window; 0 where all have it. Without this number plans count a window for nothing."""
    mla: LatentAttention | None = None


class ObjectivesSpec(Spec):
    """What callers may expect. Alerts and plans are derived from it; those about failover are refused where they cannot be
    kept."""

    availability_percent: Annotated[float, Field(gt=0, lt=100)] = 99.5
    time_to_first_token_seconds: Annotated[float, Field(gt=0)] | None = None
    inter_token_seconds: Annotated[float, Field(gt=0)] | None = None
    failover_seconds: Annotated[float, Field(gt=0)] | None = None
    """The longest by which the first token of a request may come later because its region died."""
    restore_seconds: Annotated[float, Field(gt=0)] | None = None
    """The longest from the death of a region until its replicas are ready in others."""


Replicas = Annotated[int, Field(ge=1, le=10_000)]


class LoadSpec(Spec):
    """What callers ask of a model, over all front doors together. Plans are made for it; nothing enforces it."""

    requests_per_second: Annotated[float, Field(ge=1e-6)]
    """At the busiest time that is planned for."""
    input_tokens: Count
    """Of a prompt, in the mean."""
    output_tokens: Count
    """Of an answer, in the mean."""


class ModelBase(Spec):
    """What is known of a model before it has a place."""

    name: ModelName
    """Its name in paths and in the `model` field of requests."""
    owner: Owner | None = None
    """Team that answers for it: a label of its placement."""
    source: ModelSource
    """Where the weights come from: oci://, hf://, s3:// or pvc://."""
    pack: Annotated[str, Field(min_length=1)] | None = None
    """A model directory, relative to the folder of the stack file. `pulumi up` packs it and pushes it to `source` where the
    registry lacks the digest that `source` names. None for a model that others push."""
    facts: ModelFacts
    runtime: ModelRuntimeSpec = ModelRuntimeSpec()
    objectives: ObjectivesSpec = ObjectivesSpec()
    load: LoadSpec | None = None
    """Without it plans know how much fits, and not how much is needed."""
    rollout: Literal["surge", "replace"] = "surge"
    """How a change reaches the replicas of a cluster. `surge` starts a new one before it stops an old one, and needs the
    GPUs of one replica free; `replace` needs none, and leaves the cluster one replica short meanwhile."""


class ModelEntry(ModelBase):
    """One model that the fleet serves, as a stack file has it. What is left out of accelerator, replicas and placement.clusters
    is chosen: docs/planning.md."""

    accelerator: AcceleratorSpec | None = None
    """What a replica runs on. Left out: the cheapest GPUs of the model's clusters that keep its objectives."""
    replicas: Replicas | None = None
    """Over all clusters together. Left out: as few as the load needs."""
    placement: PlacementEntry = PlacementEntry()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to choose."""
        return self.accelerator is not None and self.replicas is not None and bool(self.placement.clusters)


class ModelSpec(ModelBase):
    """One model that the fleet serves, with everything decided."""

    accelerator: AcceleratorSpec
    replicas: int
    placement: PlacementSpec

    def accelerator_in(self, cluster: str) -> AcceleratorSpec:
        """What a replica runs on in `cluster`."""
        for each in self.placement.clusters:
            if each.name == cluster and each.accelerator is not None:
                return each.accelerator
        return self.accelerator


class RuntimeSpec(Spec):
    """One way to run vLLM, for all models that use it."""

    image: Annotated[str, Field(min_length=1)]
    cpu: Quantity
    """CPU of one replica."""
    memory: Quantity
    """Main memory of one replica."""
    startup_seconds: Count = 1800
    """The longest that loading a model may take; after it the replica is restarted."""
    drain_seconds: Annotated[int, Field(ge=0)] = 15
    """From the order to stop until vLLM hears of it: callers stop sending in this time."""
    shutdown_seconds: Annotated[int, Field(ge=0)] = 40
    """Then requests under way may take this long to end. vLLM's own default, 0, cuts them off."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, by which the processes of one replica talk; without it the container engine's 64 MiB. What is used of
    it counts as `memory`."""

    @property
    def parser(self) -> vllm_arguments.Table:
        """What the vLLM in the image takes."""
        return parser_table(self.image, CPU_VLLM)

    @property
    def grace_seconds(self) -> int:
        """From the order to stop until the kubelet kills."""
        return self.drain_seconds + self.shutdown_seconds + _EXIT_SECONDS


class GpuRuntimeSpec(RuntimeSpec):
    """vLLM on GPUs."""

    image: Annotated[str, Field(min_length=1)] = f"vllm/vllm-openai:v{GPU_VLLM}"
    cpu: Quantity = "4"
    memory: Quantity = "32Gi"
    shared_memory: Quantity | None = "2Gi"
    """Of /dev/shm. A replica of several GPUs fails with the container engine's 64 MiB: vLLM's queue to its workers alone takes
    160 MiB."""

    @property
    def parser(self) -> vllm_arguments.Table:
        return parser_table(self.image, GPU_VLLM)


class CpuRuntimeSpec(RuntimeSpec):
    """vLLM without a GPU, for small models."""

    image: Annotated[str, Field(min_length=1)] = f"vllm/vllm-openai-cpu:v{CPU_VLLM}-x86_64"
    cpu: Quantity = "1"
    memory: Quantity = "4Gi"
    startup_seconds: Count = 600


_RUNTIME_FIELDS: dict[Variant, str] = {"gpu": "vllm", "cpu": "vllm_cpu"}


class RuntimesSpec(Spec):
    """The runtimes of the fleet."""

    image: RuntimeImageSpec | None = None
    """The runtime image of one's own. None for those that vLLM publishes, or that `image` of a runtime names."""
    vllm: GpuRuntimeSpec = GpuRuntimeSpec()
    vllm_cpu: CpuRuntimeSpec = CpuRuntimeSpec()

    @model_validator(mode="after")
    def _run_it(self) -> Self:
        """The runtimes have the image's name, without the digest, which may not be known yet."""
        if self.image is None:
            return self
        changed: dict[str, RuntimeSpec] = {}
        for variant in self.image.variants:
            name_of = _RUNTIME_FIELDS[variant]
            runtime = cast(RuntimeSpec, getattr(self, name_of))
            name = self.image.tagged(variant)
            if "image" in runtime.model_fields_set and runtime.image != name:
                rule = f"`image` gives `{to_camel(name_of)}` its image, and it names another"
                raise refuse(rule, f"leave one of them out, or `{variant}` out of `image.variants`")
            changed[name_of] = runtime.model_copy(update={"image": name})
        return self.model_copy(update=changed)

    def for_accelerator(self, accelerator: str) -> RuntimeSpec:
        return self.vllm_cpu if accelerator == CPU else self.vllm


def runtime_name(accelerator: str) -> str:
    """The ClusterServingRuntime that serves on this accelerator."""
    return labels.RUNTIME_CPU if accelerator == CPU else labels.RUNTIME_GPU


# Weights are there when the container starts, and nothing of a pod should call home.
_ENV = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HOME": _HOME,
    # PyTorch asks for the user's name, and the number has none in most images.
    "USER": "vllm",
}
# Of the GPU runtime. Without it NIXL offers the cache of a prompt at localhost, where no other pod finds it.
_GPU_ENV = {"VLLM_NIXL_SIDE_CHANNEL_HOST": "$(POD_IP)"}
# Of the CPU runtime. Measured with vLLM 0.32: the worker inside the engine's process saves an import of 4 CPU-seconds and
# 700 MB; one unbound thread leaves the cores to others. VLLM_CPU_KVCACHE_SPACE stays unset: it counts in whole GiB, touches
# them all at start, and overrides --kv-cache-memory-bytes.
_CPU_ENV = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    # Otherwise vLLM takes the machine's outer address for its queues between processes.
    "VLLM_HOST_IP": "$(POD_IP)",
}
# vLLM 0.32 in bfloat16 dies by SIGILL on processors with AMX when the first request has a prompt of one token.
_CPU_DTYPE = "float32"


def guard_files() -> dict[str, Any]:
    """The ConfigMap by which the engine guard reaches the pods. They take a new one at their next start; none is restarted."""
    source = Path(__file__).parent.parent / "runtime_image" / f"{GUARD_MODULE}.py"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": labels.metadata(GUARD, labels.NAMESPACE_MODELS, component="serving", propagate=True),
        "data": {source.name: source.read_text(encoding="utf-8")},
    }


def serving_runtime(name: str, spec: RuntimeSpec, failover: RequestFailoverSpec, image: pulumi.Input[str] | None = None) -> dict[str, Any]:
    """A ClusterServingRuntime: the same command, arguments and probes in every environment.

    KServe puts a model's own arguments after these, and its environment too.
    """
    guard = {engine_guard.STALL_SECONDS: f"{failover.stall_seconds:g}"}
    env = {**_ENV, **(_CPU_ENV if name == labels.RUNTIME_CPU else _GPU_ENV), **guard}
    volumes, mounts = _folders(spec)
    probe = {"timeoutSeconds": _PROBE_SECONDS}
    dtype = [f"--dtype={_CPU_DTYPE}"] if name == labels.RUNTIME_CPU else []
    startup_looks = -(-spec.startup_seconds // _STARTUP_PROBE_SECONDS)
    # The kubelet refuses a sleep of 0.
    drain = {"lifecycle": {"preStop": {"sleep": {"seconds": spec.drain_seconds}}}} if spec.drain_seconds else {}
    container = {
        "name": CONTAINER,
        "image": spec.image if image is None else image,
        # As `vllm serve`, but with the working folder on Python's path: there lies the guard, and KServe refuses PYTHONPATH.
        "command": ["python3", "-m", "vllm.entrypoints.cli.main", "serve"],
        "workingDir": GUARD_PATH,
        "args": [
            MODEL_PATH,
            "--served-model-name={{.Name}}",
            # The pod's own address, not all of them: on one machine every pod has an address, and the port is the same.
            "--host=$(POD_IP)",
            f"--port={PORT}",
            f"--shutdown-timeout={spec.shutdown_seconds}",
            # Or the log is mostly probes.
            f"--disable-access-log-for-endpoints={HEALTH_PATH},{READY_PATH},/metrics",
            f"--middleware={GUARD_MODULE}.{engine_guard.EngineGuard.__name__}",
            *dtype,
        ],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": key, "value": value} for key, value in env.items()),
        ],
        # Istio takes the protocol of KServe's Service from this name.
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": {**probe, **_get(HEALTH_PATH), "periodSeconds": _STARTUP_PROBE_SECONDS, "failureThreshold": startup_looks},
        # No liveness probe: an engine that died ends its process, and one that is merely busy must not be restarted.
        "readinessProbe": {**probe, **_get(READY_PATH), "periodSeconds": _PROBE_SECONDS, "failureThreshold": 2},
        **drain,
        "volumeMounts": mounts,
        "securityContext": _security(name),
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": labels.metadata(name, component="serving", propagate=True),
        "spec": {
            "supportedModelFormats": [{"name": "vLLM", "version": "1"}],
            # KServe gives every service of this format the protocol v2 and refuses a runtime that does not list it.
            "protocolVersions": ["v2", "v1"],
            "multiModel": False,
            # KServe copies these to the pods. Prometheus' own example configuration reads them; KServe's, prometheus.kserve.io,
            # act only with its metrics aggregator.
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"},
            "containers": [container],
            "volumes": volumes,
        },
    }


def _folders(spec: RuntimeSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes of a pod, and their mounts. All but the guard's are empty when a pod starts, and go with it."""
    shared = {"medium": "Memory", **({"sizeLimit": spec.shared_memory} if spec.shared_memory else {})}
    empty = [("home", _HOME, {}), ("scratch", _SCRATCH, {}), *([("shared-memory", _SHARED_MEMORY, shared)] if spec.shared_memory else [])]
    volumes = [{"name": GUARD, "configMap": {"name": GUARD}}, *({"name": name, "emptyDir": kind} for name, _, kind in empty)]
    mounts = [{"name": GUARD, "mountPath": GUARD_PATH, "readOnly": True}, *({"name": name, "mountPath": path} for name, path, _ in empty)]
    return volumes, mounts


def _security(name: str) -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _GROUP,
        # NVIDIA's container hook writes links to the driver's libraries into a GPU container before its start.
        "readOnlyRootFilesystem": name == labels.RUNTIME_CPU,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _get(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": PORT}}


def arguments(spec: ModelSpec, accelerator: AcceleratorSpec) -> list[str]:
    """Arguments of `vllm serve` for this model on this accelerator, after those of the runtime."""
    return rendered(spec.runtime, spec.facts.max_model_length, accelerator)


def revision(spec: ModelSpec, accelerator: AcceleratorSpec) -> str:
    """What the answers of a replica come from, in ten characters: the same in every cluster that answers alike.

    Not of it: what changes only speed or room, such as the number of GPUs.
    """
    length = spec.runtime.max_model_length or spec.facts.max_model_length
    decides: list[Any] = [spec.source, length, _CPU_DTYPE if accelerator.type == CPU else "auto"]
    if more := shapes_answers(spec.runtime):
        decides.append(more)
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:10]


def environment(spec: ModelSpec, accelerator: AcceleratorSpec) -> list[dict[str, Any]]:
    """What the engine guard is told of this model, as environment variables after those of the runtime."""
    capacity = spec.runtime.capacity
    told = {engine_guard.REVISION: revision(spec, accelerator), **({} if capacity is None else {engine_guard.CAPACITY: str(capacity)})}
    return [{"name": key, "value": value} for key, value in told.items()]


def resources(runtime: RuntimeSpec, accelerator: AcceleratorSpec) -> dict[str, Any]:
    """Requests equal limits: KServe's webhook fills in a limit of 1 CPU and 2 GiB where there is none."""
    amount = {"cpu": runtime.cpu, "memory": runtime.memory, **({"nvidia.com/gpu": str(accelerator.count)} if accelerator.type != CPU else {})}
    return {"requests": amount, "limits": amount}


def _depends_on_accelerator(spec: ModelSpec, runtimes: RuntimesSpec, accelerator: AcceleratorSpec) -> dict[str, Any]:
    """Every field of the InferenceService that follows from the accelerator, by JSON pointer."""
    runtime = runtimes.for_accelerator(accelerator.type)
    return {
        "/spec/predictor/nodeSelector": {labels.LABEL_ACCELERATOR: accelerator.type},
        "/spec/predictor/terminationGracePeriodSeconds": runtime.grace_seconds,
        "/spec/predictor/model/runtime": runtime_name(accelerator.type),
        "/spec/predictor/model/args": arguments(spec, accelerator),
        "/spec/predictor/model/env": environment(spec, accelerator),
        "/spec/predictor/model/resources": resources(runtime, accelerator),
    }


def cluster_overrides(spec: ModelSpec, runtimes: RuntimesSpec) -> dict[str, dict[str, Any]]:
    """Fields that differ from the base object, for each cluster with an accelerator of its own."""
    base = _depends_on_accelerator(spec, runtimes, spec.accelerator)
    changes: dict[str, dict[str, Any]] = {}
    for each in spec.placement.clusters:
        if each.accelerator is not None:
            here = _depends_on_accelerator(spec, runtimes, each.accelerator)
            different = {path: value for path, value in here.items() if value != base[path]}
            if different:
                changes[each.name] = different
    return changes


def wait_seconds(spec: ModelSpec, runtimes: RuntimesSpec) -> int:
    """How long an update waits for a model at most: a load in the slowest of its clusters."""
    types = {spec.accelerator_in(each.name).type for each in spec.placement.clusters}
    return max(runtimes.for_accelerator(each).startup_seconds for each in types) + _WAIT_MARGIN_SECONDS


def inference_service(spec: ModelSpec, runtimes: RuntimesSpec) -> dict[str, Any]:
    """The InferenceService on the hub, as `kubectl get -o yaml` shows it. Members get it with their share of replicas."""
    runtime = runtimes.for_accelerator(spec.accelerator.type)
    annotations = {
        # KServe writes Standard into an object that has another or no mode: then hub and member would differ for ever.
        "serving.kserve.io/deploymentMode": "Standard",
        # Any other class hands the number of replicas to an autoscaler, against Karmada's division.
        "serving.kserve.io/autoscalerClass": "none",
        # True when one cluster serves the present version; a region that is away holds up nothing.
        WAIT_FOR: "condition=Ready",
        TIMEOUT_SECONDS: str(wait_seconds(spec, runtimes)),
    }
    model = {
        "modelFormat": {"name": "vLLM"},
        "runtime": runtime_name(spec.accelerator.type),
        "storageUri": spec.source,
        "args": arguments(spec, spec.accelerator),
        "env": environment(spec, spec.accelerator),
        "resources": resources(runtime, spec.accelerator),
    }
    surge = {"maxSurge": 1, "maxUnavailable": 0} if spec.rollout == "surge" else {"maxSurge": 0, "maxUnavailable": 1}
    return {
        **INFERENCE_SERVICE,
        "metadata": labels.metadata(
            spec.name,
            labels.NAMESPACE_MODELS,
            component="serving",
            model=spec.name,
            extra={
                # No Ingress of KServe's own: the regional gateway leads to the predictor's Service.
                "networking.kserve.io/visibility": "cluster-local",
                **({labels.LABEL_FETCHES: "true"} if spec.source.startswith(_FETCHED) else {}),
            },
            annotations=annotations,
        ),
        "spec": {
            "predictor": {
                "minReplicas": spec.replicas,
                "maxReplicas": spec.replicas,
                "nodeSelector": {labels.LABEL_ACCELERATOR: spec.accelerator.type},
                "terminationGracePeriodSeconds": runtime.grace_seconds,
                "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": surge},
                "model": model,
            }
        },
    }


@dataclass(frozen=True, kw_only=True)
class RuntimesArgs:
    spec: RuntimesSpec
    failover: RequestFailoverSpec
    # Of one's own, by digest.
    images: Mapping[Variant, pulumi.Input[str]] = field(default_factory=dict[Variant, pulumi.Input[str]])


class Runtimes(pulumi.ComponentResource):
    """The vLLM runtimes and the engine guard that they run, on the hub for every member. Models depend on `objects`."""

    def __init__(self, name: str, args: RuntimesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:serving:Runtimes", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        files = guard_files()
        self.objects: list[pulumi.Resource] = [ConfigMap(f"{name}-{GUARD}", metadata=files["metadata"], data=files["data"], opts=child)]
        runtimes: tuple[tuple[str, RuntimeSpec, Variant], ...] = (
            (labels.RUNTIME_GPU, args.spec.vllm, "gpu"),
            (labels.RUNTIME_CPU, args.spec.vllm_cpu, "cpu"),
        )
        self.objects += [
            hub_object(f"{name}-{key}", serving_runtime(key, spec, args.failover, args.images.get(variant)), child) for key, spec, variant in runtimes
        ]
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class ModelStoreArgs:
    cluster: str
    owner: pulumi.Resource | None


class ModelStore(pulumi.ComponentResource):
    """The claim `model-store` of a local cluster, seeded with the small model. `models` lists what it holds."""

    models: pulumi.Output[list[str]]

    def __init__(self, name: str, args: ModelStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:serving:ModelStore", name, None, opts)
        command = driver_command(f"{name}-seed", "model-store", {"cluster": args.cluster}, inside(self, args.owner))
        self.seeded = command
        self.models = result(command, "models", default=[])
        self.register_outputs({"models": self.models})


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    spec: ModelSpec
    runtimes: RuntimesSpec
    # What must stand before: policies, interpreter, runtimes, members. An InferenceService that comes before its
    # interpreter goes whole to every cluster.
    requires: list[pulumi.Resource]


class Model(pulumi.ComponentResource):
    """One model, served. `service` is its InferenceService on the hub, ready when the update goes on."""

    def __init__(self, name: str, args: ModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:serving:Model", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, depends_on=args.requires)
        self.service = hub_object(f"{name}-isvc", inference_service(args.spec, args.runtimes), child)
        self.register_outputs({})
