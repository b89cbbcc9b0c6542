"""Promises about a failover: known sums by hand, and that no longer timeout makes a shorter promise."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning import failover_time
from planning.failover_time import Capacity, Case, Parts, Requests, cases, largest, restore, total
from specs.base import Spec
from specs.failover import CapacityFailoverSpec, RequestFailoverSpec

S = TypeVar("S", bound=Spec)

REQUESTS = Requests(spec=RequestFailoverSpec(), regions=3, attempts=3)
CAPACITY = Capacity(spec=CapacityFailoverSpec(), evict_after=60, models=30, load=120)

MILLISECONDS = st.integers(1, 1_000_000)
SECONDS = st.floats(0.001, 1000)
COUNTS = st.integers(1, 10)
SETTINGS = {
    **dict.fromkeys(("round_trip", "connect_timeout", "ping_interval", "ping_timeout", "backoff"), ("_milliseconds", MILLISECONDS)),
    **dict.fromkeys(("health_interval", "health_timeout", "stall"), ("_seconds", SECONDS)),
    **dict.fromkeys(("unhealthy_threshold", "healthy_threshold"), ("", COUNTS)),
}
FIELDS = {f"{name}{unit}": values for name, (unit, values) in SETTINGS.items()}
NUMBERS = (*FIELDS, "waited", "gap", "attempts")


def asking(numbers: Requests, **fields: float) -> Requests:
    """The same with other fields of `failover.requests`, or of Requests itself."""
    own = {name: value for name, value in fields.items() if name in FIELDS}
    return replace(numbers, spec=_changed(numbers.spec, own), **{name: value for name, value in fields.items() if name not in FIELDS})


def replacing(numbers: Capacity, **fields: float) -> Capacity:
    """The same with other fields of `failover.capacity`."""
    return replace(numbers, spec=_changed(numbers.spec, fields))


def _changed(spec: S, fields: Mapping[str, float]) -> S:
    return type(spec).model_validate({**spec.model_dump(), **fields}, by_name=True)


@st.composite
def requests(draw: st.DrawFn) -> Requests:
    fields = {name: draw(values) for name, values in FIELDS.items()}
    regions = draw(st.integers(1, 6))
    numbers = Requests(spec=RequestFailoverSpec(), regions=regions, attempts=max(regions, draw(COUNTS)), waited=draw(SECONDS), gap=draw(SECONDS))
    return asking(numbers, **fields)


@st.composite
def capacities(draw: st.DrawFn) -> Capacity:
    numbers = Capacity(
        spec=CapacityFailoverSpec(),
        evict_after=draw(st.integers(0, 600)),
        models=draw(st.integers(1, 500)),
        load=draw(st.none() | st.floats(1, 2000)),
    )
    return replacing(
        numbers,
        status_interval_seconds=draw(st.floats(0.1, 100)),
        failure_threshold_seconds=draw(st.floats(0.1, 300)),
        evictions_per_second=draw(st.floats(0.1, 100)),
    )


def seconds(parts: Parts | None) -> float:
    assert parts is not None
    return total(parts)


def times(case: Case) -> list[float]:
    """What is bounded, as one list; the bounds that are missing are those of the same fields each time."""
    return [total(parts) for parts in (case.added, case.left, case.back, case.refused) if parts is not None]


def test_a_killed_region_costs_one_refused_attempt() -> None:
    kill = cases(REQUESTS)["kill"]
    # Refusal, wait, new connection, longer way, work of the proxies.
    assert seconds(kill.added) == pytest.approx(0.1 + 0.005 + 0.1 + 0.1 + 0.1)
    assert seconds(kill.left) == pytest.approx(0.1 + 0.1)
    # Two active health checks, each after an interval with up to a tenth of jitter.
    assert seconds(kill.back) == pytest.approx(2 * (1.1 + 0.1) + 0.1)
    assert kill.failed == 0


def test_a_frozen_region_costs_a_missed_ping_and_its_jitter() -> None:
    hang = cases(REQUESTS)["hang"]
    assert seconds(hang.added) == pytest.approx(0.5 * 1.15 + 0.5 + 0.005 + 0.3 + 0.0)
    assert largest(hang.added or ()).name == "ping"
    # A check that began before the region was thawed fails yet.
    assert seconds(hang.back) == pytest.approx(seconds(cases(REQUESTS)["kill"].back) + 1)


def test_a_region_that_swallows_packets_is_found_by_whichever_timeout_is_longer() -> None:
    found = cases(asking(REQUESTS, connect_timeout_milliseconds=4000))
    assert largest(found["blackhole"].added or ()).seconds == 4
    assert seconds(found["hang"].added) < 2


def test_a_silent_region_is_left_by_deep_checks_where_no_request_finds_out() -> None:
    busy, idle = cases(REQUESTS)["hang"].left, cases(replace(REQUESTS, gap=60))["hang"].left
    assert [each.name for each in busy] == ["gap", "ping", "work"]
    # I + (N - 1)(T + I) + T, and the jitter of I.
    assert seconds(idle) == pytest.approx(1.1 + 2 * (1 + 1.1) + 1 + 0.1)


def test_a_hung_engine_is_given_up_by_its_guard_and_left_at_the_next_deep_check() -> None:
    hung = cases(REQUESTS)["engine-hang"]
    # The guard sees the last token up to a second late, and looks once a second from then on.
    assert seconds(hung.added) == pytest.approx(9 + 0.1 + 0.005 + 0.3)
    assert seconds(hung.left) == pytest.approx(9 + 0.1 + 1.2 + 0.1)


@pytest.mark.parametrize(("stall", "detected"), [(8, 9), (8.5, 10), (4, 5), (2, 2.5), (0.4, 0.5)])
def test_the_guard_looks_once_a_second_or_four_times_within_a_short_limit(stall: float, detected: float) -> None:
    assert failover_time.guard_detection(stall) == pytest.approx(detected)


def test_what_a_request_had_waited_is_lost_with_its_region() -> None:
    waited = cases(replace(REQUESTS, waited=2))
    for name in ("kill", "hang", "blackhole", "engine-hang"):
        assert seconds(waited[name].added) == pytest.approx(seconds(cases(REQUESTS)[name].added) + 2)


def test_when_all_regions_are_full_or_dead_the_answer_comes_after_one_try_at_each() -> None:
    found = cases(REQUESTS)
    # Random waits below 5 ms, then 10 ms.
    assert seconds(found["overload"].refused) == seconds(found["all-down"].refused) == pytest.approx(3 * 0.1 + 0.015 + 0.1)
    assert found["overload"].failed == 0
    assert found["all-down"].failed is None


def test_waits_before_retries_grow_to_ten_times_their_base() -> None:
    many = cases(asking(REQUESTS, attempts=8, backoff_milliseconds=1000, round_trip_milliseconds=1))["all-down"].refused
    assert seconds(many) == pytest.approx(1 + 2 + 4 + 8 + 10 + 10 + 10 + 0.1 + 8 * 0.001)


def test_with_one_region_requests_fail_and_the_error_has_a_bound() -> None:
    alone = cases(replace(REQUESTS, regions=1))
    for name in ("kill", "hang", "blackhole", "engine-hang", "flap", "hub-down", "drain", "overload"):
        assert alone[name].failed is None, name
        assert alone[name].added is None, name
        assert seconds(alone[name].refused) > 0, name
    # Each attempt of the request meets the frozen region.
    assert seconds(alone["hang"].refused) == pytest.approx(3 * 1.075 + 0.015 + 0.1)


def test_without_the_hub_a_death_costs_the_same() -> None:
    found = cases(REQUESTS)
    assert replace(found["hub-down"], name="kill") == found["kill"]


def test_every_case_of_the_drill_has_a_promise() -> None:
    drilled = {"kill", "hang", "blackhole", "engine-hang", "overload", "drain", "hub-down", "flap", "all-down", "gateway"}
    assert drilled <= set(cases(REQUESTS))


@given(requests(), st.data())
def test_no_longer_timeout_makes_a_shorter_promise(numbers: Requests, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NUMBERS))
    more = getattr(numbers.spec if name in FIELDS else numbers, name) + data.draw(st.integers(1, 5))
    before, after = cases(numbers), cases(asking(numbers, **{name: more}))
    for case in before:
        assert all(new >= old - 1e-9 for old, new in zip(times(before[case]), times(after[case]), strict=True)), (case, name)


@given(requests())
def test_every_promise_is_the_sum_of_parts_that_say_why(numbers: Requests) -> None:
    for case in cases(numbers).values():
        for parts in (case.added, case.left, case.back, case.refused):
            assert all(each.seconds >= 0 and each.name and each.why for each in parts or ())
        assert (case.failed is None) == (case.added is None)


@pytest.mark.parametrize(
    ("interval", "threshold", "killed"),
    # The threshold is looked at once in an interval: 30 s are three of 10, but three of 14 as well.
    [(2, 4, 6), (10, 30, 40), (14, 30, 56), (15, 30, 45), (10, 1, 20), (0.1, 0.3, 0.4)],
)
def test_a_dead_cluster_is_found_after_whole_status_intervals(interval: float, threshold: float, killed: float) -> None:
    parts = restore(replacing(CAPACITY, status_interval_seconds=interval, failure_threshold_seconds=threshold), silent=False)
    assert total(each for each in parts if each.name in ("status", "threshold")) == pytest.approx(killed)


@pytest.mark.parametrize(
    ("interval", "threshold", "silent"),
    [
        # Read 2 to 34; read 36, given up at 45 with its connection, asked again at 46 for 32 s more.
        (2, 4, 78),
        # Read 10 to 42; reads of 32 s each from 52 on.
        (10, 30, 84),
        # The first read loses its connection.
        (20, 1, 78 + 20 + 32),
    ],
)
def test_a_silent_cluster_is_found_after_reads_that_wait(interval: float, threshold: float, silent: float) -> None:
    parts = restore(replacing(CAPACITY, status_interval_seconds=interval, failure_threshold_seconds=threshold), silent=True)
    assert total(each for each in parts if each.name in ("status", "threshold")) == pytest.approx(silent)


def test_the_parts_of_a_restore_stand_in_the_order_in_which_they_pass() -> None:
    names = [each.name for each in restore(CAPACITY, silent=False)]
    assert names == ["status", "threshold", "taint", "toleration", "eviction", "scheduling", "load", "readiness"]
    assert "load" not in [each.name for each in restore(replace(CAPACITY, load=None), silent=False)]


@pytest.mark.parametrize(
    ("models", "rate", "waits"),
    # Three workers, each pausing after each model; a hundred and more are held back by Karmada's own bucket.
    [(1, 0.5, 2), (3, 0.5, 2), (4, 0.5, 4), (30, 10, 1), (300, 10, 30.1), (300, 0.5, 202)],
)
def test_a_model_waits_for_the_other_models_of_its_cluster(models: int, rate: float, waits: float) -> None:
    (part,) = [each for each in restore(replace(replacing(CAPACITY, evictions_per_second=rate), models=models), silent=False) if each.name == "eviction"]
    assert part.seconds == pytest.approx(waits)


@given(capacities(), st.data(), st.booleans())
def test_no_longer_wait_makes_a_sooner_restore(numbers: Capacity, data: st.DataObject, silent: bool) -> None:
    name = data.draw(st.sampled_from(["failure_threshold_seconds", "evict_after", "models", "probe"]))
    more = data.draw(st.integers(1, 100))
    own = name == "failure_threshold_seconds"
    longer = replacing(numbers, **{name: numbers.spec.failure_threshold_seconds + more}) if own else replace(numbers, **{name: getattr(numbers, name) + more})
    assert total(restore(longer, silent=silent)) >= total(restore(numbers, silent=silent)) - 1e-6
    faster = replacing(numbers, evictions_per_second=numbers.spec.evictions_per_second * 2)
    assert total(restore(faster, silent=silent)) <= total(restore(numbers, silent=silent)) + 1e-6


@given(capacities())
def test_no_cluster_counts_as_lost_before_the_threshold_has_passed(numbers: Capacity) -> None:
    found = {silent: total(each for each in restore(numbers, silent=silent) if each.name in ("status", "threshold")) for silent in (False, True)}
    assert min(found.values()) >= numbers.spec.failure_threshold_seconds - 1e-6
    # Rounding up costs less than one interval, the first read one more.
    assert found[False] <= numbers.spec.failure_threshold_seconds + 2 * numbers.spec.status_interval_seconds + 1e-6


def test_the_largest_part_is_what_to_change() -> None:
    assert largest(restore(CAPACITY, silent=False)).name == "load"
    with pytest.raises(ValueError, match="empty"):
        largest(())


def test_the_allowances_are_part_of_every_promise() -> None:
    # Not timers: what the drill measures against them must not be hidden elsewhere.
    assert failover_time.WORK == 0.1
    assert all(total(case.added) >= failover_time.WORK for case in cases(REQUESTS).values() if case.added)
