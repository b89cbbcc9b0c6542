"""The driver `local`: a cluster of host processes on this machine, by calls of `fleet-driver`."""

from typing import Any

import pulumi

from components.drivers.commands import driver_command, inside, result
from components.drivers.driver import ClusterArgs, Door, Listeners, Made, MemberArgs
from specs.drivers.driver import Role
from specs.drivers.local import LocalDriver
from specs.gpu_pools import GpuPoolSpec


class Local:
    """A cluster that this machine runs, with simulated GPU nodes."""

    def __init__(self, spec: LocalDriver) -> None:
        self._spec = spec

    def cluster(self, name: str, args: ClusterArgs, parent: pulumi.Resource) -> Made:
        payload = cluster_payload(args.name, args.role, args.region, args.zone)
        child = pulumi.ResourceOptions(parent=parent, additional_secret_outputs=["stdout"], protect=args.protect)
        owner = driver_command(f"{name}-cluster", "cluster", payload, child)
        return Made(kubeconfig=result(owner, "kubeconfig"), owner=owner)

    def gpu_pools(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> None:
        GpuPools(f"{args.spec.name}-gpu-pools", self._spec, args, opts)

    def gateways(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> Door:
        return Gateways(f"{args.spec.name}-gateways", args, opts).door

    def supplies(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
        return [ModelStore(f"{args.spec.name}-model-store", args, opts).seeded]


def cluster_payload(name: str, role: Role, region: str = "", zone: str = "") -> dict[str, Any]:
    """What `fleet-driver cluster` reads."""
    return {"name": name, "role": role, "region": region, "zone": zone}


def gpu_pools_payload(cluster: str, driver: LocalDriver, pools: tuple[GpuPoolSpec, ...]) -> dict[str, Any]:
    """What `fleet-driver gpu-pools` reads. It removes nodes that are no longer listed."""
    return {
        "cluster": cluster,
        "pools": [
            {
                "name": pool.name,
                "accelerator": pool.accelerator,
                "nodes": pool.most_nodes,
                "gpusPerNode": pool.gpus_per_node,
                # In order of preference; the nodes are of the first that is available.
                "capacityTypes": list(pool.capacity_types),
                "taints": [{"key": each.key, "value": each.value, "effect": each.effect} for each in driver.taints(pool)],
            }
            for pool in pools
        ],
        # One node per member runs containers as host processes. It costs nothing where no model uses it.
        "cpuNode": True,
    }


class GpuPools(pulumi.ComponentResource):
    """The simulated nodes of a local cluster. `gpus` counts them."""

    gpus: pulumi.Output[int]

    def __init__(self, name: str, driver: LocalDriver, args: MemberArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:gpu_pools:GpuPools", name, None, opts)
        payload = gpu_pools_payload(args.spec.name, driver, args.spec.gpu_pools)
        command = driver_command(f"{name}-nodes", "gpu-pools", payload, inside(self, args.owner))
        self.gpus = result(command, "gpus", default=0)
        self.register_outputs({"gpus": self.gpus})


class Gateways(pulumi.ComponentResource):
    """The two gateways of a local cluster, as processes. `door` says where they listen."""

    front_door_url: pulumi.Output[str]

    def __init__(self, name: str, args: MemberArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Gateways", name, None, opts)
        payload = {"cluster": args.spec.name, "region": args.spec.region, "zone": args.spec.zone or "", "relay": args.relay}
        command = driver_command(f"{name}-processes", "gateways", payload, inside(self, args.owner, args.mesh))
        self.front_door_url = result(command, "frontDoor", "url")
        regional_port = result(command, "regionalGateway", "port")
        self.door = Door(
            front_door_url=self.front_door_url,
            address=result(command, "regionalGateway", "address"),
            port=regional_port,
            override=Listeners(
                front_door=result(command, "frontDoor", "port"),
                regional_gateway=regional_port,
                egress=result(command, "egress", "port") if args.relay else None,
                stream_relay=result(command, "streamRelay", "port") if args.relay else None,
            ),
        )
        self.register_outputs({"frontDoorUrl": self.front_door_url})


class ModelStore(pulumi.ComponentResource):
    """The claim `model-store` of a local cluster, seeded with the small model. `models` lists what it holds."""

    models: pulumi.Output[list[str]]

    def __init__(self, name: str, args: MemberArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:serving:ModelStore", name, None, opts)
        command = driver_command(f"{name}-seed", "model-store", {"cluster": args.spec.name}, inside(self, args.owner))
        self.seeded = command
        self.models = result(command, "models", default=[])
        self.register_outputs({"models": self.models})
