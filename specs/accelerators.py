"""The GPU types that a stack file may name: how nodes call them, and what a plan is computed from. Their data and its sources
are catalogue.toml; what they cost is prices.py.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Accelerator type of a model that runs on CPU, with the runtime `vllm-cpu`. No GPU pool has it.
CPU = "cpu"

CATALOGUE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU type."""

    # As NVIDIA's feature discovery writes it on nodes, label nvidia.com/gpu.product.
    product: str
    # Compute capability, 89 for 8.9: which kernels there are for it, and with them which quantization.
    capability: int
    memory_gib: float
    """What CUDA shows; vLLM takes its share of it."""
    bandwidth: float
    """Of the memory, GB/s."""
    teraflops: float
    """Dense bf16."""
    link: str
    """Between the GPUs of one node: NVLink or PCIe."""
    link_bandwidth: float
    """GB/s, both directions together."""


def _accelerators() -> dict[str, Accelerator]:
    gpus: dict[str, dict[str, Any]] = CATALOGUE["gpus"]
    return {name: Accelerator(**gpus[facts.get("same_as", name)]) for name, facts in gpus.items()}


def canonical(name: str) -> str:
    """The name that prices know: `A100-80` for `A100`."""
    return CATALOGUE["gpus"].get(name, {}).get("same_as", name)


# In the order of the catalogue: editors and errors list them so.
ACCELERATORS: dict[str, Accelerator] = _accelerators()
