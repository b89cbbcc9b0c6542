"""The pods that a stack's objects become, as rules see them: a pod spec, and whose it is.

An InferenceService of KServe is a pod only together with its runtime: the runtime's container with the model's own fields over
it, which is how KServe merges them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.declared import Object, Placed, Stack, at, items, mapping, mappings, text

# Where pod templates lie in the kinds that make pods, and whether such a pod answers requests if it runs vLLM: a worker of a
# group computes for its leader.
_TEMPLATES: Mapping[str, Mapping[str, bool]] = {
    "Pod": {"spec": True},
    "PodTemplate": {"template.spec": True},
    **{kind: {"spec.template.spec": True} for kind in ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job")},
    "CronJob": {"spec.jobTemplate.spec.template.spec": True},
    "LeaderWorkerSet": {"spec.leaderWorkerTemplate.leaderTemplate.spec": True, "spec.leaderWorkerTemplate.workerTemplate.spec": False},
    "LLMInferenceService": {
        "spec.template": True,
        "spec.worker": False,
        "spec.prefill.template": True,
        "spec.prefill.worker": False,
        "spec.router.scheduler.template": False,
    },
}
_COMPONENTS = ("predictor", "transformer", "explainer")
# Where a component says what it serves: KServe's own frameworks are the older way.
_MODELS = ("model", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton", "xgboost")
# The cluster's own last: KServe takes the namespace's first.
_RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")
# KServe's name of the container that it merges with a model's own fields.
_SERVING_CONTAINER = "kserve-container"
# Fields of a model that are not the container's.
_MODEL_ONLY = ("modelFormat", "runtime", "runtimeVersion", "storageUri", "storage", "protocolVersion")
# Lists of a runtime's container that a model's go behind; all others take their place.
_JOINED = ("args", "env", "volumeMounts")
# Fields of a pod that a runtime has too.
_OF_RUNTIME = ("hostIPC",)
# Fields of a security context that a pod has for all its containers. Any other is dropped there by Kubernetes.
_OF_PODS = ("appArmorProfile", "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile", "seLinuxOptions")
GPUS = ("nvidia.com/gpu", "amd.com/gpu")
"""Whole GPUs, as device plugins name them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pod:
    """A pod that an object becomes."""

    owner: Placed
    spec: Object
    serves: bool
    """Whether it answers requests for a model."""

    @property
    def containers(self) -> list[Object]:
        """Containers that stay, sidecars too."""
        sidecars = [each for each in mappings(self.spec.get("initContainers")) if each.get("restartPolicy") == "Always"]
        return [*mappings(self.spec.get("containers")), *sidecars]

    @property
    def every(self) -> list[Object]:
        """Those that end before the others begin, too."""
        return [*mappings(self.spec.get("initContainers")), *mappings(self.spec.get("containers"))]

    @property
    def answering(self) -> Object:
        """The container that answers requests."""
        named = [each for each in self.containers if each.get("name") == _SERVING_CONTAINER]
        return next(iter([*named, *filter(is_vllm, self.containers), *self.containers]), {})

    @property
    def images(self) -> Iterator[tuple[str, str]]:
        """Every image that the pod pulls, each with what pulls it."""
        for each in self.every:
            yield f"container `{name_of(each)}`", text(each.get("image"))
        for each in mappings(self.spec.get("volumes")):
            yield f"volume `{each.get('name')}`", text(at(each, "image", "reference"))

    def security(self, container: Object, field: str) -> Any:
        """A field of the security context: the container's own, else the pod's."""
        own = at(container, "securityContext", field)
        return at(self.spec, "securityContext", field) if own is None and field in _OF_PODS else own


def pods(stack: Stack) -> Iterator[Pod]:
    """Every pod that an object of the stack becomes, also as clusters get it where an override changes it."""
    for each in stack.placed(*_TEMPLATES):
        for path, may_serve in _TEMPLATES[each.kind].items():
            spec = mapping(at(each.body, *path.split(".")))
            if mappings(spec.get("containers")):
                serves = may_serve and (each.kind == "LLMInferenceService" or any(map(is_vllm, mappings(spec.get("containers")))))
                yield Pod(owner=each, spec=spec, serves=serves)
    runtimes = sorted(stack.of_kind(*_RUNTIMES), key=lambda each: _RUNTIMES.index(each.kind))
    changing = [variant.cluster for each in runtimes for variant in stack.changed(each)]
    for each in stack.of_kind("InferenceService"):
        yield from _inference(each, runtimes)
        for cluster in dict.fromkeys([*(variant.cluster for variant in stack.changed(each)), *changing]):
            yield from _inference(stack.in_cluster(each, cluster), [stack.in_cluster(runtime, cluster) for runtime in runtimes])


def _inference(service: Placed, runtimes: Sequence[Placed]) -> Iterator[Pod]:
    for component in _COMPONENTS:
        spec = mapping(at(service.body, "spec", component))
        if not spec:
            continue
        model = next((mapping(spec[key]) for key in _MODELS if spec.get(key)), {})
        name = text(model.get("runtime"))
        found = [each for each in runtimes if each.name == name and each.namespace in ("", service.namespace)]
        runtime = mapping(found[0].body.get("spec")) if found else {}
        yield Pod(owner=service, spec=_merged(spec, model, runtime), serves=component == "predictor")
        if "workerSpec" in spec:
            # Of a group of nodes: the model's own fields are the leader's alone.
            yield Pod(owner=service, spec=_merged(mapping(spec["workerSpec"]), {}, mapping(runtime.get("workerSpec"))), serves=False)


def is_vllm(container: Object) -> bool:
    """Whether the container starts vLLM."""
    words = " ".join(text(each) for each in [*items(container.get("command")), *items(container.get("args"))])
    return "vllm" in words or "vllm" in text(container.get("image")).rsplit("/", 1)[-1]


def artifacts(stack: Stack) -> Iterator[tuple[Placed, str]]:
    """Addresses of weights, each with the object that names it."""
    for each in stack.placed("InferenceService"):
        for part in (mapping(at(each.body, "spec", component)) for component in _COMPONENTS):
            yield from ((each, text(at(part, key, "storageUri"))) for key in _MODELS)
            yield from ((each, text(uri.get("uri"))) for uri in mappings(part.get("storageUris")))
    for each in stack.placed("LLMInferenceService"):
        yield each, text(at(each.body, "spec", "model", "uri"))
        yield from ((each, text(adapter.get("uri"))) for adapter in mappings(at(each.body, "spec", "model", "lora", "adapters")))
    for each in stack.placed("LocalModelCache", "LocalModelNamespaceCache"):
        yield each, text(at(each.body, "spec", "sourceModelUri"))


def _merged(component: Object, model: Object, runtime: Object) -> Object:
    """The pod of a component: its own fields, and the runtime's containers with the fields of model and component over them."""
    spec = {key: value for key, value in component.items() if key not in _MODELS}
    inherited = {key: runtime[key] for key in _OF_RUNTIME if key in runtime}
    own = {text(each.get("name")): each for each in mappings(spec.get("containers"))}
    if model:
        fields = {key: value for key, value in model.items() if key not in _MODEL_ONLY}
        own = {_SERVING_CONTAINER: {**fields, "name": _SERVING_CONTAINER}, **own}
    held = {text(each.get("name")): each for each in mappings(runtime.get("containers"))}
    containers = [_over(held.get(name, {}), own.get(name, {})) for name in {**own, **held}]
    return {**inherited, **spec, "volumes": [*items(runtime.get("volumes")), *items(spec.get("volumes"))], "containers": containers}


def _over(base: Object, own: Object) -> Object:
    """A container's fields over another's, as KServe merges them."""
    merged = {**base, **own}
    for key in base.keys() & own.keys():
        if isinstance(base[key], dict) and isinstance(own[key], dict):
            merged[key] = _over(base[key], own[key])
        elif key in _JOINED:
            merged[key] = [*items(base[key]), *items(own[key])]
    return merged


def name_of(container: Object) -> str:
    return text(container.get("name")) or "unnamed"


def devices(container: Object, field: str) -> Object:
    """What the container asks for of its node's devices, such as GPUs and their slices, in `requests` or `limits`: by name, and
    without those of which it asks for none."""
    asked = {name: _whole(each) for name, each in mapping(at(container, "resources", field)).items() if "/" in name}
    return {name: each for name, each in asked.items() if each}


def gpus(container: Object) -> int | None:
    """Whole GPUs that the container gets; None where it asks for none."""
    limits = devices(container, "limits")
    return next((limits[name] for name in GPUS if isinstance(limits.get(name), int)), None)


def _whole(value: Any) -> Any:
    """The engine makes every number a fraction, and a person may write a number or a text."""
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
