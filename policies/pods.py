"""The pods that a stack's objects become, as rules see them: a pod spec, and whose it is.

An InferenceService of KServe is a pod only together with its runtime: the runtime's container with the model's own fields over
it, which is how KServe merges them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.declared import Object, Placed, Stack, at, items, mapping, mappings, text

# Where the pod template lies in the kinds of Kubernetes that make pods.
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "Deployment": ("spec", "template", "spec"),
    "ReplicaSet": ("spec", "template", "spec"),
    "StatefulSet": ("spec", "template", "spec"),
    "DaemonSet": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    "LLMInferenceService": ("spec", "template"),
}
_COMPONENTS = ("predictor", "transformer", "explainer")
_RUNTIMES = ("ClusterServingRuntime", "ServingRuntime")
# KServe's name of the container that it merges with a model's own fields.
_SERVING_CONTAINER = "kserve-container"
# Fields of a model that are not the container's.
_MODEL_ONLY = ("modelFormat", "runtime", "runtimeVersion", "storageUri", "storage", "protocolVersion")
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pod:
    """A pod that an object becomes."""

    owner: Placed
    spec: Object
    serves: bool
    """Whether it answers requests for a model."""

    @property
    def containers(self) -> list[Object]:
        """Containers that stay; those that end before are `initial`."""
        return mappings(self.spec.get("containers"))

    @property
    def initial(self) -> list[Object]:
        return mappings(self.spec.get("initContainers"))

    @property
    def every(self) -> list[Object]:
        return [*self.initial, *self.containers]

    def security(self, container: Object, field: str) -> Any:
        """A field of the security context: the container's own, else the pod's."""
        own = mapping(container.get("securityContext"))
        return own[field] if field in own else at(self.spec, "securityContext", field)


def pods(stack: Stack) -> Iterator[Pod]:
    """Every pod that the stack's objects become, also as clusters get it where an override changes it."""
    for each in stack.placed(*_TEMPLATES):
        spec = mapping(at(each.body, *_TEMPLATES[each.kind]))
        if spec.get("containers"):
            yield Pod(owner=each, spec=spec, serves=each.kind == "LLMInferenceService" or any(is_vllm(c) for c in mappings(spec.get("containers"))))
    for each in stack.placed("InferenceService"):
        for component in _COMPONENTS:
            spec = mapping(at(each.body, "spec", component))
            if spec:
                yield Pod(owner=each, spec=_merged(stack, each, spec), serves=component == "predictor")


def is_vllm(container: Object) -> bool:
    """Whether the container starts vLLM."""
    words = " ".join(text(each) for each in [*items(container.get("command")), *items(container.get("args"))])
    return "vllm" in words or "vllm" in text(container.get("image")).rsplit("/", 1)[-1]


def _merged(stack: Stack, service: Placed, component: Object) -> Object:
    model = mapping(component.get("model"))
    spec = {key: value for key, value in component.items() if key != "model"}
    if not model:
        return spec
    runtime = _runtime(stack, service, text(model.get("runtime")))
    own = {key: value for key, value in model.items() if key not in _MODEL_ONLY}
    containers = mappings(runtime.get("containers"))
    base = next((each for each in containers if each.get("name") == _SERVING_CONTAINER), {"name": _SERVING_CONTAINER})
    serving = {**base, **own, **{key: [*items(base.get(key)), *items(own.get(key))] for key in ("args", "env", "volumeMounts") if key in base or key in own}}
    others = [each for each in containers if each is not base]
    inherited = {key: value for key, value in runtime.items() if key in ("securityContext", "hostNetwork", "hostPID", "hostIPC", "serviceAccountName")}
    volumes = [*items(runtime.get("volumes")), *items(spec.get("volumes"))]
    return {**inherited, **spec, "volumes": volumes, "containers": [serving, *others, *mappings(spec.get("containers"))]}


def _runtime(stack: Stack, service: Placed, name: str) -> Object:
    """The spec of the runtime that serves; {} for one that the stack does not declare."""
    found = [each for each in stack.of_kind(*_RUNTIMES) if each.name == name and each.namespace in ("", service.namespace)]
    if not found:
        return {}
    runtime = found[-1]
    return mapping((stack.in_cluster(runtime, service.cluster) if service.cluster else runtime).body.get("spec"))


def name_of(container: Object) -> str:
    return text(container.get("name")) or "unnamed"


def gpus(container: Object, field: str) -> Any:
    """GPUs that the container asks for in `requests` or `limits`; None where it asks for none."""
    return at(container, "resources", field, GPU)
