"""How fast the fleet fails over from a region: one set of numbers for the mesh, for Karmada and for the planner.

Two different things happen. The mesh moves requests within a second or two; Karmada moves capacity within minutes.
Karmada is never on the request path.
"""

from typing import Annotated

from pydantic import Field

from specs.base import Spec

Seconds = Annotated[float, Field(gt=0)]
Milliseconds = Annotated[int, Field(ge=1)]


class RequestFailoverSpec(Spec):
    """How a front door ejects a regional gateway that does not answer, and takes it back."""

    round_trip_milliseconds: Milliseconds = 100
    """The longest round trip between two regions. It configures nothing; worst cases are computed with it, and timeouts are
    checked against it."""
    connect_timeout_milliseconds: Milliseconds = 500
    """For a new connection to another region: at least twice the round trip. Istio's own default is 10 s."""
    ping_interval_milliseconds: Milliseconds = 500
    """HTTP/2 PING between the doors. A missed one resets the streams of a frozen region, so that they are retried
    elsewhere; without it they hang until callers give up."""
    ping_timeout_milliseconds: Milliseconds = 500
    gateway_errors: Annotated[int, Field(ge=1)] = 3
    """Consecutive answers 502, 503 or 504 before a region is ejected."""
    ejection_seconds: Seconds = 30
    """The longest ejection of a failing region before a request is tried on it again. Long, as it is the active health check that
    brings a region back: it ends an ejection at once when it succeeds."""
    health_interval_seconds: Seconds = 1
    """Between two active health checks of one model in one region, by each front door."""
    health_timeout_seconds: Seconds = 1
    """An active health check that takes longer failed. A busy region answers late; a frozen one is found by PINGs long before."""
    unhealthy_threshold: Annotated[int, Field(ge=1)] = 3
    """Consecutive active health checks without an answer before a region is ejected. One that is answered with an error counts at once."""
    healthy_threshold: Annotated[int, Field(ge=1)] = 2
    """Consecutive successful active health checks before a region gets requests again."""
    stall_seconds: Seconds = 8
    """An engine with requests under way that computes nothing for this long counts as hung: its requests are refused with 503, so that they are retried
    elsewhere, and the active health check fails until it computes again."""
    body_buffer_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """The largest request that can be sent again elsewhere; a larger one is sent once. Envoy's own limit is 1 MiB."""
    backoff_milliseconds: Milliseconds = 5
    """Base of the random wait before a request is sent elsewhere."""


class StreamsSpec(Spec):
    """What happens to an answer that has begun when its region dies. Needs the stream relay beside every front door."""

    relay: bool = False
    """Lead completions through the relay. Without it a cut stream ends with a broken connection, which some clients
    take for its end."""
    resume: bool = False
    """Go on in another region where the request allows it; otherwise, and where that fails, the caller sees an error event."""
    idle_seconds: Seconds = 120
    """A stream in which nothing comes for this long is treated as cut."""


class CapacityFailoverSpec(Spec):
    """How Karmada replaces the replicas of a lost cluster. Defaults are Karmada's own but for the eviction rate."""

    status_interval_seconds: Seconds = 10
    """How often the health of each member is read."""
    failure_threshold_seconds: Seconds = 30
    """A member must fail this long before it counts as lost, rounded up to whole status intervals. One that is silent
    instead of refusing connections is noticed later: Karmada waits half a minute for each answer."""
    success_threshold_seconds: Seconds = 30
    """A member must answer this long before it counts as back, rounded up in the same way."""
    evict_after_seconds: Annotated[int, Field(ge=0)] = 60
    """How long a lost cluster keeps its replicas. A short outage should not move models that take minutes to load; a model
    can have a time of its own (`placement.evictAfterSeconds`)."""
    evictions_per_second: Annotated[float, Field(gt=0)] = 10
    """Evictions that each of Karmada's three workers makes in a second. Karmada's default of 0.5 adds two seconds for every
    three models of a lost cluster."""
    graceful_timeout_seconds: Seconds = 600
    """A lost cluster keeps its copy until the new one is healthy, at most this long. Keep it above the time a model takes to load."""


class FailoverSpec(Spec):
    """The failover budget of the whole fleet."""

    requests: RequestFailoverSpec = RequestFailoverSpec()
    streams: StreamsSpec = StreamsSpec()
    capacity: CapacityFailoverSpec = CapacityFailoverSpec()
