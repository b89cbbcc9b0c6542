"""The simulated GPU nodes of local clusters."""

from dataclasses import dataclass
from typing import Any

import pulumi

from components.drivers.commands import driver_command, inside, result
from specs.gpu_pools import GpuPoolSpec


def gpu_pools_payload(cluster: str, pools: tuple[GpuPoolSpec, ...]) -> dict[str, Any]:
    """What `fleet-driver gpu-pools` reads. The driver removes nodes that are no longer listed."""
    return {
        "cluster": cluster,
        "pools": [
            {
                "name": pool.name,
                "accelerator": pool.accelerator,
                "nodes": pool.most_nodes,
                "gpusPerNode": pool.gpus_per_node,
                "capacityType": pool.capacity_types[0],
            }
            for pool in pools
        ],
        # One node per member runs containers as host processes. It costs nothing where no model uses it.
        "cpuNode": True,
    }


@dataclass(frozen=True, kw_only=True)
class GpuPoolsArgs:
    cluster: str
    pools: tuple[GpuPoolSpec, ...]
    owner: pulumi.Resource | None


class GpuPools(pulumi.ComponentResource):
    """The simulated nodes of a local cluster. `gpus` counts them."""

    gpus: pulumi.Output[int]

    def __init__(self, name: str, args: GpuPoolsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:gpu_pools:GpuPools", name, None, opts)
        payload = gpu_pools_payload(args.cluster, args.pools)
        command = driver_command(f"{name}-nodes", "gpu-pools", payload, inside(self, args.owner))
        self.gpus = result(command, "gpus", default=0)
        self.register_outputs({"gpus": self.gpus})
