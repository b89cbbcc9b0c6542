"""The benchmark of the doors says what it means: arithmetic on records, without a fleet."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FleetError
from operations.bench.gateway import DIRECT, DOORS, PASSES, REGIONAL, RELAY, computing, goals, highest, in_time, latencies, pooled, rows_of, where_rows
from tests.unit.drills import record, refused

WAYS: tuple[str, ...] = (DIRECT, REGIONAL, DOORS, RELAY)
TAKE = {DIRECT: 0.001, REGIONAL: 0.0014, DOORS: 0.0019, RELAY: 0.0023}


def asked(take: dict[str, float], count: int = 100) -> list[dict[str, Any]]:
    """Requests to the ways in turn, as one load sends them."""
    return [record(place / 100, take[way], door=way) for place in range(count) for way in take]


def measured(take: dict[str, float], rates: dict[str, float] | None = None, *more: dict[str, Any]) -> dict[str, Any]:
    found = latencies([*asked(take), *more], WAYS, stream=False)
    return {"latency": found, "rates": rates or dict.fromkeys(WAYS, 1000.0), "computing": {"mock-engine": 0.0001, "regional-gateway": 0.0002}}


def test_what_a_way_adds_is_told_against_the_direct_one() -> None:
    rows = rows_of(measured(TAKE, {DIRECT: 8000, REGIONAL: 4000, DOORS: 2000, RELAY: 1000}))
    assert rows[1] == ("direct", "1.00 ms", "1.00 ms", "", "", "0 of 100", "8,000/s", "1.00")
    assert rows[3] == ("both doors", "1.90 ms", "1.90 ms", "0.90 ms", "0.90 ms", "0 of 100", "2,000/s", "0.25")


def test_where_the_time_goes_is_told_part_by_part() -> None:
    assert [row[:2] for row in where_rows(measured(TAKE))[1:4]] == [
        ("regional-gateway", "0.40 ms"),
        ("front-door", "0.50 ms"),
        ("stream-relay and the way back", "0.40 ms"),
    ]


def test_goals_are_those_of_both_doors() -> None:
    assert [kept for *_, kept in goals(measured(TAKE))] == [True, True]
    assert [kept for *_, kept in goals(measured({**TAKE, DOORS: 0.0021}))] == [False, True]
    assert [kept for *_, kept in goals(measured({**TAKE, DOORS: 0.0061}))] == [False, False]


def test_a_way_that_fails_or_answers_nothing_keeps_no_goal() -> None:
    assert not any(kept for *_, kept in goals(measured(TAKE, None, refused(9.0, 503, door=DOORS))))
    nothing = {"latency": latencies([], WAYS, stream=False), "rates": dict.fromkeys(WAYS, 0.0), "computing": {}}
    assert not any(kept for *_, kept in goals(nothing))
    assert rows_of(nothing)[2] == ("regional gateway", "not measured", "not measured", "not measured", "not measured", "0 of 0", "0/s", "-")


def test_of_streams_the_first_token_counts() -> None:
    [direct] = latencies([record(1.0, 0.5, firstToken=1.002, door=DIRECT)], [DIRECT], stream=True)
    assert direct.latency is not None
    assert direct.latency.p50 == pytest.approx(0.002)


def test_one_disturbed_round_does_not_count() -> None:
    rounds = [latencies(asked({DIRECT: took}), [DIRECT], stream=False) for took in (0.001, 0.9, 0.002)]
    [middle] = pooled(rounds)
    assert middle.latency is not None
    assert middle.latency.p50 == pytest.approx(0.002)


@given(st.floats(200, 50_000))
def test_the_highest_rate_is_found_to_a_tenth(most: float) -> None:
    tried: list[float] = []

    def served(rate: float) -> bool:
        tried.append(rate)
        return rate <= most

    found = highest(served)
    assert found <= most <= found * 1.1
    assert len(tried) <= 13


def test_a_way_that_serves_nothing_has_no_rate() -> None:
    assert highest(lambda rate: False) == 0.0


def test_a_rate_is_served_when_nothing_fails_and_nearly_all_is_in_time() -> None:
    fast = [record(place / 100) for place in range(200)]
    assert in_time(fast)
    assert not in_time([*fast, refused(3.0, 503)])
    assert not in_time([*fast, *(record(place / 100, 0.2) for place in range(5))])
    assert in_time([*fast, record(1.0, 0.2)])
    assert not in_time([])


def test_computing_is_shared_out_by_how_often_a_request_passes() -> None:
    counts: dict[str, int] = dict.fromkeys(WAYS, 1000)
    used = {"mock-engine": 0.4, "regional-gateway": 0.6, "front-door": 0.9, "stream-relay": 0.1}
    found = computing(used, counts)
    assert found == pytest.approx({"mock-engine": 0.0001, "regional-gateway": 0.0002, "front-door": 0.0003, "stream-relay": 0.0001})
    assert computing({"front-door": 0.9}, dict.fromkeys([DIRECT], 1000)) == {}


def test_every_way_passes_what_the_one_before_passes() -> None:
    for before, after in itertools.pairwise(WAYS):
        assert all(PASSES[after].get(name, 0) >= count for name, count in PASSES[before].items())


def test_a_fleet_without_two_local_regions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from operations.bench import gateway
    from operations.stack_file import read_fleet

    fleet = read_fleet("local")
    alone = fleet.model_copy(update={"clusters": fleet.clusters[:1]})
    with pytest.raises(FleetError, match="a local fleet of two regions"):
        gateway.lay(alone)
