"""Whether the replicas of all models fit on the GPUs of one cluster.

Counts whole GPUs per accelerator type. Not memory, price or speed: those belong to sizing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Nodes of one accelerator type in one cluster that hold the same number of GPUs."""

    count: int
    gpus_per_node: int

    @property
    def gpus(self) -> int:
        return self.count * self.gpus_per_node


def total(nodes: Iterable[Nodes]) -> int:
    """GPUs on all nodes together."""
    return sum(each.gpus for each in nodes)


def largest_node(nodes: Iterable[Nodes]) -> int:
    """GPUs of the largest node, 0 without nodes: the most one replica can use, as its ranks share one node."""
    return max((each.gpus_per_node for each in nodes if each.count), default=0)


def unplaced(nodes: Sequence[Nodes], replica_sizes: Iterable[int]) -> int:
    """How many replicas find no node, given GPUs per replica; 0 means that all fit.

    Free GPUs are not enough: two nodes with four free GPUs each cannot take a replica of eight. Replicas are placed
    largest first on the fullest node that still has room. That is exact for the usual sizes 1, 2, 4 and 8; for odd sizes
    it may count a replica too many, never one too few.
    """
    sizes = sorted(replica_sizes, reverse=True)
    # No more nodes are needed than there are replicas: pools may be larger by far.
    free = [each.gpus_per_node for each in nodes for _ in range(min(each.count, len(sizes)))]
    left_over = 0
    for size in sizes:
        fitting = [index for index, gpus in enumerate(free) if gpus >= size]
        if not fitting:
            left_over += 1
            continue
        free[min(fitting, key=lambda index: free[index])] -= size
    return left_over
