"""The GPU types that a stack file may name, and how nodes call them. Not their memory, speed or price."""

from dataclasses import dataclass

# Accelerator type of a model that runs on CPU, with the runtime `vllm-cpu`. No GPU pool has it.
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU type."""

    # As NVIDIA's feature discovery writes it on nodes, label nvidia.com/gpu.product.
    product: str


# Add a type here and nowhere else: specs, schema and simulated nodes read this table.
ACCELERATORS: dict[str, Accelerator] = {
    "A10G": Accelerator(product="NVIDIA-A10G"),
    "L4": Accelerator(product="NVIDIA-L4"),
    "L40S": Accelerator(product="NVIDIA-L40S"),
    "A100": Accelerator(product="NVIDIA-A100-SXM4-80GB"),
    "A100-40": Accelerator(product="NVIDIA-A100-SXM4-40GB"),
    "A100-80": Accelerator(product="NVIDIA-A100-SXM4-80GB"),
    "H100": Accelerator(product="NVIDIA-H100-80GB-HBM3"),
    "H200": Accelerator(product="NVIDIA-H200"),
    "B200": Accelerator(product="NVIDIA-B200"),
}
