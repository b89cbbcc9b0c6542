"""What a fleet costs by the month: of its pools, and of each model's share of them. Dollars; machines with GPUs alone."""

from dataclasses import dataclass

from planning.prices import HOURS_PER_MONTH, Quote

_SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One GPU pool, its nodes bought in the first of its ways."""

    cluster: str
    name: str
    gpu: str
    gpus_per_node: int
    capacity: str
    least_nodes: int
    most_nodes: int
    """As `least_nodes` for a pool of a fixed size."""
    used_gpus: int
    """By the replicas that the plan puts there."""
    quote: Quote | None

    @property
    def nodes(self) -> int:
        """That are paid: a fixed number, or those that its replicas need."""
        needed = -(-self.used_gpus // self.gpus_per_node)
        return min(self.most_nodes, max(self.least_nodes, needed))

    @property
    def dollars_per_month(self) -> float | None:
        """None without a price."""
        return None if self.quote is None else self.nodes * self.gpus_per_node * self.quote.price.spec.dollars_per_gpu_hour * HOURS_PER_MONTH

    @property
    def most_dollars_per_month(self) -> float | None:
        """With every node that an autoscaler may add."""
        return None if self.quote is None else self.most_nodes * self.gpus_per_node * self.quote.price.spec.dollars_per_gpu_hour * HOURS_PER_MONTH


def per_million_tokens(dollars_per_month: float, requests_per_second: float, output_tokens: int) -> float:
    """Dollars for a million tokens of answers, at this rate all month long. Prompts are in it and not counted."""
    return dollars_per_month / (requests_per_second * output_tokens * _SECONDS_PER_MONTH) * 1e6
