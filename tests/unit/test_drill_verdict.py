"""A drill passes only where every goal of its case was measured and kept."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from operations.drills.goals import NOT_MEASURED, Line, seconds
from operations.drills.result import DoorSample, DrillResult
from operations.drills.verdict import Verdict, analysed, judge, too_busy
from tests.unit.drills import FAULT, HEAL, MARKS, door_samples, drilled, record, records, refused, streamed


def judged(result: DrillResult) -> Verdict:
    return judge(result, analysed(result))


def lines(result: DrillResult) -> Mapping[str, Line]:
    return {line.name: line for line in judged(result).lines}


def broken(result: DrillResult) -> set[str]:
    return {line.name for line in judged(result).failed}


def harmed_by(result: DrillResult, *more: dict[str, Any]) -> DrillResult:
    return replace(result, requests=[*result.requests, *more])


class TestWhatAllCasesShare:
    @pytest.mark.parametrize("case", ["kill", "hub-down", "hang", "blackhole", "engine-hang", "drain", "flap"])
    def test_a_drill_in_which_all_went_well_passes(self, case: str) -> None:
        assert broken(drilled(case)) == set()
        assert judged(drilled(case)).passed

    def test_an_unknown_case_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(ValueError, match=r"case: must be one of kill, hang, .*, got: `earthquake`"):
            judged(drilled("earthquake"))

    @pytest.mark.parametrize("case", ["kill", "hub-down", "hang", "blackhole", "engine-hang", "drain", "replace"])
    def test_one_request_lost_before_its_first_token_is_one_too_many(self, case: str) -> None:
        lost = lines(harmed_by(drilled(case), refused(10.5, 503)))["failed before the first token"]
        assert (lost.ok, lost.measured) == (False, "1 of 201")

    def test_a_failure_after_the_mending_counts_as_well(self) -> None:
        assert "failed before the first token" in broken(harmed_by(drilled("kill"), refused(29.0, 503)))

    def test_a_machine_that_fails_without_the_fault_shows_nothing(self) -> None:
        assert "failed without the fault" in broken(harmed_by(drilled("kill"), refused(5.0, 429)))

    @pytest.mark.parametrize("case", ["kill", "hang", "engine-hang", "overload", "drain", "hub-down", "flap", "all-down", "gateway", "replace", "residency"])
    def test_a_drill_that_saw_nothing_does_not_pass(self, case: str) -> None:
        verdict = judged(drilled(case, requests=[], samples=[]))
        assert not verdict.passed
        assert all(line.measured in (NOT_MEASURED, "0", "some, or nothing was tried") for line in verdict.failed)

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            ([], ""),
            ([record(5.0, 0.09)] * 9, ""),
            ([record(5.0, 0.5)] * 9, "without the fault p99 is 490 ms above the median, more than 100 ms"),
            ([refused(5.0, 429)], "without the fault 1 of 101 requests failed"),
        ],
    )
    def test_times_say_nothing_where_the_machine_is_unsteady_without_the_fault(self, more: list[dict[str, Any]], why: str) -> None:
        assert too_busy(analysed(harmed_by(drilled("kill"), *more))) == why

    def test_nothing_is_known_of_a_machine_that_was_asked_nothing(self) -> None:
        assert too_busy(analysed(drilled("kill", requests=[], samples=[]))) == "without the fault 0 of 0 requests failed"

    def test_a_drill_that_was_broken_off_before_its_fault_does_not_pass(self) -> None:
        early = drilled("kill", marks={}, requests=records(0, 5), samples=[])
        assert lines(early)["failed before the first token"].measured == NOT_MEASURED
        assert not judged(early).passed

    def test_an_answer_of_a_cluster_that_may_not_serve_the_model_fails_any_case(self) -> None:
        stranger = lines(harmed_by(drilled("kill"), record(15.0, cluster="eu-west")))["answered by clusters that may not serve the model"]
        assert (stranger.ok, stranger.measured) == (False, "eu-west")

    def test_a_silent_change_of_the_model_fails_any_case(self) -> None:
        other = lines(harmed_by(drilled("kill"), record(15.0, revision="xyz")))["revisions of the model that answered"]
        assert (other.ok, other.measured) == (False, "abc, xyz")

    def test_nothing_at_all_is_no_pass(self) -> None:
        assert not Verdict(lines=()).passed


class TestKill:
    @pytest.mark.parametrize("case", ["kill", "hub-down"])
    def test_a_late_p99_breaks_it(self, case: str) -> None:
        slow = [record(11 + place / 100, 0.2) for place in range(10)]
        late = lines(harmed_by(drilled(case), *slow))["p99 latency later by"]
        assert (late.ok, late.measured) == (False, "190 ms")

    def test_a_request_to_the_dead_region_after_a_quarter_of_a_second_breaks_it(self) -> None:
        assert lines(drilled("kill", samples=door_samples(0.25)))["last request to us-west"].ok
        left = lines(drilled("kill", samples=door_samples(0.3)))["last request to us-west"]
        assert (left.ok, left.measured) == (False, "300 ms")

    def test_without_samples_of_the_doors_the_last_request_is_not_measured_and_not_kept(self) -> None:
        left = lines(drilled("kill", samples=[]))["last request to us-west"]
        assert (left.ok, left.measured) == (False, NOT_MEASURED)


class TestHang:
    @pytest.mark.parametrize("case", ["hang", "blackhole"])
    def test_goals_are_the_worst_latency_and_the_return_of_the_median(self, case: str) -> None:
        good = lines(drilled(case, samples=door_samples(2.0)))
        assert good["last request to us-west"].ok
        assert good["median latency back after"].ok
        assert "p99 latency later by" not in good
        assert "worst latency later by" in broken(harmed_by(drilled(case), record(10.1, 1.52)))
        assert "last request to us-west" in broken(drilled(case, samples=door_samples(2.1)))

    def test_a_median_that_stays_high_is_not_measured_and_not_kept(self) -> None:
        slow = drilled("hang", requests=[*records(0, FAULT, "us-west"), *(record(10 + place / 10, 0.3) for place in range(200))])
        back = lines(slow)["median latency back after"]
        assert (back.ok, back.measured) == (False, NOT_MEASURED)


class TestEngineHang:
    def test_the_region_must_stay_out_until_it_is_mended(self) -> None:
        assert lines(drilled("engine-hang", samples=door_samples(9.0)))["last request to us-west"].ok
        longer = drilled("engine-hang", marks={**MARKS, "heal": 25.0, "healthy": 26.0}, samples=door_samples(13.0))
        assert "last request to us-west" in broken(longer)


class TestStreams:
    def test_streams_that_went_on_elsewhere_pass(self) -> None:
        result = streamed(drilled("kill"))
        assert lines(result)["streams under way at the fault"].measured == "3"
        assert lines(result)["ended with an error event, though resumable"].measured == "0 of 203; 3 went on elsewhere"
        assert broken(result) == set()

    def test_a_stream_that_goes_on_elsewhere_may_end_later_but_a_first_token_may_not_come_later(self) -> None:
        first = record(10.2, 2.0, firstToken=10.9, headers=10.9)
        assert "p99 latency later by" not in lines(streamed(drilled("kill")))
        assert broken(harmed_by(streamed(drilled("kill")), *[first] * 3)) == {"p99 first token later by"}

    def test_a_silent_end_is_never_allowed(self) -> None:
        cut = record(9.5, 2.0, firstToken=9.6, cluster="us-west", outcome="truncated")
        for resume in (True, False):
            assert broken(harmed_by(streamed(drilled("kill"), resume=resume), cut)) == {"broken off without an error event"}

    def test_an_error_event_is_allowed_where_streams_are_not_resumed(self) -> None:
        told = record(9.5, 2.0, firstToken=9.6, cluster="us-west", outcome="error-event")
        assert broken(harmed_by(streamed(drilled("kill"), resume=False), told)) == set()
        assert broken(harmed_by(streamed(drilled("kill")), told)) == {"ended with an error event, though resumable"}

    def test_a_fault_that_met_no_stream_shows_nothing(self) -> None:
        assert broken(streamed(drilled("kill"), under_way=0)) == {"streams under way at the fault"}

    def test_an_answer_that_breaks_off_without_streaming_counts_too(self) -> None:
        assert broken(harmed_by(drilled("kill"), record(10.2, outcome="reset"))) == {"broken off in the answer"}


class TestOverload:
    def overloaded(self, **changes: Any) -> DrillResult:
        """us-west is full from 10 s on, all regions from 15 s on."""
        full = [refused(15 + place / 10, 429, 0.03, retryAfter="1", error="overloaded: full") for place in range(40)]
        marks = {"fault": FAULT, "all-down": 15.0, "heal": HEAL, "end": 30.0}
        result = drilled("overload", marks=marks, victim="", samples=[DoorSample(at=at / 10, sent={}) for at in range(300)])
        return replace(harmed_by(result, *full), **changes)

    def test_spills_and_then_refuses_at_once(self) -> None:
        assert broken(self.overloaded()) == set()
        assert lines(self.overloaded())["429 after"].measured == "30 ms"

    def test_a_refusal_while_there_is_room_breaks_it(self) -> None:
        assert broken(harmed_by(self.overloaded(), refused(12.0, 429, retryAfter="1"))) == {"429 before all regions were full"}

    def test_another_error_a_slow_refusal_and_a_missing_retry_after_break_it(self) -> None:
        assert broken(harmed_by(self.overloaded(), refused(16.0, 503))) == {"failed otherwise than by 429"}
        assert broken(harmed_by(self.overloaded(), refused(16.0, 429, 0.051, retryAfter="1"))) == {"429 after"}
        assert broken(harmed_by(self.overloaded(), refused(16.0, 429))) == {"429 with Retry-After"}

    def test_a_region_that_is_left_alone_for_being_full_breaks_it(self) -> None:
        ejected = DoorSample(at=16.0, sent={}, flags={"eu-west": {"us-west": ["failed_outlier_check"]}})
        left = lines(self.overloaded(samples=[ejected]))["regions ejected because they were full"]
        assert (left.ok, left.measured) == (False, "us-west")
        assert "regions ejected because they were full" in broken(self.overloaded(samples=[]))

    def test_a_load_that_filled_nothing_shows_nothing(self) -> None:
        assert "429 when all regions are full" in broken(replace(self.overloaded(), requests=drilled().requests))


class TestOtherCases:
    def test_a_drain_may_not_even_end_a_stream_with_an_error_event(self) -> None:
        told = record(9.5, 2.0, firstToken=9.6, cluster="us-west", outcome="error-event")
        assert "ended with an error event" in broken(harmed_by(streamed(drilled("drain"), resume=False), told))

    def test_flapping_may_fail_one_in_a_thousand(self) -> None:
        many = drilled("flap", requests=[*records(0, FAULT, "us-west"), *records(FAULT, HEAL, step=0.01), refused(11.0, 503)])
        assert lines(many)["failed"].measured == "1 of 1,001, 0.100%"
        assert lines(many)["failed"].ok
        assert "failed" in broken(harmed_by(many, refused(12.0, 503)))

    def test_failback_counts_from_readiness(self) -> None:
        late = drilled("kill", requests=[*records(0, FAULT, "us-west"), *records(FAULT, 29.2), *records(29.2, 30, "us-west")])
        line = lines(late)["first answer after the region's return"]
        assert (line.ok, line.measured) == (False, "5.21 s")

    def test_a_region_that_never_answers_again_is_told_as_not_measured(self) -> None:
        never = lines(drilled("kill", requests=[*records(0, FAULT, "us-west"), *records(FAULT, 30)]))["first answer after the region's return"]
        assert (never.ok, never.measured) == (False, NOT_MEASURED)

    def test_with_all_regions_down_every_request_is_told_so_at_once(self) -> None:
        told = {"error": "no_region: No region can serve this model now."}
        down = drilled("all-down", marks={"fault": FAULT, "all-down": 11.0, "heal": HEAL, "end": 21.0}, requests=records(0, FAULT))
        good = harmed_by(down, *(refused(11 + place / 10, 503, 0.03, **told) for place in range(80)))
        assert broken(good) == set()
        assert broken(harmed_by(good, refused(12.0, 503, 0.12, **told))) == {"503 after"}
        assert broken(harmed_by(good, refused(12.0, 503))) == {"503 with an error that says what happened"}
        assert broken(harmed_by(good, record(12.0, 20.0, outcome="timeout", status=None, firstToken=None))) == {"503 while no region can serve"}

    def test_a_model_that_must_stay_is_answered_by_an_error_and_by_nobody_else(self) -> None:
        told = {"error": "no_region: No region can serve this model now."}
        marks = {"fault": FAULT, "all-down": 11.0, "heal": HEAL, "end": 21.0}
        gone = [refused(11 + place / 10, 503, 0.03, **told) for place in range(80)]
        stays = drilled("residency", marks=marks, clusters=["eu-west"], victim="eu-west", requests=[*records(0, FAULT, "eu-west"), *gone])
        assert broken(stays) == set()
        assert broken(harmed_by(stays, record(12.0, cluster="us-east"))) == {
            "503 while no region can serve",
            "answered by clusters that may not serve the model",
        }

    def test_a_dead_front_door_is_no_matter_for_callers_who_know_another(self) -> None:
        assert broken(drilled("gateway")) == {"went to another front door"}
        assert broken(harmed_by(drilled("gateway"), record(10.1, switched=1))) == set()

    def test_replacing_needs_the_capacity_in_time_and_agreement(self) -> None:
        marks = {"fault": FAULT, "lost": 16.0, "replaced": 29.5, "agreed": 30.5, "end": 40.0}
        replaced = drilled("replace", marks=marks, requests=[*records(0, FAULT, "us-west"), *records(FAULT, 40)])
        assert broken(replaced) == set()
        assert lines(replaced)["hub and mesh agree on where the model is"].measured == "after 20.5 s"
        assert broken(replace(replaced, marks={**marks, "replaced": 30.5, "agreed": 31.0})) == {"replicas ready elsewhere after"}
        without = {name: at for name, at in marks.items() if name not in ("replaced", "agreed")}
        assert broken(replace(replaced, marks=without)) == {"replicas ready elsewhere after", "hub and mesh agree on where the model is"}


class TestPromisesAndObjectives:
    def test_a_measurement_above_what_was_computed_breaks_the_goal_that_is_kept_otherwise(self) -> None:
        line = lines(drilled("kill", computed={"back": 1.0}))["first answer after the region's return"]
        assert (line.ok, line.measured, line.computed) == (False, "1.01 s", "at most 1.00 s: measured above it")
        assert lines(drilled("kill", computed={"back": 2.4}))["first answer after the region's return"].ok

    def test_what_a_coarse_sample_cannot_tell_is_not_held_against_the_promise(self) -> None:
        # Sampled every 50 ms: counted at 100 ms, sent somewhere between 50 and 100.
        assert lines(drilled("kill", computed={"left": 0.06}))["last request to us-west"].ok
        assert not lines(drilled("kill", computed={"left": 0.04}))["last request to us-west"].ok

    def test_the_worst_first_token_is_held_against_the_promise(self) -> None:
        slow = harmed_by(drilled("kill", computed={"added": 0.111}), record(10.05, 0.3))
        assert broken(slow) == {"first token later by"}
        # That late was never sent to the dead region.
        assert broken(harmed_by(drilled("kill", computed={"added": 0.111}), record(17.0, 0.3))) == set()

    def test_what_nothing_bounds_is_no_promise(self) -> None:
        assert "first token later by" not in lines(drilled("kill", computed={"added": None}))

    def test_declared_objectives_count(self) -> None:
        slow = harmed_by(drilled("hang", objectives={"failoverSeconds": 1.0}), record(10.05, 1.2))
        assert broken(slow) == {"objective failoverSeconds"}
        marks = {"fault": FAULT, "replaced": 29.5, "agreed": 30.5, "end": 40.0}
        late = drilled("replace", marks=marks, requests=[*records(0, FAULT, "us-west"), *records(FAULT, 40)], objectives={"restoreSeconds": 19.0})
        assert broken(late) == {"objective restoreSeconds"}


@pytest.mark.parametrize(
    ("value", "want"), [(0.0, "0 ms"), (0.0049, "4.9 ms"), (0.0351, "35 ms"), (0.9996, "1.00 s"), (1.064, "1.06 s"), (20.5, "20.5 s"), (225.7, "226 s")]
)
def test_times_are_short_and_have_their_unit(value: float, want: str) -> None:
    assert seconds(value) == want
