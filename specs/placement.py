"""In which clusters a model may and does run."""

from typing import Annotated, Literal

from pydantic import Field

from specs.base import Spec
from specs.failover import CapacityFailoverSpec
from specs.gpu_pools import AcceleratorSpec, GpuType
from specs.types import ClusterName, Jurisdiction, LatencyClass


class PlacementClusterSpec(Spec):
    """One cluster that serves a model."""

    name: ClusterName
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Share of the replicas, relative to the other clusters of the model."""
    accelerator: AcceleratorSpec | None = None
    """GPU type and count here, where they differ from the model's own."""


class PlacementBase(Spec):
    """Where a model may run, and what of it must be left after a loss."""

    jurisdictions: tuple[Jurisdiction, ...] = ()
    """Where the model may run at all; empty for anywhere. A cluster outside is an error, not a silent omission."""
    latency_class: LatencyClass | None = None
    """The farthest from callers that its clusters may be: `interactive` admits interactive clusters alone, `standard` those and
    standard ones. Left out, or `batch`: any."""
    accelerators: tuple[GpuType, ...] = ()
    """GPU types that it may run on; empty for any."""
    gpu_memory_gib: Annotated[Annotated[float, Field(gt=0)] | None, Field(alias="gpuMemoryGiB")] = None
    """The least memory of a GPU that it may run on."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that its clusters must have, e.g. `compliance: hipaa`."""
    dollars_per_gpu_hour: Annotated[float, Field(gt=0)] | None = None
    """The most that a GPU of it may cost, by the prices of the plan."""
    minimum_clusters: Annotated[int, Field(ge=1)] = 2
    """Clusters that must hold a replica, in two regions or more if it is above 1: the partner for a failover.
    1 accepts that the model is away while its region is."""
    standby: Literal["hot", "warm", "cold"] | None = None
    """What is ready for the loss of a region. `hot`: replicas that run elsewhere answer the whole load. `warm`: nodes that run
    have free capacity for the lost replicas. `cold`: an autoscaler may add nodes until they have. Only the planner's choice follows it."""
    failover_order: tuple[ClusterName, ...] = ()
    """Where requests go when the region of a front door cannot serve them, one after another. Clusters left out follow in the
    order of `clusters`."""
    evict_after_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a lost cluster keeps the replicas of this model, instead of `failover.capacity.evictAfterSeconds`. A model that
    takes minutes to load should wait longer than a small one."""

    def evict_after(self, failover: CapacityFailoverSpec) -> int:
        """How long a lost cluster keeps the replicas, in seconds."""
        return failover.evict_after_seconds if self.evict_after_seconds is None else self.evict_after_seconds


class PlacementEntry(PlacementBase):
    """Which clusters may and do serve a model, as a stack file has it."""

    clusters: tuple[PlacementClusterSpec, ...] = ()
    """Left out: the cheapest of those where it may run, with the weights that divide its replicas best."""


class PlacementSpec(PlacementBase):
    """Which clusters may and do serve a model."""

    clusters: tuple[PlacementClusterSpec, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """Every cluster of the placement, in failover order."""
        weights = self.weights
        return tuple(dict.fromkeys(name for name in (*self.failover_order, *weights) if name in weights))

    @property
    def weights(self) -> dict[str, int]:
        return {each.name: each.weight for each in self.clusters}
