"""Membership: how a cluster becomes a member of the federation, whatever its driver.

The join gives Karmada an account on the member. Deleting it makes Karmada forget the cluster, which works with a dead
member too. What a member serves is decided by placement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.drivers.commands import driver_command, result
from federation import rights
from specs.clusters import ClusterSpec
from specs.propagation import Kind


def join_payload(spec: ClusterSpec, kinds: Sequence[Kind], hub_kubeconfig: pulumi.Input[str], member_kubeconfig: pulumi.Input[str]) -> dict[str, Any]:
    """What `fleet-driver member` reads."""
    return {
        "cluster": spec.name,
        "hubKubeconfig": hub_kubeconfig,
        "memberKubeconfig": member_kubeconfig,
        "region": spec.region,
        "zone": spec.zone or "",
        "provider": spec.provider or "",
        "labels": spec.labels,
        # The join refuses a member without them, and waits until Karmada has seen them there.
        "kinds": sorted(str(each) for each in kinds),
        # Read by nobody: a change of it runs the join again.
        "rights": rights.digest(),
    }


@dataclass(frozen=True, kw_only=True)
class MembershipArgs:
    spec: ClusterSpec
    # What the fleet declares on the hub for members.
    kinds: Sequence[Kind]
    hub_kubeconfig: pulumi.Input[str]
    member_kubeconfig: pulumi.Input[str]
    # What must run before the join: Karmada on the hub, and on the member the kinds that will be sent to it. Karmada
    # reads a member's kinds now and then, and schedules nothing to a cluster without the kind.
    requires: list[pulumi.Resource]
    hub_owner: pulumi.Resource | None


class Membership(pulumi.ComponentResource):
    """A member of the federation. `cluster_id` is the UID by which Karmada knows the cluster."""

    cluster_id: pulumi.Output[str]

    def __init__(self, name: str, args: MembershipArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:membership:Membership", name, None, opts)
        payload = join_payload(args.spec, args.kinds, args.hub_kubeconfig, args.member_kubeconfig)
        # With the hub gone there is nothing left to be a member of; with the member gone the hub must still forget it.
        child = pulumi.ResourceOptions(parent=self, depends_on=args.requires, deleted_with=args.hub_owner if args.spec.driver.capabilities.owned else None)
        self.joined = driver_command(f"{name}-join", "member", payload, child, apply="join", delete="unjoin")
        self.cluster_id = result(self.joined, "id", default="")
        self.register_outputs({"clusterId": self.cluster_id})
