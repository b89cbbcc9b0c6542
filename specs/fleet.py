"""The root of a stack file: everything below `fleet:spec`. Plain data; rules.py checks it, fleet.py declares it."""

from functools import cached_property
from typing import Annotated

from pydantic import Field

from specs.base import Spec
from specs.callers import FrontDoorsSpec
from specs.clusters import ClusterSpec, HubSpec
from specs.failover import FailoverSpec
from specs.models import ModelEntry, ModelSpec
from specs.network_policies import NetworkPoliciesSpec
from specs.planning import PlanningSpec
from specs.runtimes import RuntimesSpec


class FleetBase(Spec):
    """Everything one stack declares, but its models."""

    hub: HubSpec
    clusters: Annotated[tuple[ClusterSpec, ...], Field(min_length=1)]
    runtimes: RuntimesSpec = RuntimesSpec()
    failover: FailoverSpec = FailoverSpec()
    front_doors: FrontDoorsSpec = FrontDoorsSpec()
    network_policies: NetworkPoliciesSpec = NetworkPoliciesSpec()
    planning: PlanningSpec = PlanningSpec()

    @cached_property
    def by_name(self) -> dict[str, ClusterSpec]:
        """Clusters by name. With a duplicate name, which is an error of its own, the first."""
        return {each.name: each for each in reversed(self.clusters)}


class FleetEntry(FleetBase):
    """Everything one stack declares, as its stack file has it."""

    models: tuple[ModelEntry, ...] = ()


class FleetSpec(FleetBase):
    """Everything one stack declares, with everything decided: choice.py makes it of a FleetEntry."""

    models: tuple[ModelSpec, ...]
