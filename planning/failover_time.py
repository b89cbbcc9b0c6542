"""How long a failover takes at worst, from the declared numbers alone: for requests, and for capacity.

What is computed is an upper bound: a measurement may stay below it and must never exceed it. Every bound is a sum of parts,
each with its formula. Durations are seconds. Who acts in which case is docs/decisions/0009; docs/failover-budget.md
explains the parts and works an example.

Sources of what is not declared:

- Envoy 1.40. PINGs: `onKeepaliveResponse` in source/common/http/http2/codec_impl.cc. Waits before retries:
  source/common/common/backoff_strategy.cc. Checks: source/extensions/health_checkers and
  source/common/upstream/health_checker_base_impl.cc; the next check is due one interval after the last one ended.
- Karmada 1.18, members in push mode. Reads: pkg/controllers/status/cluster_status_controller.go, the threshold:
  cluster_condition_cache.go there. Taints: pkg/controllers/taint/clustertaintpolicy_controller.go. Eviction:
  taint_manager.go and eviction_worker.go in pkg/controllers/cluster. The flags --cluster-monitor-period and
  --cluster-monitor-grace-period play no part: `tryUpdateClusterHealth` in cluster_controller.go ends early for such members.
- client-go and apimachinery 0.35, by which Karmada reads its members: transport/cache.go, rest/request.go, pkg/util/net.

Not computed: a second fault at the same time, and waiting for a free slot in regions that are full.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from specs.failover import CapacityFailoverSpec, RequestFailoverSpec

# Envoy stretches every interval between PINGs by a random part, of at most this share, where nothing else is configured.
PING_JITTER = 0.15
# The same of the interval between active health checks, as components/mesh/envoy_filters.py asks for.
CHECK_JITTER = 0.1
# Envoy doubles the range of the random wait with each retry, up to this multiple of its base.
_BACKOFF_LIMIT = 10
# Allowance: what a busy proxy itself takes to notice, choose and connect. Not a timer; the drill measures it.
WORK = 0.1
# How often the engine watchdog looks at its engine: once a second, or four times within a short limit (`_look_on` in
# runtime_image/engine_guard.py).
_GUARD_LOOK = 1.0
_GUARD_LOOKS = 4

# Karmada gives a member this long for an answer (defaultTimeout in pkg/util/membercluster_client.go).
_READ_TIMEOUT = 32.0
# A connection on which nothing comes is given up: 30 s until a PING, 15 s for its answer. What was asked on it is asked again
# on a new one after a second.
_CONNECTION_LOST = 45.0
_ASK_AGAIN = 1.0
# How an attempt at a new connection to a silent member ends: no TLS handshake, no TCP connection, no answer.
_NEW_CONNECTION = (10.0, 30.0, _READ_TIMEOUT)
# Karmada evicts by three workers, each of which pauses after each binding; all take from one bucket of ten tokens a second,
# which holds a hundred. Only bindings whose toleration has run out are in their queue: `enqueueBinding` of taint_manager.go
# skips what tolerates the taint for ever, as routes do, and enqueues a model no sooner than it is due.
_EVICTION_WORKERS = 3
_EVICTION_BUCKET_RATE = 10.0
_EVICTION_BUCKET = 100
# Allowances for what follows from events, without a timer: from Ready=False to the taint; from the eviction to pods in the
# other clusters, through scheduler, Works, KServe and kube-scheduler; from a ready pod to the status on the hub. Measured on
# two cores that run four clusters: 0.2, 1.3 and 0.3.
_TAINT = 0.5
_DISPATCH = 3.0
_REPORT = 0.5

# A sum of floats may miss a multiple by a hair; that is no further round.
_HAIR = 1e-9


@dataclass(frozen=True, kw_only=True)
class Part:
    """One cause of waiting. `name` is stable, `why` tells how it follows from the numbers."""

    name: str
    seconds: float
    why: str


Parts = tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What decides how fast requests leave a region."""

    spec: RequestFailoverSpec
    regions: int
    """That serve the model."""
    attempts: int
    """At one request, retries included."""
    waited: float = 0.0
    """How long a request may have waited for its first token when the fault comes: that is lost, as it begins anew elsewhere."""
    gap: float = 0.1
    """Between two requests at one front door: it learns of a silent region from a request."""

    @property
    def round_trip(self) -> float:
        return self.spec.round_trip_milliseconds / 1000


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What decides how fast replicas are replaced."""

    spec: CapacityFailoverSpec
    evict_after: float
    """Seconds that a lost cluster keeps the model's replicas."""
    models: int
    """That may be evicted from the lost cluster at the same moment, and wait for each other."""
    load: float | None
    """From a replica's place on a node until it answers; None where it is not declared."""
    probe: float = 2.0
    """Between two looks of the kubelet at a starting engine."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one fault costs callers at worst. Of the times, None means that nothing bounds it, and () that there is none."""

    name: str
    added: Parts | None = ()
    """By which the first token of a request comes later."""
    left: Parts = ()
    """Until the last request is sent to the region."""
    back: Parts = ()
    """From a healthy region until it gets requests again."""
    refused: Parts | None = ()
    """Until the error answer, where no region can serve."""
    failed: int | None = 0
    """Requests lost before their first token; None where they fail as long as the fault lasts."""
    fails: str = "none while another region has free capacity"


def total(parts: Iterable[Part]) -> float:
    return sum(each.seconds for each in parts)


def largest(parts: Iterable[Part]) -> Part:
    """The part that is the most worth changing. Raises ValueError without parts."""
    return max(parts, key=lambda each: each.seconds)


def ping_detection(numbers: Requests) -> float:
    """Until a frozen region's connection is given up, with every request on it."""
    return numbers.spec.ping_interval_milliseconds / 1000 * (1 + PING_JITTER) + numbers.spec.ping_timeout_milliseconds / 1000


def check_detection(threshold: int, interval: float, timeout: float) -> float:
    """Until active health checks without an answer make a front door leave a region: I + (N - 1)(T + I) + T."""
    return threshold * (interval * (1 + CHECK_JITTER) + timeout)


def guard_detection(stall: float) -> float:
    """Until the guard gives up an engine. It sees the last token at its next look, and the limit passed at a later one."""
    look = min(_GUARD_LOOK, stall / _GUARD_LOOKS)
    return look + math.ceil(stall / look - _HAIR) * look


def cases(numbers: Requests) -> dict[str, Case]:
    """Every case of the drill but `replace`, which is `restore`."""
    ping = Part(name="ping", seconds=ping_detection(numbers), why="pingInterval x 1.15 + pingTimeout")
    refused = _round_trip("notice", numbers, "the region's side closes or refuses the connection")
    connect = Part(
        name="connect",
        seconds=max(ping.seconds, numbers.spec.connect_timeout_milliseconds / 1000),
        why="the longer of pingInterval x 1.15 + pingTimeout on a connection that stands and connectTimeout on a new one",
    )
    stall = Part(name="stall", seconds=guard_detection(numbers.spec.stall_seconds), why="stallSeconds in whole looks of the guard, and one look more")
    told = _round_trip("notice", numbers, "the engine's 503 on its way to the front door")
    frozen_left, dropped_left = _silent_left(numbers, ping), _silent_left(numbers, connect)
    hung_left = (stall, _gap(numbers), _next_check(numbers), _WORK)
    answered, unanswered = _back(numbers, silent=False), _back(numbers, silent=True)
    leaving = [
        (Case(name="kill", added=_elsewhere(numbers, refused), left=(refused, _WORK), back=answered), (refused,)),
        (Case(name="hang", added=_elsewhere(numbers, ping), left=frozen_left, back=unanswered), (ping,)),
        (Case(name="blackhole", added=_elsewhere(numbers, connect), left=dropped_left, back=unanswered), (connect,)),
        (Case(name="engine-hang", added=_elsewhere(numbers, stall, told), left=hung_left, back=answered), (stall, told)),
        (Case(name="flap", added=_elsewhere(numbers, ping), left=frozen_left, back=unanswered), (ping,)),
        # Proxies keep what they know: no request needs the hub.
        (Case(name="hub-down", added=_elsewhere(numbers, refused), left=(refused, _WORK), back=answered), (refused,)),
    ]
    found = [case if numbers.regions > 1 else _alone(case, noticed, numbers) for case, noticed in leaving]
    found += [
        _overload(numbers),
        _drain(numbers, answered),
        _gateway(numbers),
        _all_down("all-down", numbers, refused),
        _all_down("all-silent", numbers, connect),
    ]
    return {each.name: each for each in found}


_WORK = Part(name="work", seconds=WORK, why="allowance for busy proxies")


def _round_trip(name: str, numbers: Requests, why: str) -> Part:
    return Part(name=name, seconds=numbers.round_trip, why=f"roundTrip: {why}")


def _backoff(numbers: Requests, retries: int) -> Part:
    """Retry n waits a random time below 2^(n-1) times the base."""
    times = sum(min(2**retry, _BACKOFF_LIMIT) for retry in range(retries))
    seconds = numbers.spec.backoff_milliseconds / 1000 * times
    return Part(name="backoff", seconds=seconds, why=f"backoff x {times} before {retries} retries" if retries > 1 else "backoff")


def _gap(numbers: Requests) -> Part:
    return Part(name="gap", seconds=numbers.gap, why="until a request finds out")


def _next_check(numbers: Requests) -> Part:
    return Part(
        name="active health check",
        seconds=numbers.spec.health_interval_seconds * (1 + CHECK_JITTER) + numbers.round_trip,
        why="healthInterval x 1.1 + roundTrip: the next check is answered with an error",
    )


def _elsewhere(numbers: Requests, *noticed: Part) -> Parts:
    """One attempt is lost; the second goes to another region, maybe over a new connection and a longer way."""
    waited = Part(name="waited", seconds=numbers.waited, why="what the request had waited for its first token already")
    connection = _round_trip("connection", numbers, "a new connection to the next region")
    way = _round_trip("way", numbers, "the longer way of question and answer")
    return (waited, *noticed, _backoff(numbers, 1), connection, way, _WORK)


def _silent_left(numbers: Requests, found: Part) -> Parts:
    """A request finds out, or an active health check: whichever is sooner."""
    check = Part(
        name="active health check",
        seconds=check_detection(numbers.spec.unhealthy_threshold, numbers.spec.health_interval_seconds, numbers.spec.health_timeout_seconds),
        why="unhealthyThreshold x (healthInterval x 1.1 + healthTimeout)",
    )
    by_request = (_gap(numbers), found)
    return (*(by_request if total(by_request) <= check.seconds else (check,)), _WORK)


def _back(numbers: Requests, *, silent: bool) -> Parts:
    """A check of a silent region may be under way and fail yet; one of a dead region fails at once."""
    wait = Part(name="check under way", seconds=numbers.spec.health_timeout_seconds, why="healthTimeout: of a check that began before the region was healthy")
    checks = Part(
        name="active health checks",
        seconds=numbers.spec.healthy_threshold * (numbers.spec.health_interval_seconds * (1 + CHECK_JITTER) + numbers.round_trip),
        why="healthyThreshold x (healthInterval x 1.1 + roundTrip)",
    )
    return (*((wait,) if silent else ()), checks, _WORK)


def _alone(case: Case, noticed: Parts, numbers: Requests) -> Case:
    """The same fault where only one region serves the model: every attempt ends there."""
    tried = tuple(Part(name=each.name, seconds=numbers.attempts * each.seconds, why=f"attempts x ({each.why})") for each in noticed)
    refused = (*tried, _backoff(numbers, numbers.attempts - 1), _WORK)
    return Case(
        name=case.name, added=None, back=case.back, refused=refused, failed=None, fails="every request until the region is back: no other has the model"
    )


def _overload(numbers: Requests) -> Case:
    """A full region refuses at once and is not left: each further region costs one more refusal."""
    retries = numbers.attempts - 1
    refusals = Part(name="refusals", seconds=numbers.attempts * numbers.round_trip, why="attempts x roundTrip: each region refuses at once")
    refused = (refusals, _backoff(numbers, retries), _WORK)
    if numbers.regions < 2:
        return Case(name="overload", added=None, refused=refused, failed=None, fails="what finds the region full: 429 with Retry-After")
    others = numbers.regions - 1
    spilled = Part(name="refusals", seconds=2 * others * numbers.round_trip, why="2 x roundTrip for each full region: refusal, connection to the next")
    return Case(
        name="overload", added=(spilled, _backoff(numbers, others), _WORK), refused=refused, fails="none until all regions are full: then 429 with Retry-After"
    )


def _drain(numbers: Requests, back: Parts) -> Case:
    """Checks are answered with an error, requests as ever: nothing is lost while the next check is awaited."""
    left = (_next_check(numbers), _WORK)
    if numbers.regions < 2:
        return Case(name="drain", added=None, left=left, back=back, refused=(_WORK,), failed=None, fails="new requests until the drain ends")
    return Case(name="drain", left=left, back=back, fails="none: requests in flight complete")


def _gateway(numbers: Requests) -> Case:
    refused = _round_trip("notice", numbers, "the dead door refuses the connection")
    connection = _round_trip("connection", numbers, "a new connection to another door")
    return Case(name="gateway", added=(refused, connection, _WORK), fails="none of clients that use another front door; all of the others until it is back")


def _all_down(name: str, numbers: Requests, found: Part) -> Case:
    """The first requests try in vain; afterwards each region is known to be away, and the answer is immediate."""
    tried = Part(name=found.name, seconds=numbers.attempts * found.seconds, why=f"attempts x ({found.why})")
    refused = (tried, _backoff(numbers, numbers.attempts - 1), _WORK)
    return Case(name=name, added=None, refused=refused, failed=None, fails="every request: the first ones after trying each region, later ones at once")


def restore(numbers: Capacity, *, silent: bool) -> Parts:
    """From the death of a cluster until its replicas of one model are ready elsewhere, the part `load` left out if unknown.

    `silent`: the cluster does not refuse connections, it does not answer (frozen, or cut off). Karmada takes longer to see
    that. Where GPUs are missing elsewhere, replicas wait for them; that is a rule of its own.
    """
    load = (Part(name="load", seconds=numbers.load, why="loadSeconds: image, weights, start of the engine"),) if numbers.load is not None else ()
    return (
        *(_silent_detection(numbers) if silent else _detection(numbers)),
        Part(name="taint", seconds=_TAINT, why="allowance: follows the change of status at once"),
        Part(name="toleration", seconds=numbers.evict_after, why="evictAfterSeconds from the taint on"),
        _eviction(numbers),
        Part(name="scheduling", seconds=_DISPATCH, why="allowance: division, Works, KServe, kube-scheduler"),
        *load,
        Part(name="readiness", seconds=numbers.probe + _REPORT, why=f"{numbers.probe:g} s between two probes, {_REPORT:g} s for the way of the status"),
    )


def _reads(interval: float, threshold: float, name: str) -> Parts:
    """Karmada compares the threshold with the clock only when it reads: it is rounded up to whole intervals."""
    rounds = max(1, math.ceil(threshold / interval - _HAIR))
    return (
        Part(name="status", seconds=interval, why="statusInterval: the next read"),
        Part(name="threshold", seconds=rounds * interval, why=f"{name}, rounded up to {rounds} x statusInterval"),
    )


def _detection(numbers: Capacity) -> Parts:
    """A dead API server refuses: a read fails at once."""
    return _reads(numbers.spec.status_interval_seconds, numbers.spec.failure_threshold_seconds, "failureThreshold")


def _silent_detection(numbers: Capacity) -> Parts:
    """The same where reads do not fail but wait, and the next is due one interval after the last one ended."""
    first, lost = max((_silent_reads(numbers, new) for new in _NEW_CONNECTION), key=lambda each: each[1])
    return (
        Part(
            name="status",
            seconds=first,
            why=f"statusInterval, then a read without an answer: {_READ_TIMEOUT:g} s, or more where the connection is given up meanwhile",
        ),
        Part(name="threshold", seconds=lost - first, why="further such reads until failureThreshold has passed"),
    )


def _silent_reads(numbers: Capacity, new_connection: float) -> tuple[float, float]:
    """When the first read fails, and the first after which the threshold has passed. The cluster falls silent at 0."""
    ends: list[float] = []
    begin = numbers.spec.status_interval_seconds
    while len(ends) < 2 or ends[-1] - ends[0] < numbers.spec.failure_threshold_seconds - _HAIR:
        if begin >= _CONNECTION_LOST:
            end = begin + new_connection
        elif begin + _READ_TIMEOUT <= _CONNECTION_LOST:
            end = begin + _READ_TIMEOUT
        else:
            end = _CONNECTION_LOST + _ASK_AGAIN + new_connection
        ends.append(end)
        begin = end + numbers.spec.status_interval_seconds
    return ends[0], ends[-1]


def _eviction(numbers: Capacity) -> Part:
    """How long a model waits in the queue of evictions, behind the other models of the cluster.

    Its worker may be in its pause. More models than half the bucket can empty it, where a flapping region has used the
    other half.
    """
    rest = 1 / numbers.spec.evictions_per_second
    seconds = math.ceil(numbers.models / _EVICTION_WORKERS) * rest
    if numbers.models > _EVICTION_BUCKET / 2:
        seconds = max(seconds, numbers.models / _EVICTION_BUCKET_RATE) + rest
    why = f"{numbers.models} models in the fleet, {_EVICTION_WORKERS} x evictionsPerSecond, at most {_EVICTION_BUCKET_RATE:g} a second of many"
    return Part(name="eviction", seconds=seconds, why=why)


_MOST_RETRIES = 5


def retry_attempts(regions: int) -> int:
    """Retries of a request: one for each further region, and one more at the first, which may have come back meanwhile."""
    return min(max(regions, 2), _MOST_RETRIES)
