"""What every driver declares for a cluster. Its plain facts are specs/drivers; docs/drivers.md says how to write one."""

from dataclasses import dataclass
from typing import Protocol

import pulumi

from specs.clusters import ClusterSpec
from specs.drivers.driver import Role


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    name: str
    role: Role
    region: str = ""
    zone: str = ""
    # What the Spec's `kubeconfig_source` leads to; None where the driver makes the kubeconfig.
    kubeconfig: pulumi.Input[str] | None = None
    protect: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """A cluster that can be reached. `owner` makes and removes it; None for a cluster that is not ours to remove."""

    kubeconfig: pulumi.Output[str]
    owner: pulumi.Resource | None


@dataclass(frozen=True, kw_only=True)
class MemberArgs:
    """A member that has joined, with its control planes ready."""

    spec: ClusterSpec
    kubeconfig: pulumi.Output[str]
    owner: pulumi.Resource | None
    # Whether a stream relay runs beside the front door.
    relay: bool
    # The control plane that configures the gateways.
    mesh: pulumi.Resource


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Ports of gateways that share one machine, all on loopback."""

    front_door: pulumi.Input[int]
    regional_gateway: pulumi.Input[int]
    # With a stream relay only.
    egress: pulumi.Input[int] | None = None
    stream_relay: pulumi.Input[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the gateways of one cluster are reached. `override` holds the listeners of gateways on one machine, None elsewhere."""

    front_door_url: pulumi.Input[str]
    address: pulumi.Input[str]
    port: pulumi.Input[int]
    override: Listeners | None = None


class Driver(Protocol):
    """One cluster's driver: made of its Spec by `driver_of`.

    Whatever a method declares is a child in `opts` or of `parent`. A resource inside a cluster that the program removes says so
    (`commands.inside`), unless it holds something outside the cluster, such as a load balancer: that one goes before the
    cluster, by `depends_on` alone.
    """

    def cluster(self, name: str, args: ClusterArgs, parent: pulumi.Resource) -> Made:
        """Makes the cluster, or takes it as it is."""
        ...

    def gpu_pools(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> None:
        """Makes the nodes of `args.spec.gpu_pools`."""
        ...

    def gateways(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> Door:
        """Makes the front door and the regional gateway, or says where they are."""
        ...

    def supplies(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
        """What else the cluster needs before a model can run there."""
        ...
