"""What a drill's records say, as numbers: pure arithmetic on records, marks and samples, nothing is asked of a fleet.

All times are seconds since the load began. A latency counts from when a request was due, not from when it was sent: a load
generator that is held up would otherwise hide exactly the requests that waited. Percentiles are exact (nearest rank, over
all values, no buckets). A latency exists of complete answers only; what failed is counted, never averaged in.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from operations.drills.result import DoorSample, DrillResult

# How an error of the fleet's own parts begins in a record: its type. Another text is a bare body, Envoy's own or none.
EXPLAINED = ("engine_stalled: ", "no_region: ", "overloaded: ", "region_lost: ", "stream_cut: ")

# Marks on the time line of a drill, as DrillResult explains them.
FAULT, ALL_DOWN, HEAL, HEALTHY, END = "fault", "all-down", "heal", "healthy", "end"
LOST, REPLACED, AGREED = "lost", "replaced", "agreed"

BUCKET = 0.1
"""Width of a bar of the time line, in seconds."""
_WINDOW = 1.0
_STAYS = 2.0
# Around a median of a few milliseconds scheduling noise alone is half of it: nobody would call that slow.
_BACK_FACTOR, _BACK_SLACK = 1.5, 0.010
# What a fault costs is spent in its first seconds; over a phase of a minute a 99th percentile does not see it.
_BURST = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request as the load generator recorded it. None is what did not come."""

    label: str
    n: int
    door: str
    due: float
    sent: float | None
    headers: float | None
    first_token: float | None
    end: float | None
    status: int | None
    cluster: str
    revision: str
    outcome: str
    tokens: int
    resumed: bool
    switched: int
    retry_after: str | None
    error: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Raises ValueError that names the field which is missing or of a wrong type."""
        try:
            return cls(
                label=str(record.get("label") or ""),
                n=int(record["n"]),
                door=str(record.get("door") or ""),
                due=float(record["due"]),
                sent=_seconds(record.get("sent")),
                headers=_seconds(record.get("headers")),
                first_token=_seconds(record.get("firstToken")),
                end=_seconds(record.get("end")),
                status=int(record["status"]) if record.get("status") else None,
                cluster=str(record.get("cluster") or ""),
                revision=str(record.get("revision") or ""),
                outcome=str(record["outcome"]),
                tokens=int(record.get("tokens") or 0),
                resumed=bool(record.get("resumed")),
                switched=int(record.get("switched") or 0),
                retry_after=None if record.get("retryAfter") is None else str(record["retryAfter"]),
                error=str(record.get("error") or ""),
            )
        except KeyError as error:
            raise ValueError(f"record of a request: {error.args[0]}: must be there, got: `{sorted(record)}`") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"record of a request: {error}, got: `{dict(record)}`") from None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def latency(self) -> float | None:
        """From due to the end of a complete answer."""
        return self.end - self.due if self.ok and self.end is not None else None

    @property
    def first_token_latency(self) -> float | None:
        """From due to the first token, also of an answer that broke off later."""
        if self.first_token is None or self.status is None or self.status >= 400:
            return None
        return self.first_token - self.due

    @property
    def lost_before_token(self) -> bool:
        """Failed with nothing of an answer seen: what a front door could have sent elsewhere. Includes error answers."""
        return not self.ok and not self.cut and self.first_token_latency is None

    @property
    def cut(self) -> bool:
        """Began and broke off: neither a proper end nor an error event. A client may take it for the whole answer.

        So is a stream that ended properly, but without a single token.
        """
        broke_off = self.outcome not in ("ok", "error-event") and self.first_token_latency is not None
        return broke_off or self.outcome == "truncated"

    @property
    def error_event(self) -> bool:
        """Began, and ended with an error that the client can see."""
        return self.outcome == "error-event" and not self.lost_before_token

    @property
    def answered(self) -> float | None:
        """When the caller heard something: the headers, or where they were not recorded the end."""
        return self.headers if self.headers is not None else self.end

    @property
    def answer_time(self) -> float | None:
        """From due to the end of any answer of a server, an error answer too."""
        return self.end - self.due if self.status is not None and self.end is not None else None


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Percentiles of some values in seconds; `count` of them."""

    count: int
    p50: float
    p95: float
    p99: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a drill, `begin` to `end`.

    baseline: before the fault. fault: until the mending begins. recovery: until the mended region can serve. failback: after.
    A request belongs to the phase in which it was due. One that was still under way when the fault came belongs to the fault,
    so that nothing the fault did counts as baseline.
    """

    name: str
    begin: float
    end: float
    requests: int
    ok: int
    lost: int
    """Failed before the first token, error answers included."""
    full: int
    """Of the lost: answered 429."""
    cut: int
    """Broke off after the first token without an error event."""
    error_events: int
    resumed: int
    switched: int
    """Requests that went to another front door because theirs did not take them or broke off."""
    latency: Spread | None
    first_token: Spread | None
    outcomes: Mapping[str, int]
    clusters: Mapping[str, int]
    """Complete answers by the region that gave them."""

    @property
    def failed(self) -> int:
        return self.lost + self.cut + self.error_events


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bar of the time line: the requests that were due in `at` … `at` + BUCKET."""

    at: float
    clusters: Mapping[str, int]
    lost: int
    cut: int
    error_events: int
    p50: float | None
    worst: float | None
    """Of the latencies of its complete answers."""

    @property
    def failed(self) -> int:
        return self.lost + self.cut + self.error_events

    @property
    def requests(self) -> int:
        return sum(self.clusters.values()) + self.failed


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Error answers of one status: how long they took and how they were."""

    count: int
    time: Spread | None
    """From due to the end of the answer."""
    retry_after: int
    """With a Retry-After header."""
    explained: int
    """With one of the fleet's own errors in the body: OpenAI's shape, and a type that tells what happened."""


@dataclass(frozen=True, kw_only=True)
class AddedLatency:
    """How much later answers came than before the fault. None is what could not be told from the records."""

    added_p99: float | None
    """p99 of the fault phase less that of the baseline: latency of complete answers."""
    added_p99_burst: float | None
    """The same over the first three seconds of the fault alone."""
    added_worst: float | None
    """The longest latency of the fault phase less the median of the baseline."""
    added_first_token_p99: float | None
    added_first_token_worst: float | None
    """The same of the first token; it is the end of an answer that is not streamed."""
    added_met: float | None
    """The longest time to the first token of the requests that may have met the fault, less the median of the baseline; see
    `may_have_met`."""
    back: float | None
    """Seconds from the fault until the median latency is back; see `time_until_back`."""


@dataclass(frozen=True, kw_only=True)
class RegionUse:
    """How the harmed region was left and used again. None is what could not be told from the records and samples."""

    dead_share_zero: float | None
    """Seconds from the fault until the last request to the dead region; see `last_sent`."""
    sample_interval: float | None
    """By how much that may be too long: the pause between the two samples that tell it."""
    failback: float | None
    """Seconds from the healed region's readiness to its first answer; see `time_to_failback`."""
    under_way: int | None
    """Answers of the victim that had begun and not ended when the fault came: the streams that it could cut."""
    kept_out: Sequence[str] | None
    """Clusters that a front door ejected at some time between fault and recovery; None without samples in that time."""


@dataclass(frozen=True, kw_only=True)
class ErrorAnswers:
    """Error answers by what they mean."""

    overloaded: Answers
    """429, of the whole run."""
    unavailable: Answers
    """503, of the whole run."""
    unavailable_all_down: Answers
    """503 to requests that were due while no region could serve."""
    after_all_down: int
    """Requests that were due while no region could serve, or all were full."""
    early_full: int | None
    """429 before all regions were full; None where no mark says when they were."""


@dataclass(frozen=True, kw_only=True)
class Analysis(AddedLatency, RegionUse, ErrorAnswers):
    """Everything that is computed of one run."""

    marks: Mapping[str, float]
    phases: Mapping[str, Phase]
    revisions: Sequence[str]
    """Of the model, by which answers say that they were given."""
    buckets: Sequence[Bucket] = field(default_factory=list[Bucket])

    @property
    def requests(self) -> int:
        return sum(each.requests for each in self.phases.values())

    def harmed_by(self, what: Callable[[Phase], int]) -> int:
        """Something that is counted of phases, over those in which it is the drill's: all but the baseline."""
        return sum(what(phase) for name, phase in self.phases.items() if name != "baseline")


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the smallest value that at least `percent` of the values do not exceed. Values must be sorted.

    Raises ValueError without values, or where `percent` is not in 0 … 100.
    """
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"percentile: needs values and a percent from 0 to 100, got: `{len(values)}` values, `{percent}`")
    # In thousandths of a percent and whole numbers: 0.95 * 100 is more than 95 as a float.
    rank = -(-len(values) * round(percent * 1000) // 100_000)
    return values[max(rank, 1) - 1]


def spread(values: Iterable[float | None]) -> Spread | None:
    known = sorted(each for each in values if each is not None)
    if not known:
        return None
    return Spread(count=len(known), p50=percentile(known, 50), p95=percentile(known, 95), p99=percentile(known, 99), worst=known[-1])


def bounds(marks: Mapping[str, float], end: float) -> dict[str, tuple[float, float]]:
    """Begin and end of each phase that the marks tell of. Without a fault all is baseline.

    Raises ValueError where marks contradict each other.
    """
    order = [name for name in (FAULT, HEAL, HEALTHY) if name in marks]
    times = [marks[name] for name in order]
    if times != sorted(times) or (times and times[0] < 0):
        told = ", ".join(f"{name} {marks[name]:g}" for name in order)
        raise ValueError(f"marks must come in the order {', '.join(order)} and after the begin of the load, got: `{told}`")
    names = {"": "baseline", FAULT: "fault", HEAL: "recovery", HEALTHY: "failback"}
    cuts = [0.0, *times, max(end, *times, 0.0)]
    return {names[name]: (begin, until) for name, (begin, until) in zip(["", *order], itertools.pairwise(cuts), strict=True)}


def _phase_of(request: Request, limits: Mapping[str, tuple[float, float]]) -> str:
    name = "baseline"
    for each, (begin, _) in limits.items():
        if request.due >= begin:
            name = each
    if name == "baseline" and "fault" in limits and (request.end is None or request.end > limits["fault"][0]):
        return "fault"
    return name


def _phase(name: str, limits: tuple[float, float], requests: Sequence[Request]) -> Phase:
    return Phase(
        name=name,
        begin=limits[0],
        end=limits[1],
        requests=len(requests),
        ok=sum(each.ok for each in requests),
        lost=sum(each.lost_before_token for each in requests),
        full=sum(each.lost_before_token and each.status == 429 for each in requests),
        cut=sum(each.cut for each in requests),
        error_events=sum(each.error_event for each in requests),
        resumed=sum(each.resumed for each in requests),
        switched=sum(each.switched > 0 for each in requests),
        latency=spread(each.latency for each in requests),
        first_token=spread(each.first_token_latency for each in requests),
        outcomes=dict(sorted(Counter(each.outcome for each in requests).items())),
        clusters=dict(sorted(Counter(each.cluster or "unknown" for each in requests if each.ok).items())),
    )


def time_until_back(requests: Iterable[Request], baseline_p50: float, fault: float, until: float) -> float | None:
    """Seconds from the fault until the median latency is as before it, None if it never is.

    Requests are put into windows of 1 s by when they were due; windows begin every 100 ms from the fault on and end no later
    than `until`. A window is good when its median is at most 1.5 times the baseline's median or 10 ms above it, whichever is
    more; a failed request counts as infinitely late, and a window without requests is skipped. The median is back at the
    begin of the first good window whose followers of the next 2 s are good too, so that one lucky window does not count; so
    the last 3 s before `until` cannot show it.
    """
    due = sorted((each.due, math.inf if each.latency is None else each.latency) for each in requests if fault <= each.due < until)
    limit = max(baseline_p50 * _BACK_FACTOR, baseline_p50 + _BACK_SLACK)
    good: list[tuple[float, bool]] = []
    low = high = 0
    for step in itertools.count():
        begin = fault + step * BUCKET
        if begin + _WINDOW > until + 1e-9:
            break
        while low < len(due) and due[low][0] < begin - 1e-9:
            low += 1
        while high < len(due) and due[high][0] < begin + _WINDOW - 1e-9:
            high += 1
        if low < high:
            good.append((begin, percentile(sorted(latency for _, latency in due[low:high]), 50) <= limit))
    for place, (begin, _) in enumerate(good):
        if begin + _STAYS + _WINDOW > until + 1e-9:
            break
        following = itertools.takewhile(lambda each, begin=begin: each[0] <= begin + _STAYS + 1e-9, good[place:])
        if all(is_good for _, is_good in following):
            return begin - fault
    return None


def last_sent(samples: Sequence[DoorSample], victim: str, fault: float, until: float) -> tuple[float | None, float | None]:
    """(seconds from the fault to the last request to `victim`, pause between samples before the one that tells it).

    From the front doors' own counters (Envoy's rq_total of the region's endpoint). The last request is taken to be sent at
    the sample that first counts it, so the first figure is too long by up to the second, never too short. Retries count:
    they are sent to the region too. Only what happened before `until`, as a region that is being healed may be asked again.
    A counter that fell belongs to a door that was started again. 0.0 where nothing was sent after the fault; (None, None)
    without samples on both sides of the fault.
    """
    inside = [each for each in sorted(samples, key=lambda each: each.at) if each.at <= until]
    before = [each for each in inside if each.at <= fault][-1:]
    after = [each for each in inside if each.at > fault]
    if not before or not after:
        return None, None
    counted: dict[str, int] = {}
    last, pause, previous = 0.0, after[0].at - before[0].at, before[0].at
    for sample in [*before, *after]:
        grown = False
        for door, sent in sample.sent.items():
            if victim not in sent:
                continue
            now = sent[victim]
            # A door that is seen for the first time has sent nothing that can be told from its past.
            known = counted.get(door, now)
            grown |= now > known or (now < known and now > 0)
            counted[door] = now
        if grown and sample.at > fault:
            last, pause = sample.at - fault, sample.at - previous
        previous = sample.at
    return (last, pause) if counted else (None, None)


def may_have_met(requests: Sequence[Request], fault: float, heal: float, left: float | None) -> list[Request]:
    """Requests to which the fault may have happened: what a computed worst case speaks of.

    Those under way when it came, those that were due until the front doors had left the region (`left` seconds after the
    fault), and those that went to another front door. Others never met it; what makes them late is the machine. Where
    nobody knows when the region was left, all that were due until the mending, if none changed doors.
    """
    during = [each for each in requests if each.due < heal and (each.end is None or each.end > fault)]
    switched = [each for each in during if each.switched]
    if left is None:
        return switched or during
    return [each for each in during if each.due <= fault + left or each.switched]


def time_to_failback(requests: Iterable[Request], victim: str, heal: float, healthy: float) -> float | None:
    """Seconds from the readiness of the healed region to the first complete answer that it gave to a caller.

    Only requests that were due after the mending began. 0.0 where it answered before the drill saw it ready.
    """
    answers = [each.answered for each in requests if each.ok and each.cluster == victim and each.due >= heal and each.answered is not None]
    return max(0.0, min(answers) - healthy) if answers else None


def error_answers(requests: Iterable[Request], status: int) -> Answers:
    found = [each for each in requests if each.status == status]
    return Answers(
        count=len(found),
        time=spread(each.answer_time for each in found),
        retry_after=sum(each.retry_after is not None for each in found),
        explained=sum(each.error.startswith(EXPLAINED) for each in found),
    )


def time_line(requests: Iterable[Request], begin: float, end: float) -> list[Bucket]:
    """Requests by when they were due, in bars of 100 ms without gaps."""
    count = max(0, math.ceil((end - begin) / BUCKET - 1e-9))
    held: list[list[Request]] = [[] for _ in range(count)]
    for each in requests:
        place = int((each.due - begin) / BUCKET + 1e-9)
        if 0 <= place < count:
            held[place].append(each)
    return [_bucket(round(begin + place * BUCKET, 6), inside) for place, inside in enumerate(held)]


def _bucket(at: float, inside: Sequence[Request]) -> Bucket:
    latency = spread(each.latency for each in inside)
    return Bucket(
        at=at,
        clusters=dict(sorted(Counter(each.cluster or "unknown" for each in inside if each.ok).items())),
        lost=sum(each.lost_before_token for each in inside),
        cut=sum(each.cut for each in inside),
        error_events=sum(each.error_event for each in inside),
        p50=latency.p50 if latency else None,
        worst=latency.worst if latency else None,
    )


def of(result: DrillResult, victim: str) -> Analysis:
    """`victim`: as in `analyse`. Raises ValueError that names what is wrong in a record or in the marks."""
    requests = [Request.from_record(each) for each in result.requests]
    return analyse(requests, {name: float(at) for name, at in result.marks.items()}, victim, result.samples)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Records sorted into phases, and the moments between which figures are taken."""

    requests: Sequence[Request]
    marks: Mapping[str, float]
    victim: str
    samples: Sequence[DoorSample]
    end: float
    groups: Mapping[str, Sequence[Request]]
    phases: Mapping[str, Phase]

    @property
    def fault_at(self) -> float:
        return self.marks.get(FAULT, math.inf)

    @property
    def heal_at(self) -> float:
        return self.marks.get(HEAL, self.end)

    @property
    def has_fault(self) -> bool:
        return "fault" in self.phases


def analyse(requests: Sequence[Request], marks: Mapping[str, float], victim: str, samples: Sequence[DoorSample] = ()) -> Analysis:
    """All of it. `victim`: the cluster that is harmed, empty where it is none in particular.

    Raises ValueError where marks contradict each other. Requests may be few or none: what cannot be told is None.
    """
    last = max((each.due if each.end is None else max(each.due, each.end) for each in requests), default=0.0)
    end = marks.get(END, last)
    limits = bounds(marks, end)
    groups: dict[str, list[Request]] = {name: [] for name in limits}
    for each in requests:
        groups[_phase_of(each, limits)].append(each)
    phases = {name: _phase(name, limits[name], groups[name]) for name in limits}
    run = _Run(requests=requests, marks=marks, victim=victim, samples=samples, end=end, groups=groups, phases=phases)
    region = _region_use(run)
    return Analysis(
        marks=dict(marks),
        phases=phases,
        revisions=sorted({each.revision for each in requests if each.ok and each.revision}),
        buckets=time_line(requests, 0.0, end),
        **vars(_added_latency(run, region)),
        **vars(region),
        **vars(_error_answers(run)),
    )


def _added_latency(run: _Run, region: RegionUse) -> AddedLatency:
    baseline, fault = run.phases["baseline"], run.phases.get("fault")
    burst = spread(each.latency for each in run.groups.get("fault", []) if each.due < run.fault_at + _BURST)
    # With the pause between samples: what was sent in it is told by the next one.
    left = None if region.dead_share_zero is None or region.sample_interval is None else region.dead_share_zero + region.sample_interval
    met = spread(each.first_token_latency for each in may_have_met(run.requests, run.fault_at, run.heal_at, left)) if fault else None
    latency, first_token = (fault.latency, fault.first_token) if fault else (None, None)
    return AddedLatency(
        added_p99=_added(baseline.latency, latency, "p99"),
        added_p99_burst=_added(baseline.latency, burst, "p99"),
        added_worst=_added(baseline.latency, latency, "worst"),
        added_first_token_p99=_added(baseline.first_token, first_token, "p99"),
        added_first_token_worst=_added(baseline.first_token, first_token, "worst"),
        added_met=_added(baseline.first_token, met, "worst"),
        back=time_until_back(run.requests, baseline.latency.p50, run.fault_at, run.heal_at) if fault and baseline.latency else None,
    )


def _region_use(run: _Run) -> RegionUse:
    harmed = run.has_fault and bool(run.victim)
    zero, pause = last_sent(run.samples, run.victim, run.fault_at, run.heal_at) if harmed else (None, None)
    came_back = HEAL in run.marks and HEALTHY in run.marks
    return RegionUse(
        dead_share_zero=zero,
        sample_interval=pause,
        failback=time_to_failback(run.requests, run.victim, run.marks[HEAL], run.marks[HEALTHY]) if came_back else None,
        under_way=_under_way(run.requests, run.victim, run.fault_at) if harmed else None,
        kept_out=_kept_out(run.samples, run.fault_at, run.heal_at) if run.has_fault else None,
    )


def _error_answers(run: _Run) -> ErrorAnswers:
    nobody_left = run.marks.get(ALL_DOWN)
    down = [each for each in run.requests if nobody_left is not None and nobody_left <= each.due < run.heal_at]
    return ErrorAnswers(
        overloaded=error_answers(run.requests, 429),
        unavailable=error_answers(run.requests, 503),
        unavailable_all_down=error_answers(down, 503),
        after_all_down=len(down),
        early_full=None if nobody_left is None else sum(each.status == 429 and each.due < nobody_left for each in run.requests),
    )


def _kept_out(samples: Sequence[DoorSample], begin: float, end: float) -> Sequence[str] | None:
    inside = [each for each in samples if begin < each.at <= end]
    return sorted({name for each in inside for flags in each.flags.values() for name, told in flags.items() if told}) if inside else None


def _under_way(requests: Sequence[Request], victim: str, fault: float) -> int:
    begun = [each for each in requests if each.cluster == victim and each.first_token is not None and each.first_token <= fault]
    return sum(each.end is None or each.end > fault for each in begun)


def _added(before: Spread | None, after: Spread | None, which: str) -> float | None:
    """How much later. The worst is held against the median: against the worst, one hiccup before the fault would excuse it."""
    if before is None or after is None:
        return None
    return after.worst - before.p50 if which == "worst" else after.p99 - before.p99
