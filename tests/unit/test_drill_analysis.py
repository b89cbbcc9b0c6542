"""The numbers of a drill follow from its records by the definitions that its report states."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operations.drills import analysis
from operations.drills.analysis import Request, analyse, percentile
from operations.drills.result import DoorSample
from tests.unit.drills import MARKS, record


def request(due: float, took: float | None = 0.01, **changes: Any) -> Request:
    return Request.from_record(record(due, took, **changes))


def lost(due: float, took: float = 0.01, status: int | None = 503, **changes: Any) -> Request:
    outcome = "status" if status else "reset"
    return request(due, took, firstToken=None, headers=due + took if status else None, status=status, cluster=None, outcome=outcome, **changes)


def steady(begin: float, end: float, took: float = 0.01, step: float = 0.1, **changes: Any) -> list[Request]:
    return [request(begin + place * step, took, **changes) for place in range(round((end - begin) / step))]


class TestRecords:
    @pytest.mark.parametrize("field", ["n", "due", "outcome"])
    def test_a_record_without_a_needed_field_is_refused_by_its_name(self, field: str) -> None:
        broken = record(1.0)
        del broken[field]
        with pytest.raises(ValueError, match=f"{field}: must be there"):
            Request.from_record(broken)

    def test_a_record_with_a_word_for_a_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match="could not convert string to float: 'soon'"):
            Request.from_record(record(1.0) | {"due": "soon"})

    def test_a_latency_counts_from_when_the_request_was_due(self) -> None:
        late = request(1.0, 0.5, sent=1.4)
        assert late.latency == pytest.approx(0.5)

    def test_an_error_answer_has_no_latency_but_an_answer_time(self) -> None:
        refused = lost(1.0, 0.02)
        assert refused.latency is None
        assert refused.answer_time == pytest.approx(0.02)

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"outcome": "status", "status": 503, "firstToken": None}, "lost_before_token"),
            ({"outcome": "refused", "status": None, "headers": None, "firstToken": None}, "lost_before_token"),
            ({"outcome": "timeout", "status": None, "headers": None, "firstToken": None}, "lost_before_token"),
            # Headers alone are no answer yet: nothing of it was told to the caller's caller.
            ({"outcome": "reset", "firstToken": None}, "lost_before_token"),
            ({"outcome": "truncated"}, "cut"),
            ({"outcome": "reset"}, "cut"),
            ({"outcome": "timeout"}, "cut"),
            # 200, no token and no [DONE]: nothing tells the client that this was no empty answer.
            ({"outcome": "truncated", "firstToken": None}, "cut"),
            ({"outcome": "error-event"}, "error_event"),
            ({"outcome": "error-event", "firstToken": None}, "lost_before_token"),
        ],
    )
    def test_every_failure_is_of_one_kind(self, changes: dict[str, Any], kind: str) -> None:
        failed = request(1.0, **changes)
        assert [name for name in ("ok", "lost_before_token", "cut", "error_event") if getattr(failed, name)] == [kind]


class TestPercentiles:
    @pytest.mark.parametrize(
        ("values", "percent", "want"),
        [([1.0], 50, 1.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0, 3.0], 50, 2.0), (range(1, 101), 99, 99), (range(1, 102), 99, 100), (range(1, 101), 95, 95)],
    )
    def test_the_nearest_rank(self, values: Sequence[float], percent: float, want: float) -> None:
        assert percentile(values, percent) == want

    @pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 101), ([1.0], -1)])
    def test_nonsense_is_refused(self, values: list[float], percent: float) -> None:
        with pytest.raises(ValueError, match="percentile: needs values"):
            percentile(values, percent)

    @given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.sampled_from([0.0, 50.0, 95.0, 99.0, 99.9, 100.0]))
    def test_enough_values_are_not_above_it_and_it_is_the_smallest_such(self, values: list[float], percent: float) -> None:
        found = percentile(sorted(values), percent)
        needed = len(values) * round(percent * 1000)
        assert found in values
        assert sum(each <= found for each in values) * 100_000 >= needed
        assert found == min(values) or sum(each < found for each in values) * 100_000 < needed


class TestPhases:
    def test_a_request_belongs_to_the_phase_in_which_it_was_due(self) -> None:
        found = analyse(steady(0, 30), MARKS, "us-west")
        assert {name: phase.requests for name, phase in found.phases.items()} == {"baseline": 100, "fault": 100, "recovery": 40, "failback": 60}
        assert found.requests == 300

    def test_what_was_under_way_when_the_fault_came_is_no_baseline(self) -> None:
        hit = request(9.9, 1.5)
        never = request(9.8, None, outcome="timeout", status=None, firstToken=None)
        phases = analyse([*steady(0, 9), hit, never], MARKS, "us-west").phases
        assert (phases["baseline"].requests, phases["baseline"].failed) == (90, 0)
        assert (phases["fault"].requests, phases["fault"].lost) == (2, 1)

    def test_without_a_fault_everything_is_baseline(self) -> None:
        found = analyse(steady(0, 5), {}, "")
        assert list(found.phases) == ["baseline"]
        assert (found.added_p99, found.added_met, found.back, found.dead_share_zero, found.failback) == (None,) * 5

    def test_a_drill_that_was_interrupted_before_it_healed_has_what_was_measured(self) -> None:
        found = analyse(steady(0, 15), {"fault": 10.0}, "us-west")
        assert list(found.phases) == ["baseline", "fault"]
        assert found.added_worst == pytest.approx(0)
        assert found.failback is None

    @pytest.mark.parametrize("marks", [{"fault": 10.0, "heal": 9.0}, {"fault": -1.0}, {"heal": 9.0, "healthy": 8.0}])
    def test_marks_that_contradict_each_other_are_refused(self, marks: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="marks must come in the order"):
            analyse(steady(0, 5), marks, "us-west")

    def test_no_records_at_all_are_no_error(self) -> None:
        found = analyse([], MARKS, "us-west")
        assert found.requests == 0
        assert found.phases["fault"].latency is None

    def test_failures_are_counted_by_kind(self) -> None:
        requests = [
            *steady(0, 12),
            lost(12.0),
            lost(12.1, status=429, retryAfter="1"),
            request(12.2, outcome="truncated"),
            request(12.3, outcome="error-event"),
            request(12.4, resumed=True),
            request(12.5, switched=2),
        ]
        fault = analyse(requests, MARKS, "us-west").phases["fault"]
        assert (fault.lost, fault.full, fault.cut, fault.error_events, fault.resumed, fault.switched) == (2, 1, 1, 1, 1, 1)
        assert fault.failed == 4
        assert fault.outcomes == {"error-event": 1, "ok": 22, "status": 2, "truncated": 1}
        assert fault.clusters == {"us-east": 22}


class TestAddedLatency:
    def test_p99_is_held_against_p99_and_the_worst_against_the_median(self) -> None:
        requests = [*steady(0, 9.9, 0.010), request(9.9, 0.050), *steady(10, 19.8, 0.020), request(19.8, 0.120), request(19.9, 1.010)]
        found = analyse(requests, MARKS, "us-west")
        # Of 100 values the 99th percentile is the 99th: 0.010 before, 0.120 after.
        assert found.added_p99 == pytest.approx(0.110)
        assert found.added_worst == pytest.approx(1.0)

    def test_a_short_burst_shows_in_the_first_seconds_though_not_in_the_whole_phase(self) -> None:
        requests = [*steady(0, 9.9), *steady(10, 10.2, 1.0, 0.1), *steady(10.2, 60)]
        found = analyse(requests, {"fault": 10.0, "heal": 60.0}, "us-west")
        assert found.added_p99 == pytest.approx(0)
        assert found.added_p99_burst == pytest.approx(0.99)

    def test_failures_are_no_latencies(self) -> None:
        found = analyse([*steady(0, 20), lost(12.0, 9.0)], MARKS, "us-west")
        assert found.added_worst == pytest.approx(0)

    def test_the_first_token_is_measured_apart_from_the_end(self) -> None:
        slow_end = request(12.0, 3.0, firstToken=12.3, headers=12.3)
        found = analyse([*steady(0, 12), slow_end], MARKS, "us-west")
        assert found.added_met == pytest.approx(0.29)
        assert found.added_worst == pytest.approx(2.99)

    def test_a_promise_is_held_against_what_may_have_met_the_fault(self) -> None:
        under_way, early, late, switched = request(9.9, 0.5), request(10.1, 0.2), request(10.3, 0.9), request(15.0, 0.3, switched=1)
        everything = [*steady(0, 9.8), under_way, early, late, switched]
        left_soon = samples({9.9: 100, 10.1: 101, 10.2: 102, 10.3: 102, 16.0: 102})
        found = analysis.may_have_met(everything, 10.0, 20.0, 0.2)
        assert found == [under_way, early, switched]
        assert analyse(everything, MARKS, "us-west", left_soon).added_met == pytest.approx(0.49)
        # Where no front door told when it left the region, nothing is excused, but for a change of doors that tells it.
        assert analysis.may_have_met([under_way, early, late], 10.0, 20.0, None) == [under_way, early, late]
        assert analysis.may_have_met(everything, 10.0, 20.0, None) == [switched]


class TestMedianIsBack:
    def test_at_once_where_it_never_left(self) -> None:
        assert analyse(steady(0, 20), MARKS, "us-west").back == 0.0

    def test_when_half_of_a_window_is_fast_again_and_stays_so(self) -> None:
        requests = [*steady(0, 9.9), *steady(10, 12, 0.5), *steady(12, 20)]
        # The window that begins 0.5 s before 12.0 has five slow and five fast requests; the nearest rank of 50 is the fifth.
        assert analyse(requests, MARKS, "us-west").back == pytest.approx(1.5)

    def test_one_good_second_between_bad_ones_does_not_count(self) -> None:
        requests = [*steady(0, 9.9), *steady(10, 11, 0.5), *steady(11, 12.5), *steady(12.5, 14, 0.5), *steady(14, 20)]
        assert analyse(requests, MARKS, "us-west").back == pytest.approx(3.5)

    def test_failed_requests_keep_it_away(self) -> None:
        requests = [*steady(0, 9.9), *(lost(10 + place / 10) for place in range(30)), *steady(13, 20)]
        assert analyse(requests, MARKS, "us-west").back == pytest.approx(2.5)

    def test_never_where_it_stays_away_or_the_fault_ends_too_soon_to_tell(self) -> None:
        slow = [*steady(0, 9.9), *steady(10, 20, 0.5)]
        assert analyse(slow, MARKS, "us-west").back is None
        soon = [*steady(0, 9.9), *steady(10, 12, 0.5), *steady(12, 14)]
        assert analyse(soon, {"fault": 10.0, "heal": 14.0}, "us-west").back is None

    def test_noise_of_a_few_milliseconds_around_a_small_median_is_not_slow(self) -> None:
        requests = [*steady(0, 9.9, 0.002), *steady(10, 20, 0.011)]
        assert analyse(requests, MARKS, "us-west").back == 0.0


def samples(counts: dict[float, int], door: str = "eu-west") -> list[DoorSample]:
    return [DoorSample(at=at, sent={door: {"us-east": 1000, "us-west": count}}) for at, count in counts.items()]


class TestKeptOut:
    def test_names_what_front_doors_left_alone_between_fault_and_mending(self) -> None:
        seen = [
            DoorSample(at=9.0, sent={}, flags={"eu-west": {"us-east": ["failed_active_health_check"]}}),
            DoorSample(at=11.0, sent={}, flags={"eu-west": {"us-west": ["failed_outlier_check"], "us-east": []}}),
            DoorSample(at=25.0, sent={}, flags={"eu-west": {"us-east": ["failed_active_health_check"]}}),
        ]
        assert analyse(steady(0, 20), MARKS, "us-west", seen).kept_out == ["us-west"]
        assert analyse(steady(0, 20), MARKS, "us-west", seen[:1]).kept_out is None


class TestUnderWay:
    def test_counts_answers_of_the_victim_that_the_fault_could_cut(self) -> None:
        begun = {"firstToken": 9.5, "headers": 9.5, "cluster": "us-west"}
        cut = [request(9.4, 2.0, **begun), request(9.4, 0.8, outcome="truncated", **begun), request(9.3, None, outcome="timeout", **begun)]
        others = [request(9.4, 0.3, **begun), request(9.4, 2.0, firstToken=9.5), request(9.9, 2.0, cluster="us-west", firstToken=10.5)]
        assert analyse([*steady(0, 9), *cut, *others], MARKS, "us-west").under_way == 3


class TestDeadShare:
    def test_ends_at_the_sample_that_counts_the_last_request(self) -> None:
        seen = samples({9.9: 100, 10.0: 105, 10.1: 108, 10.2: 109, 10.3: 109, 12.0: 109})
        found = analyse(steady(0, 20), MARKS, "us-west", seen)
        assert found.dead_share_zero == pytest.approx(0.2)
        assert found.sample_interval == pytest.approx(0.1)

    def test_a_late_request_counts_even_after_a_long_silence(self) -> None:
        seen = samples({9.9: 100, 10.1: 108, 10.2: 108, 15.0: 109, 16.0: 109})
        found = analyse(steady(0, 20), MARKS, "us-west", seen)
        assert found.dead_share_zero == pytest.approx(5.0)
        assert found.sample_interval == pytest.approx(4.8)

    def test_is_zero_where_nothing_was_sent_after_the_fault(self) -> None:
        found = analyse(steady(0, 20), MARKS, "us-west", samples({9.9: 100, 10.1: 100, 10.2: 100}))
        assert found.dead_share_zero == 0.0

    def test_every_door_counts(self) -> None:
        seen = samples({9.9: 100, 10.1: 100, 10.2: 100}) + samples({9.95: 7, 10.15: 7, 13.0: 8}, door="us-east")
        assert analyse(steady(0, 20), MARKS, "us-west", seen).dead_share_zero == pytest.approx(3.0)

    def test_what_a_healed_region_is_sent_is_not_sent_to_a_dead_one(self) -> None:
        seen = samples({9.9: 100, 10.1: 108, 19.9: 108, 20.1: 120})
        assert analyse(steady(0, 30), MARKS, "us-west", seen).dead_share_zero == pytest.approx(0.1)

    def test_a_door_that_was_started_again_counts_from_nothing(self) -> None:
        quiet = samples({9.9: 100, 10.1: 0, 10.2: 0})
        assert analyse(steady(0, 20), MARKS, "us-west", quiet).dead_share_zero == 0.0
        busy = samples({9.9: 100, 10.1: 0, 10.2: 3, 10.3: 3})
        assert analyse(steady(0, 20), MARKS, "us-west", busy).dead_share_zero == pytest.approx(0.2)

    def test_is_unknown_without_samples_on_both_sides_of_the_fault(self) -> None:
        for seen in ([], samples({9.9: 100}), samples({10.1: 100, 10.2: 101})):
            found = analyse(steady(0, 20), MARKS, "us-west", seen)
            assert found.dead_share_zero is None
            assert found.sample_interval is None


class TestFailback:
    def test_from_readiness_to_the_first_answer_of_the_healed_region(self) -> None:
        back = [request(26.0, 0.02, cluster="us-west"), request(27.0, 0.02, cluster="us-west")]
        assert analyse([*steady(0, 30), *back], MARKS, "us-west").failback == pytest.approx(2.02)

    def test_an_answer_before_the_drill_saw_the_region_ready_is_no_negative_time(self) -> None:
        assert analyse([*steady(0, 30), request(23.0, 0.02, cluster="us-west")], MARKS, "us-west").failback == 0.0

    def test_is_unknown_where_it_never_answered_or_only_before_the_fault(self) -> None:
        assert analyse([*steady(0, 30), request(5.0, 0.02, cluster="us-west")], MARKS, "us-west").failback is None


class TestErrorAnswers:
    def test_answer_times_are_those_while_no_region_could_serve(self) -> None:
        marks = {**MARKS, "all-down": 11.0}
        requests = [*steady(0, 9.9), lost(10.5, 0.9), lost(11.5, 0.03, error="no_region: none serves"), lost(12.0, 0.05, error="upstream connect error")]
        found = analyse(requests, marks, "us-west")
        assert found.after_all_down == 2
        assert found.unavailable.count == 3
        down = found.unavailable_all_down
        assert (down.count, down.explained) == (2, 1)
        assert down.time is not None
        assert down.time.worst == pytest.approx(0.05)

    def test_429_tells_its_time_and_whether_retry_after_is_there(self) -> None:
        full = [lost(15.0, 0.02, 429, retryAfter="1", error="overloaded: full"), lost(15.1, 0.04, 429, error="overloaded: full")]
        found = analyse([*steady(0, 20), *full], {**MARKS, "all-down": 15.05}, "us-west")
        assert (found.overloaded.count, found.overloaded.retry_after, found.overloaded.explained) == (2, 1, 2)
        assert found.early_full == 1

    def test_early_refusals_are_unknown_where_nobody_marked_when_all_were_full(self) -> None:
        assert analyse([*steady(0, 20), lost(15.0, status=429)], MARKS, "us-west").early_full is None


class TestTimeLine:
    def test_bars_of_a_tenth_of_a_second_without_gaps(self) -> None:
        requests = [request(0.0), request(0.05, cluster="us-west"), request(0.25, 0.3), lost(0.26), request(0.27, outcome="truncated")]
        bars = analyse(requests, {"end": 0.5}, "").buckets
        assert [bar.at for bar in bars] == [0.0, 0.1, 0.2, 0.3, 0.4]
        assert bars[0].clusters == {"us-east": 1, "us-west": 1}
        assert (bars[2].clusters, bars[2].lost, bars[2].cut, bars[2].failed, bars[2].requests) == ({"us-east": 1}, 1, 1, 2, 3)
        assert bars[2].worst == pytest.approx(0.3)
        assert bars[1].worst is None

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 400), max_size=80))
    def test_every_request_is_in_one_bar_and_in_one_phase(self, dues: list[int]) -> None:
        requests = [request(due / 16, 0.01) for due in dues]
        found = analyse(requests, {**MARKS, "end": 30.0}, "us-west")
        assert sum(bar.requests for bar in found.buckets) == found.requests == len(requests)
        assert math.isclose(sum(sum(phase.clusters.values()) for phase in found.phases.values()), len(requests))


def test_answers_tell_which_revisions_gave_them() -> None:
    other = replace(request(2.0), revision="xyz")
    assert analyse([request(1.0), other, lost(3.0)], {}, "").revisions == ["abc", "xyz"]
