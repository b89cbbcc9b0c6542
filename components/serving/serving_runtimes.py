"""The vLLM runtimes: one ClusterServingRuntime for GPUs and one for CPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi

from components.federation.hub_objects import hub_object
from runtime_image import engine_guard
from specs import labels
from specs.accelerators import CPU
from specs.failover import RequestFailoverSpec
from specs.runtime_image import Variant
from specs.runtimes import RuntimeSpec, RuntimesSpec
from specs.serving_arguments import MODEL_PATH

# Where vLLM listens in its pod. The runtimes, the probes and KServe's Service share it.
PORT = 8080
HEALTH_PATH = engine_guard.HEALTH_PATH
# True only while the engine computes, or has nothing to compute. The active health checks of the front doors ask for it too.
READY_PATH = engine_guard.READY_PATH
# ConfigMap with the engine watchdog, the module in it, and where pods find it: a folder of Python's path.
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
CPU_DTYPE = "float32"


def guard_files() -> dict[str, Any]:
    """The ConfigMap by which the engine watchdog reaches the pods. They take a new one at their next start; none is restarted."""
    source = Path(__file__).parents[2] / "runtime_image" / f"{GUARD_MODULE}.py"
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
    dtype = [f"--dtype={CPU_DTYPE}"] if name == labels.RUNTIME_CPU else []
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


@dataclass(frozen=True, kw_only=True)
class RuntimesArgs:
    spec: RuntimesSpec
    failover: RequestFailoverSpec
    # Of one's own, by digest.
    images: Mapping[Variant, pulumi.Input[str]] = field(default_factory=dict[Variant, pulumi.Input[str]])


class Runtimes(pulumi.ComponentResource):
    """The vLLM runtimes and the engine watchdog that they run, on the hub for every member. Models depend on `objects`."""

    def __init__(self, name: str, args: RuntimesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:serving:Runtimes", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.objects: list[pulumi.Resource] = [hub_object(f"{name}-{GUARD}", guard_files(), child)]
        runtimes: tuple[tuple[str, RuntimeSpec, Variant], ...] = (
            (labels.RUNTIME_GPU, args.spec.vllm, "gpu"),
            (labels.RUNTIME_CPU, args.spec.vllm_cpu, "cpu"),
        )
        self.objects += [
            hub_object(f"{name}-{key}", serving_runtime(key, spec, args.failover, args.images.get(variant)), child) for key, spec, variant in runtimes
        ]
        self.register_outputs({})
