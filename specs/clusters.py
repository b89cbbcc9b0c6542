"""The hub and the members, as a stack file describes them."""

from pydantic import Field

from specs.base import Spec
from specs.drivers import ClusterDriver
from specs.gpu_pools import AcceleratorType, GpuPoolSpec, TaintSpec
from specs.types import ClusterName, Jurisdiction, LatencyClass, Locality


class HubSpec(Spec):
    """The cluster that holds Karmada. It runs no model and is not on the request path."""

    name: ClusterName = "hub"
    driver: ClusterDriver
    protect: bool = False
    """Refuse to delete it, until this is taken out and applied."""


class ClusterSpec(Spec):
    """A member cluster: where models run."""

    name: ClusterName
    driver: ClusterDriver
    region: Locality
    """Region as callers know it. Clusters of one region fail together, and share its load."""
    zone: Locality | None = None
    provider: Locality | None = None
    """Cloud or site, e.g. `aws`. Karmada can choose clusters by it."""
    jurisdiction: Jurisdiction | None = None
    """Law that governs data in this cluster. A model with `jurisdictions` goes only where this is among them."""
    latency_class: LatencyClass = "standard"
    """How near it is to callers, by the team's own measure: someone waits for every token, for an answer, or for nothing. A model
    with a `latencyClass` goes only where this is as near, or nearer."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels of Karmada's Cluster object."""
    gpu_pools: tuple[GpuPoolSpec, ...] = ()
    protect: bool = False
    """Refuse to delete a cluster that this program makes, until this is taken out and applied."""

    def taints(self, accelerator: AcceleratorType) -> tuple[TaintSpec, ...]:
        """Taints on the nodes with this accelerator, of all pools together."""
        return tuple(dict.fromkeys(taint for pool in self.gpu_pools if pool.accelerator == accelerator for taint in self.driver.taints(pool)))
