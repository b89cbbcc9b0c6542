"""The GPU types that a stack file may name, and how nodes call them. Not their memory, speed or price."""

from dataclasses import dataclass

# Accelerator type of a model that runs on CPU, with the runtime `vllm-cpu`. No GPU pool has it.
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU type."""

    # As NVIDIA's feature discovery writes it on nodes, label nvidia.com/gpu.product.
    product: str
    # Compute capability, 89 for 8.9: which kernels there are for it, and with them which quantization.
    capability: int


# Add a type here and nowhere else: specs, schema and simulated nodes read this table.
ACCELERATORS: dict[str, Accelerator] = {
    "A10G": Accelerator(product="NVIDIA-A10G", capability=86),
    "L4": Accelerator(product="NVIDIA-L4", capability=89),
    "L40S": Accelerator(product="NVIDIA-L40S", capability=89),
    "A100": Accelerator(product="NVIDIA-A100-SXM4-80GB", capability=80),
    "A100-40": Accelerator(product="NVIDIA-A100-SXM4-40GB", capability=80),
    "A100-80": Accelerator(product="NVIDIA-A100-SXM4-80GB", capability=80),
    "H100": Accelerator(product="NVIDIA-H100-80GB-HBM3", capability=90),
    "H200": Accelerator(product="NVIDIA-H200", capability=90),
    "B200": Accelerator(product="NVIDIA-B200", capability=100),
}
