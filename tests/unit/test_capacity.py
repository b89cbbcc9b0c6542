"""Replicas fit on nodes, not only on a sum of GPUs."""

from hypothesis import given
from hypothesis import strategies as st

from planning.capacity import Nodes, Packing, largest_node, total, unplaced
from specs.planning import QuotaSpec

NODES = st.lists(st.builds(lambda count, gpus: Nodes(count=count, gpus_per_node=gpus), st.integers(0, 5), st.sampled_from([1, 2, 4, 8])), max_size=4)
SIZES = st.lists(st.sampled_from([1, 2, 4, 8]), max_size=40)


def test_four_and_four_free_gpus_do_not_take_a_replica_of_eight() -> None:
    nodes = [Nodes(count=2, gpus_per_node=8)]
    assert unplaced(nodes, [4, 4, 8]) == 0
    assert unplaced(nodes, [4, 4, 4, 8]) == 1
    assert unplaced([Nodes(count=2, gpus_per_node=4)], [8]) == 1


def test_without_nodes_there_is_no_room() -> None:
    assert total([]) == 0
    assert largest_node([Nodes(count=0, gpus_per_node=8)]) == 0
    assert unplaced([], [1]) == 1


@given(NODES, SIZES)
def test_what_is_placed_never_exceeds_the_gpus(nodes: list[Nodes], sizes: list[int]) -> None:
    left = unplaced(nodes, sizes)
    # The smallest ones are left out last, so at least these sizes were placed.
    placed = sum(sorted(sizes)[: len(sizes) - left])
    assert placed <= total(nodes)


@given(NODES, SIZES)
def test_for_powers_of_two_the_answer_is_exact(nodes: list[Nodes], sizes: list[int]) -> None:
    fitting = [size for size in sizes if size <= largest_node(nodes)]
    if len(fitting) == len(sizes) and len({each.gpus_per_node for each in nodes if each.count}) == 1 and sum(sizes) <= total(nodes):
        assert unplaced(nodes, sizes) == 0


@given(NODES, SIZES)
def test_another_node_never_hurts(nodes: list[Nodes], sizes: list[int]) -> None:
    assert unplaced([*nodes, Nodes(count=1, gpus_per_node=8)], sizes) <= unplaced(nodes, sizes)


def test_a_pool_of_any_size_is_counted_at_once() -> None:
    # As many nodes as this could not even be listed.
    assert unplaced([Nodes(count=10**12, gpus_per_node=8)], [8, 4, 4, 16]) == 1


QUOTA = QuotaSpec(accelerator="H100", provider="cloud", region="east", gpus=24)


def pool(count: int, standing: int = 0, gpus: int = 8) -> list[Nodes]:
    return [Nodes(count=count, gpus_per_node=gpus, standing=standing, quotas=(QUOTA,))]


def test_pools_of_one_quota_grow_until_it_is_used_up() -> None:
    packing = Packing({("east", "H100"): pool(4), ("west", "H100"): pool(4)})
    assert [packing.take((name, "H100"), 8) for name in ("east", "west", "east", "west")] == [True, True, True, False]


def test_a_node_counts_whole_and_is_filled_before_another_comes() -> None:
    packing = Packing({("east", "H100"): pool(9)})
    assert [packing.take(("east", "H100"), 2) for _ in range(13)] == [True] * 12 + [False]


def test_nodes_that_stand_count_though_nothing_runs_on_them() -> None:
    room = {("east", "H100"): pool(2, standing=2), ("west", "H100"): pool(4)}
    packing = Packing(room)
    assert [packing.take(("west", "H100"), 8) for _ in range(2)] == [True, False]
    # They are there for whoever comes, whatever the quota says.
    assert [packing.take(("east", "H100"), 8) for _ in range(3)] == [True, True, False]


def test_without_growth_there_is_only_what_runs() -> None:
    packing = Packing({("east", "H100"): [Nodes(count=4, gpus_per_node=8, standing=1)]})
    assert packing.take(("east", "H100"), 8)
    assert packing.take(("east", "H100"), 4)
    packing.grows = False
    assert [packing.take(("east", "H100"), 4) for _ in range(2)] == [True, False]
