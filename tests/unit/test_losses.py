"""What is left of a fleet after a loss is what Karmada places and nodes hold."""

from hypothesis import given
from hypothesis import strategies as st

from planning.capacity import Nodes, Room
from planning.cost import Pool, per_million_tokens
from planning.losses import Served, after
from specs.planning import QuotaSpec


def served(name: str = "chat", replicas: int = 4, count: int = 4, wanted: float | None = 8.0, **weights: int) -> Served:
    where = weights or {"east": 1, "west": 1}
    return Served(
        name=name,
        weights=where,
        replicas=replicas,
        runs_on=dict.fromkeys(where, ("H100", count)),
        rates=dict.fromkeys(where, 2.0),
        wanted=wanted,
    )


def rooms(**nodes: int) -> Room:
    return {(name, "H100"): [Nodes(count=count, gpus_per_node=8)] for name, count in nodes.items()}


def test_lost_replicas_go_where_there_is_room() -> None:
    (left,) = after([served()], rooms(east=1, west=2), frozenset({"east"}))
    assert (left.running, left.moved, left.unplaced, left.served) == (2, 2, 0, 1.0)


def test_without_room_the_rest_serves_a_part_of_the_load() -> None:
    (left,) = after([served()], rooms(east=2, west=1), frozenset({"east"}))
    assert (left.running, left.moved, left.unplaced, left.served) == (2, 0, 2, 0.5)
    assert left.short == (("west", "H100", 2),)


def test_a_model_of_one_cluster_has_nowhere_to_go() -> None:
    (left,) = after([served(east=1)], rooms(east=2, west=2), frozenset({"east"}))
    assert (left.running, left.unplaced, left.short, left.served) == (0, 4, (), 0.0)


def test_who_runs_there_is_not_pushed_out_by_who_comes() -> None:
    local = served("local", replicas=1, count=8, west=1)
    left = {each.model: each for each in after([served(count=8), local], rooms(east=2, west=4), frozenset({"east"}))}
    assert left["local"].running == 1
    assert (left["chat"].running, left["chat"].moved, left["chat"].unplaced) == (2, 1, 1)


def test_nodes_of_a_lost_cluster_still_count_for_a_quota() -> None:
    def room(gpus: int) -> Room:
        quota = QuotaSpec(accelerator="H100", provider="cloud", region="east", gpus=gpus)
        return {(name, "H100"): [Nodes(count=4, gpus_per_node=8, quotas=(quota,))] for name in ("east", "west")}

    # Four replicas of four GPUs: a node in each region, and another one for those that move.
    assert [after([served()], room(gpus), frozenset({"east"}))[0].moved for gpus in (16, 24)] == [0, 2]


def test_without_growth_what_moves_goes_on_nodes_that_run() -> None:
    room = {(name, "H100"): [Nodes(count=4, gpus_per_node=8, standing=0)] for name in ("east", "west")}
    (half,) = after([served(replicas=2)], room, frozenset({"east"}), grows=False)
    assert (half.running, half.moved, half.unplaced) == (1, 1, 0)
    (full,) = after([served(replicas=4)], room, frozenset({"east"}), grows=False)
    assert (full.running, full.moved, full.unplaced) == (2, 0, 2)


def test_without_a_load_nothing_is_said_of_it() -> None:
    (left,) = after([served(wanted=None)], rooms(east=1, west=1), frozenset({"east"}))
    assert left.served is None


@given(st.integers(1, 12), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.sampled_from([1, 2, 4, 8]))
def test_every_replica_is_somewhere_and_more_nodes_never_hurt(replicas: int, east: int, west: int, more: int, count: int) -> None:
    model = served(replicas=replicas, count=count, east=1, west=2, north=1)
    few, many = (after([model], rooms(east=east, west=west + extra, north=1), frozenset({"east"}))[0] for extra in (0, more))
    for left in (few, many):
        assert left.running + left.moved + left.unplaced == replicas
    assert many.unplaced <= few.unplaced


def test_a_pool_that_grows_is_paid_for_what_it_holds() -> None:
    pool = Pool(cluster="east", name="h100", gpu="H100", gpus_per_node=8, capacity="spot", least_nodes=1, most_nodes=4, used_gpus=17, quote=None)
    assert pool.nodes == 3
    assert pool.dollars_per_month is None


def test_dollars_per_million_tokens() -> None:
    # 2 requests of 500 tokens a second are 2628 million tokens a month.
    assert per_million_tokens(2628.0, 2.0, 500) == 1.0
