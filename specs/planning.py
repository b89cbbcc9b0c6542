"""What a stack file says to the planner: prices, measured speeds, how full replicas may be. It declares no resource.

What is computed with it is fleet_plan.py.
"""

import datetime as dt
from typing import Annotated

from pydantic import Field

from specs.accelerators import canonical
from specs.base import Spec
from specs.clusters import ClusterSpec
from specs.gpu_pools import CapacityType, GpuPoolSpec, GpuType
from specs.types import Locality

Share = Annotated[float, Field(gt=0, le=1)]


class PriceSpec(Spec):
    """What a GPU costs this team. It comes before the catalogue's price."""

    accelerator: GpuType
    dollars_per_gpu_hour: Annotated[float, Field(ge=0)]
    """One GPU of a node, with its part of the machine."""
    provider: Locality | None = None
    """Provider this price applies to. Default: all."""
    region: Locality | None = None
    """Region this price applies to. Default: all."""
    capacity_type: CapacityType = "on-demand"
    date: dt.date
    """Date of the price, e.g. `2026-11-01`: plans warn of prices older than half a year."""


class CalibrationSpec(Spec):
    """Measured share of a GPU's peak performance. `fleet plan --bench FILE` prints entries to copy."""

    accelerator: GpuType
    model: str | None = None
    """The model that was measured. Default: all models."""
    memory: Share
    """Fraction of peak memory bandwidth reached during decode."""
    compute: Share
    """Fraction of peak FLOP/s reached during prefill."""
    source: Annotated[str, Field(min_length=1)]
    """What was measured, and when."""


class QuotaSpec(Spec):
    """How many GPUs a cloud account may have: what its pools can grow to, all together. Of a lost region they still count."""

    accelerator: GpuType
    gpus: Annotated[int, Field(ge=0)]
    provider: Locality
    """Provider this quota applies to."""
    region: Locality | None = None
    """Region this quota applies to. Default: all regions of the provider together."""
    capacity_type: CapacityType | None = None
    """Capacity type this quota applies to, by the first type of a pool. Default: all."""

    def covers(self, cluster: ClusterSpec) -> bool:
        return cluster.provider == self.provider and self.region in (cluster.region, None)

    def binds(self, cluster: ClusterSpec, pool: GpuPoolSpec) -> bool:
        same = canonical(pool.accelerator) == canonical(self.accelerator) and self.capacity_type in (pool.capacity_types[0], None)
        return same and self.covers(cluster)

    def __str__(self) -> str:
        words = (str(self.gpus), self.capacity_type, self.accelerator, "in", self.provider, self.region)
        return " ".join(word for word in words if word)


class PlanningSpec(Spec):
    """Numbers for plans. They change what is deployed only where the planner chooses."""

    prices: tuple[PriceSpec, ...] = ()
    calibration: tuple[CalibrationSpec, ...] = ()
    quotas: tuple[QuotaSpec, ...] = ()
    target_load: Share = 0.7
    """How full a replica is planned: the rest is for bursts, and for requests that are longer than the mean."""
    move_above_percent: Annotated[float, Field(ge=0, lt=100)] = 10.0
    """By how much another place must be cheaper before a model that has one is moved."""
