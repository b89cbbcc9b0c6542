"""The vLLM runtimes: image, resources and times."""

from typing import Annotated, Self, cast

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from runtime_image import vllm_arguments
from specs.accelerators import CPU
from specs.base import Spec, refuse
from specs.runtime_image import RuntimeImageSpec, Variant
from specs.serving_arguments import Count, parser_table
from toolchain.pins import PINS

# After the drain: time for the engine to end its processes before the kubelet kills them.
_EXIT_SECONDS = 5

# A Kubernetes quantity, e.g. `500m`, `3Gi`.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


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
    """Delay between pod termination and SIGTERM to vLLM (preStop): gateways stop sending requests in this time."""
    shutdown_seconds: Annotated[int, Field(ge=0)] = 40
    """Then requests under way may take this long to end. vLLM's own default, 0, cuts them off."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, by which the processes of one replica talk; without it the container engine's 64 MiB. What is used of
    it counts as `memory`."""

    @property
    def parser(self) -> vllm_arguments.Table:
        """What the vLLM in the image takes."""
        return parser_table(self.image, PINS.vllm)

    @property
    def grace_seconds(self) -> int:
        """From pod termination until the kubelet sends SIGKILL."""
        return self.drain_seconds + self.shutdown_seconds + _EXIT_SECONDS


class GpuRuntimeSpec(RuntimeSpec):
    """vLLM on GPUs."""

    image: Annotated[str, Field(min_length=1)] = f"vllm/vllm-openai:v{PINS.vllm_gpu}"
    cpu: Quantity = "4"
    memory: Quantity = "32Gi"
    shared_memory: Quantity | None = "2Gi"
    """Of /dev/shm. A replica of several GPUs fails with the container engine's 64 MiB: vLLM's queue to its workers alone takes
    160 MiB."""

    @property
    def parser(self) -> vllm_arguments.Table:
        return parser_table(self.image, PINS.vllm_gpu)


class CpuRuntimeSpec(RuntimeSpec):
    """vLLM without a GPU, for small models."""

    image: Annotated[str, Field(min_length=1)] = f"vllm/vllm-openai-cpu:v{PINS.vllm}-x86_64"
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
