"""Serving: the vLLM runtimes, and one InferenceService per model on the hub.

A model's own arguments are serving_arguments.py. Where copies run is placement.py; how callers reach them is mesh.py. KServe
on the members makes Deployments of them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pulumi

from components.federation.hub_objects import hub_object
from components.federation.placement import TIMEOUT_SECONDS, WAIT_FOR
from components.serving.serving_runtimes import CPU_DTYPE, runtime_name
from runtime_image import engine_guard
from specs import labels
from specs.accelerators import CPU
from specs.gpu_pools import AcceleratorSpec, TaintSpec
from specs.models import ModelSpec
from specs.propagation import INFERENCE_SERVICE
from specs.runtimes import RuntimeSpec, RuntimesSpec
from specs.serving_arguments import rendered, shapes_answers

# Added to startupSeconds when waiting for a model: scheduling, pull of the image, the way of status through Karmada.
_WAIT_MARGIN_SECONDS = 120

# KServe fetches these in a container of the pod. Images are pulled by the node, claims are there.
_FETCHED = ("hf://", "s3://")


# The taint that GPU nodes carry nearly everywhere, with any value or none: by GKE itself, elsewhere by habit.
_GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}


def arguments(spec: ModelSpec, accelerator: AcceleratorSpec) -> list[str]:
    """Arguments of `vllm serve` for this model on this accelerator, after those of the runtime."""
    return rendered(spec.runtime, spec.facts.max_model_length, accelerator)


def revision(spec: ModelSpec, accelerator: AcceleratorSpec) -> str:
    """What the answers of a replica come from, in ten characters: the same in every cluster that answers alike.

    Not of it: what changes only speed or room, such as the number of GPUs.
    """
    length = spec.runtime.max_model_length or spec.facts.max_model_length
    decides: list[Any] = [spec.source, length, CPU_DTYPE if accelerator.type == CPU else "auto"]
    if more := shapes_answers(spec.runtime):
        decides.append(more)
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:10]


def environment(spec: ModelSpec, accelerator: AcceleratorSpec) -> list[dict[str, Any]]:
    """What the engine watchdog is told of this model, as environment variables after those of the runtime."""
    capacity = spec.runtime.capacity
    told = {engine_guard.REVISION: revision(spec, accelerator), **({} if capacity is None else {engine_guard.CAPACITY: str(capacity)})}
    return [{"name": key, "value": value} for key, value in told.items()]


def resources(runtime: RuntimeSpec, accelerator: AcceleratorSpec) -> dict[str, Any]:
    """Requests equal limits: KServe's webhook fills in a limit of 1 CPU and 2 GiB where there is none."""
    amount = {"cpu": runtime.cpu, "memory": runtime.memory, **({"nvidia.com/gpu": str(accelerator.count)} if accelerator.type != CPU else {})}
    return {"requests": amount, "limits": amount}


def tolerations(taints: Iterable[TaintSpec]) -> list[dict[str, Any]]:
    """Of pods on GPU nodes that carry `taints`."""
    own = [each for each in taints if (each.key, each.effect) != (_GPU_TAINT["key"], _GPU_TAINT["effect"])]
    return [{**_GPU_TAINT, "operator": "Exists"}, *map(_toleration, own)]


def _toleration(taint: TaintSpec) -> dict[str, Any]:
    matches = {"operator": "Equal", "value": taint.value} if taint.value else {"operator": "Exists"}
    return {"key": taint.key, **matches, "effect": taint.effect}


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


def cluster_overrides(spec: ModelSpec, runtimes: RuntimesSpec, taints: Mapping[str, Sequence[TaintSpec]] = MappingProxyType({})) -> dict[str, dict[str, Any]]:
    """Fields that differ from the base object, for each cluster with an accelerator of its own, or with more taints than usual.

    `taints`: by cluster, those on the nodes of this model. They differ by cluster, so that a new cluster restarts no pod in others.
    """
    base = _depends_on_accelerator(spec, runtimes, spec.accelerator)
    changes: dict[str, dict[str, Any]] = {}
    for each in spec.placement.clusters:
        here = base if each.accelerator is None else _depends_on_accelerator(spec, runtimes, each.accelerator)
        different = {path: value for path, value in here.items() if value != base[path]}
        if (tolerated := tolerations(taints.get(each.name, ()))) != tolerations(()):
            different["/spec/predictor/tolerations"] = tolerated
        if different:
            changes[each.name] = different
    return changes


def _on_gpus(spec: ModelSpec) -> bool:
    """Whether a cluster serves the model on GPUs."""
    return any(spec.accelerator_in(each.name).type != CPU for each in spec.placement.clusters)


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
        **INFERENCE_SERVICE.selector,
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
                **({"tolerations": tolerations(())} if _on_gpus(spec) else {}),
                "terminationGracePeriodSeconds": runtime.grace_seconds,
                "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": surge},
                "model": model,
            }
        },
    }


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
