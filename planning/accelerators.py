"""The GPU types that a stack file may name, and what pods and plans need to know of each.

Not prices or speeds: they are dated and belong to the planner's own data.
"""

from dataclasses import dataclass

# Accelerator type of a model that runs on CPU, with the runtime `vllm-cpu`. No GPU pool has it.
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU type."""

    # As NVIDIA's feature discovery writes it on nodes, label nvidia.com/gpu.product.
    product: str
    # Nominal memory in GB. What a process can use is a little less.
    memory_gb: int


# Add a type here and nowhere else: specs, schema and simulated nodes read this table.
ACCELERATORS: dict[str, Accelerator] = {
    "A10G": Accelerator(product="NVIDIA-A10G", memory_gb=24),
    "L4": Accelerator(product="NVIDIA-L4", memory_gb=24),
    "L40S": Accelerator(product="NVIDIA-L40S", memory_gb=48),
    "A100": Accelerator(product="NVIDIA-A100-SXM4-80GB", memory_gb=80),
    "A100-40": Accelerator(product="NVIDIA-A100-SXM4-40GB", memory_gb=40),
    "A100-80": Accelerator(product="NVIDIA-A100-SXM4-80GB", memory_gb=80),
    "H100": Accelerator(product="NVIDIA-H100-80GB-HBM3", memory_gb=80),
    "H200": Accelerator(product="NVIDIA-H200", memory_gb=141),
    "B200": Accelerator(product="NVIDIA-B200", memory_gb=180),
}
