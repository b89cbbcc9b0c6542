"""GPU pools: nodes of one GPU type in a cluster, and what one replica of a model runs on."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from specs.accelerators import ACCELERATORS, CPU
from specs.base import Name, Spec, checked, closest, refuse

CapacityType = Literal["reserved", "spot", "on-demand"]


# Key of a label or a taint: an optional DNS name and a slash, then a name.
_QUALIFIED = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"


def _known_gpu(value: str) -> str:
    if value not in ACCELERATORS:
        raise refuse("must be a known GPU type", closest(value, ACCELERATORS))
    return value


def _known_accelerator(value: str) -> str:
    if value != CPU and value not in ACCELERATORS:
        raise refuse(f"must be a known GPU type or `{CPU}`", closest(value, [*ACCELERATORS, CPU]))
    return value


GpuType = Annotated[str, AfterValidator(_known_gpu), Field(json_schema_extra={"enum": list(ACCELERATORS)})]
AcceleratorType = Annotated[str, AfterValidator(_known_accelerator), Field(json_schema_extra={"enum": [CPU, *ACCELERATORS]})]


class AcceleratorSpec(Spec):
    """What one replica of a model runs on."""

    type: AcceleratorType
    """GPU type, or `cpu` for the CPU runtime."""
    count: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs of one replica, all in one node: as many as its tensor parallel size times its pipeline
    parallel size. 1 for `cpu`."""

    @model_validator(mode="after")
    def _cpu_is_one(self) -> Self:
        if self.type == CPU and self.count != 1:
            raise refuse(f"`count` must be 1 on `{CPU}`, got `{self.count}`", "leave it out")
        return self


class TaintSpec(Spec):
    """A taint on the nodes of a GPU pool. Models of the pool's GPU type tolerate it; other pods stay away."""

    key: Annotated[str, *checked(_QUALIFIED, 317, "must be a key such as `nvidia.com/gpu`", "Kubernetes takes no more")]
    value: Annotated[str, *checked(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", 63, "must be a value of a label", "Kubernetes takes no more")] = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class GpuPoolSpec(Spec):
    """Nodes of one GPU type. Either a fixed number of them, or bounds for an autoscaler."""

    name: Name
    accelerator: GpuType
    gpus_per_node: Annotated[int, Field(ge=1, le=16)]
    nodes: Annotated[int, Field(ge=0)] | None = None
    """A fixed number of nodes. Either this, or minNodes and maxNodes."""
    min_nodes: Annotated[int, Field(ge=0)] | None = None
    max_nodes: Annotated[int, Field(ge=1)] | None = None
    capacity_types: Annotated[tuple[CapacityType, ...], Field(min_length=1)] = ("on-demand",)
    """How nodes are bought, in order: the first that is available. `reserved` is paid already, `spot` may be taken away. The plan
    counts and prices the first."""
    taints: tuple[TaintSpec, ...] = ()
    """Taints on its nodes, beyond those that the driver adds. Models on GPUs tolerate `nvidia.com/gpu` in any case."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        bounds = (self.min_nodes, self.max_nodes)
        if self.nodes is None and None in bounds:
            raise refuse("needs either `nodes`, or `minNodes` and `maxNodes`")
        if self.nodes is not None and bounds != (None, None):
            raise refuse("must not have both `nodes` and bounds", "leave out `nodes`, or `minNodes` and `maxNodes`")
        if self.min_nodes is not None and self.max_nodes is not None and self.min_nodes > self.max_nodes:
            raise refuse(f"`minNodes` must not exceed `maxNodes`: `{self.min_nodes}` and `{self.max_nodes}`")
        return self

    @property
    def most_nodes(self) -> int:
        """Nodes at the pool's largest. What is planned with: an autoscaler adds them when they are asked for."""
        return self.nodes if self.nodes is not None else self.max_nodes or 0

    @property
    def least_nodes(self) -> int:
        """Nodes that run whether they are used or not."""
        return self.nodes if self.nodes is not None else self.min_nodes or 0

    @property
    def gpus(self) -> int:
        return self.most_nodes * self.gpus_per_node
