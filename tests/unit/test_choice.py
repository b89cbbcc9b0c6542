"""The chosen placement is the cheapest: compared with trying everything, and by what must never happen."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planning import solver
from planning.capacity import Nodes
from planning.solver import Option, Placed, Placement, Wanted, hourly
from specs.planning import QuotaSpec

CLUSTERS = {"east": "us", "west": "us", "north": "eu"}


def option(cluster: str, gpu: str = "H100", count: int = 1, rate: float = 1.0, dollars: float = 1.0) -> Option:
    return Option(cluster=cluster, region=CLUSTERS[cluster], gpu=gpu, count=count, rate=rate, dollars=dollars)


def wanted(*options: Option, name: str = "chat", rate: float = 3.0) -> Wanted:
    return Wanted(name=name, options=options, rate=rate)


def room(**nodes: int) -> dict[tuple[str, str], list[Nodes]]:
    return {(cluster, gpu): [Nodes(count=count, gpus_per_node=4)] for cluster, count in nodes.items() for gpu in ("H100", "L40S")}


PLENTY = room(east=50, west=50, north=50)


def chosen(model: Wanted, nodes: dict[tuple[str, str], list[Nodes]] = PLENTY) -> Placement | None:
    found = solver.choose([model], nodes, {})
    return None if found is None else found[model.name]


def places(placement: Placement | None) -> dict[str, int]:
    return {each.option.cluster: each.replicas for each in placement or ()}


def every_way(models: list[Wanted], nodes: dict[tuple[str, str], list[Nodes]], most: int, taken: solver.Taken | None = None) -> float | None:
    """The least cost by trying each number of replicas of each option."""
    best: float | None = None
    columns = [(model, each) for model in models for each in model.options]
    for counts in itertools.product(range(most + 1), repeat=len(columns)):
        by_model: dict[str, list[Placed]] = {}
        for (model, each), count in zip(columns, counts, strict=True):
            if count:
                by_model.setdefault(model.name, []).append(Placed(option=each, replicas=count))
        placements = [tuple(by_model.get(model.name, ())) for model in models]
        cost = sum(map(hourly, placements))
        if best is not None and cost >= best:
            continue
        one_each = all(len({each.option.cluster for each in placement}) == len(placement) for placement in placements)
        sums = all(
            model.replicas is None or sum(each.replicas for each in placement) == model.replicas for model, placement in zip(models, placements, strict=True)
        )
        kept = all(solver.keeps(model, placement) for model, placement in zip(models, placements, strict=True))
        if one_each and sums and kept and solver.fits((), nodes, solver.together(taken or {}, solver.taken_by(placements))):
            best = cost
    return best


@pytest.mark.parametrize("seed", range(25))
def test_it_is_as_cheap_as_trying_everything(seed: int) -> None:
    chance = random.Random(seed)
    models = [
        Wanted(
            name=name,
            options=tuple(
                option(cluster, gpu, chance.choice([1, 2, 4]), rate=chance.choice([0.7, 1.0, 1.6, 2.5]), dollars=chance.choice([1.0, 1.7, 2.2, 3.9]))
                for cluster, gpu in chance.sample([("east", "H100"), ("east", "L40S"), ("west", "H100"), ("north", "H100"), ("north", "L40S")], 3)
            ),
            rate=chance.choice([1.0, 2.4, 4.0]),
            replicas=chance.choice([None, None, 3]),
            least_clusters=chance.choice([1, 2]),
            survivors_rate=chance.choice([None, 1.5]),
        )
        for name in ("one", "two")
    ]
    nodes = room(east=chance.choice([1, 2]), west=chance.choice([1, 2]), north=chance.choice([1, 2]))
    found = solver.choose(models, nodes, {})
    best = every_way(models, nodes, 3)
    if best is None:
        # Trying stops at three of each; more of them may do.
        assert found is None or max(each.replicas for placement in found.values() for each in placement) > 3
        return
    assert found is not None
    assert sum(map(hourly, found.values())) <= best + 1e-6
    for model in models:
        assert solver.keeps(model, found[model.name])
    assert solver.fits((), nodes, solver.taken_by(found.values()))


@pytest.mark.parametrize("seed", range(30))
def test_with_quotas_it_is_as_cheap_as_trying_everything(seed: int) -> None:
    chance = random.Random(seed)
    # One of the two regions of `us`, and one of everything.
    quotas = {"east": (QuotaSpec(accelerator="H100", provider="cloud", region="east", gpus=chance.choice([4, 8, 12])),), "west": (), "north": ()}
    quotas["west"] = quotas["east"]
    everywhere = QuotaSpec(accelerator="H100", provider="cloud", gpus=chance.choice([8, 12, 100]))
    nodes = {
        (cluster, "H100"): [Nodes(count=chance.choice([1, 3]), gpus_per_node=4, standing=chance.choice([0, 0, 1]), quotas=(*quotas[cluster], everywhere))]
        for cluster in CLUSTERS
    }
    models = [
        Wanted(
            name=name,
            options=tuple(
                option(each, "H100", chance.choice([1, 2, 4]), rate=chance.choice([0.7, 1.0, 1.6]), dollars=chance.choice([1.0, 1.7, 2.2]))
                for each in chance.sample(sorted(CLUSTERS), 2)
            ),
            rate=chance.choice([1.0, 2.4]),
            least_clusters=chance.choice([1, 2]),
        )
        for name in ("one", "two")
    ]
    taken = {("west", "H100"): [2]} if seed % 3 else {}
    found = solver.choose(models, nodes, taken)
    best = every_way(models, nodes, 3, taken)
    if best is None:
        assert found is None or max(each.replicas for placement in found.values() for each in placement) > 3
        return
    assert found is not None
    assert sum(map(hourly, found.values())) <= best + 1e-6
    assert solver.fits((), nodes, solver.together(taken, solver.taken_by(found.values())))


def test_what_lies_elsewhere_takes_of_a_quota_too() -> None:
    quota = QuotaSpec(accelerator="H100", provider="cloud", region="east", gpus=8)
    nodes = {(cluster, "H100"): [Nodes(count=2, gpus_per_node=4, quotas=(quota,))] for cluster in ("east", "west")}
    taken = {("west", "H100"): [1]}
    assert solver.choose([wanted(option("east"), rate=5)], nodes, taken) is None
    assert solver.choose([wanted(option("east"), rate=4)], nodes, taken) is not None


@pytest.mark.parametrize("seed", range(15))
def test_written_weights_are_as_cheap_as_trying_everything(seed: int) -> None:
    chance = random.Random(seed)
    weights = {"east": chance.choice([1, 2, 3]), "north": 1}
    options = tuple(
        option(cluster, gpu, chance.choice([1, 2]), rate=chance.choice([0.7, 1.6, 2.5]), dollars=chance.choice([1.0, 2.2, 3.9]))
        for cluster in weights
        for gpu in ("H100", "L40S")
    )
    model = replace(wanted(*options, rate=5.0), weights=weights, least_clusters=2)
    best: float | None = None
    for replicas in range(1, 14):
        shares = {name: count for name, count in solver.divide(replicas, solver.tie_free(weights)).items() if count}
        for ways in itertools.product(*([each for each in options if each.cluster == name] for name in shares)):
            placement = tuple(Placed(option=way, replicas=shares[way.cluster]) for way in ways)
            if solver.keeps(model, placement) and (best is None or hourly(placement) < best):
                best = hourly(placement)
    found = chosen(model)
    assert best is not None
    assert found is not None
    assert hourly(found) == pytest.approx(best)


def test_a_full_pool_sends_the_rest_elsewhere() -> None:
    model = wanted(option("east", dollars=1), option("north", dollars=2), rate=6)
    assert places(chosen(model, room(east=1, north=1))) == {"east": 4, "north": 2}


def test_scattered_gpus_are_not_a_large_one() -> None:
    nodes = {("east", "H100"): [Nodes(count=2, gpus_per_node=4)]}
    large = wanted(option("east", count=8, rate=8))
    assert chosen(large, nodes) is None
    # One of the two nodes is half taken: four and two fit, four and four do not.
    four = wanted(option("east", count=4, rate=1), rate=2)
    assert solver.choose([four], nodes, {("east", "H100"): [2]}) is None
    assert places(solver.choose([replace(four, rate=1)], nodes, {("east", "H100"): [2]})["chat"]) == {"east": 1}  # pyright: ignore[reportOptionalSubscript]


def test_the_partner_of_a_failover_is_in_another_region() -> None:
    model = replace(wanted(option("east", dollars=1), option("west", dollars=1), option("north", dollars=9), rate=2), least_clusters=2)
    assert set(places(chosen(model))) & {"north"}


def test_what_survives_a_region_answers_the_load() -> None:
    model = replace(wanted(option("east", dollars=1), option("north", dollars=1.1), rate=4), survivors_rate=3)
    assert places(chosen(model)) == {"east": 3, "north": 3}


def test_current_places_are_left_for_more_than_the_loyalty_only() -> None:
    model = wanted(option("east", dollars=1.0), option("north", dollars=0.95))
    assert places(chosen(model)) == {"north": 3}
    current = frozenset({("east", "H100", 1)})
    assert places(chosen(replace(model, current=current, loyalty=0.1))) == {"east": 3}
    cheaper = replace(model, options=(option("east", dollars=1.0), option("north", dollars=0.85)))
    assert places(chosen(replace(cheaper, current=current, loyalty=0.1))) == {"north": 3}


def test_of_equals_the_one_that_is_written_first_is_taken() -> None:
    assert places(chosen(wanted(option("west"), option("east")))) == {"west": 3}


def test_what_costs_nothing_is_not_taken_for_nothing() -> None:
    assert places(chosen(wanted(option("east", dollars=0), option("west", dollars=0)))) == {"east": 3}


def test_the_second_best_is_on_other_gpus_else_in_other_clusters() -> None:
    model = wanted(option("east", dollars=1), option("north", dollars=2), option("west", "L40S", dollars=3))
    first = chosen(model)
    assert first is not None
    second = solver.second_best(model, first, PLENTY, {})
    assert places(second) == {"west": 3}
    alike = replace(model, options=model.options[:2])
    second = solver.second_best(alike, first, PLENTY, {})
    assert places(second) == {"north": 3}
    assert solver.second_best(replace(model, options=model.options[:1]), first, PLENTY, {}) is None


OPTIONS = st.lists(
    st.builds(
        option,
        st.sampled_from(sorted(CLUSTERS)),
        st.just("H100"),
        st.sampled_from([1, 2, 4]),
        rate=st.sampled_from([0.5, 1.0, 2.0]),
        dollars=st.floats(0.5, 10).map(lambda value: round(value, 2)),
    ),
    min_size=1,
    max_size=4,
    unique_by=solver.key,
)


@settings(deadline=None, max_examples=60)
@given(OPTIONS, st.floats(0.5, 12), st.integers(0, 3), st.integers(0, 3))
def test_more_nodes_never_cost_more(options: list[Option], rate: float, nodes: int, more: int) -> None:
    model = wanted(*options, rate=rate)
    few, many = (chosen(model, room(east=each, west=each, north=each)) for each in (nodes, nodes + more))
    if few is not None:
        assert many is not None
        assert hourly(many) <= hourly(few) + 1e-4


@settings(deadline=None, max_examples=60)
@given(OPTIONS, st.floats(0.5, 12), st.floats(0.1, 5))
def test_a_larger_load_never_costs_less(options: list[Option], rate: float, more: float) -> None:
    small, large = (chosen(wanted(*options, rate=each)) for each in (rate, rate + more))
    assert small is not None
    assert large is not None
    assert hourly(small) <= hourly(large) + 1e-4


def test_the_same_question_has_the_same_answer() -> None:
    chance = random.Random(7)
    names = sorted(CLUSTERS)
    models = [
        wanted(
            *(option(name, count=1, rate=chance.random() + 0.5, dollars=chance.random() + 1) for name in names),
            name=f"model-{number}",
            rate=chance.random() * 9,
        )
        for number in range(30)
    ]
    assert solver.choose(models, room(east=20, west=20, north=20), {}) == solver.choose(models, room(east=20, west=20, north=20), {})


def test_the_smallest_contradiction_is_named() -> None:
    def possible(names: frozenset[str]) -> bool:
        return not ({"b", "d"} <= names or {"a", "b", "c"} <= names)

    assert solver.smallest_contradiction(["a", "b", "c", "d"], possible) == {"b", "d"}
    assert solver.smallest_contradiction(["a", "c", "d"], possible) is None
    assert solver.smallest_contradiction(["a"], lambda _: False) == frozenset()
