"""Whether the replicas of all models fit on the GPUs of a fleet.

Counts whole GPUs per accelerator type. Not memory, price or speed: those belong to sizing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from specs.gpu_pools import GpuPoolSpec
from specs.planning import QuotaSpec


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Nodes of one accelerator type in one cluster that hold the same number of GPUs."""

    count: int
    gpus_per_node: int
    standing: int = 0
    """Of them those that run without being asked for. The others come where they are, and quotas leave them."""
    quotas: tuple[QuotaSpec, ...] = ()
    """Those that bound their number, each once."""

    @property
    def gpus(self) -> int:
        return self.count * self.gpus_per_node


# Cluster and GPU type.
Place = tuple[str, str]
Room = Mapping[Place, Sequence[Nodes]]


def total(nodes: Iterable[Nodes]) -> int:
    """GPUs on all nodes together."""
    return sum(each.gpus for each in nodes)


def largest_node(nodes: Iterable[Nodes]) -> int:
    """GPUs of the largest node, 0 without nodes: the most one replica can use, as its ranks share one node."""
    return max((each.gpus_per_node for each in nodes if each.count), default=0)


def largest_first(replicas: Mapping[Place, Iterable[int]]) -> list[tuple[int, Place]]:
    """The order in which replicas are put on nodes, given the GPUs of each by place: where it matters whether all find one."""
    return sorted(((size, place) for place, sizes in replicas.items() for size in sizes), reverse=True)


def quotas_left(room: Room) -> dict[QuotaSpec, int]:
    """GPUs that pools may still grow by, of every quota: nodes that stand count whether they are used or not."""
    left: dict[QuotaSpec, int] = {}
    for several in room.values():
        for each in several:
            for quota in each.quotas:
                left[quota] = left.get(quota, quota.gpus) - each.standing * each.gpus_per_node
    return {quota: max(0, gpus) for quota, gpus in left.items()}


class Packing:
    """Replicas put on nodes, one after another: each on the fullest node that runs and takes it, else on one that comes.

    Free GPUs are not enough: two nodes with four free GPUs each cannot take a replica of eight. Given the largest first
    it is exact for the usual sizes 1, 2, 4 and 8; for odd sizes, and for pools of one GPU type that differ in the size of
    their nodes and share a quota, it may refuse a replica too many, never one too few.
    """

    def __init__(self, room: Room) -> None:
        self.grows = True
        """Whether nodes may come that do not stand."""
        self._room = room
        self._free: dict[Place, list[int]] = {}
        # By place how many of each of its Nodes are in use. Not a list of nodes: pools may be larger by far.
        self._used: dict[Place, list[int]] = {}
        self._left: dict[QuotaSpec, int] | None = None

    def take(self, place: Place, size: int) -> bool:
        """Puts a replica of so many GPUs there. False: there is no room."""
        free = self._free.setdefault(place, [])
        nodes = self._room.get(place, ())
        used = self._used.setdefault(place, [0] * len(nodes))
        # What takes nothing of a quota comes first, then what runs, then what leaves the smallest rest.
        ways = [(False, False, gpus, at, -1) for at, gpus in enumerate(free) if gpus >= size]
        for at, each in enumerate(nodes):
            comes = used[at] >= each.standing
            if used[at] < each.count and each.gpus_per_node >= size and (not comes or self._may_come(each)):
                ways.append((comes and bool(each.quotas), comes, each.gpus_per_node, len(free), at))
        if not ways:
            return False
        asks, _, gpus, slot, at = min(ways)
        if at >= 0:
            used[at] += 1
            free.append(gpus)
        if asks:
            for quota in nodes[at].quotas:
                self._quotas()[quota] -= gpus
        free[slot] -= size
        if not free[slot]:
            del free[slot]
        return True

    def put(self, replicas: Mapping[Place, Iterable[int]]) -> Counter[Place]:
        """Puts replicas, the largest first, given the GPUs of each by place. Returns how many found no node."""
        return Counter(place for size, place in largest_first(replicas) if not self.take(place, size))

    def _may_come(self, nodes: Nodes) -> bool:
        return self.grows and all(self._quotas()[quota] >= nodes.gpus_per_node for quota in nodes.quotas)

    def _quotas(self) -> dict[QuotaSpec, int]:
        if self._left is None:
            self._left = quotas_left(self._room)
        return self._left


def unplaced(nodes: Sequence[Nodes], replica_sizes: Iterable[int]) -> int:
    """How many replicas find no node, given GPUs per replica; 0 means that all fit."""
    place = ("", "")
    return Packing({place: nodes}).put({place: replica_sizes}).total()


def nodes_of(pools: tuple[GpuPoolSpec, ...], accelerator: str) -> list[Nodes]:
    """The nodes with this GPU type, over all pools of a cluster."""
    return [Nodes(count=pool.most_nodes, gpus_per_node=pool.gpus_per_node) for pool in pools if pool.accelerator == accelerator]
