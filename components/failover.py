"""How fast the fleet leaves a region that fails: one set of numbers for the mesh, for Karmada and for the planner.

Two different things happen. The mesh moves requests within a second or two; Karmada moves capacity within minutes.
Karmada is never in the way of a request.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from components.spec import Spec

Seconds = Annotated[float, Field(gt=0)]
Milliseconds = Annotated[int, Field(ge=1)]


class RequestFailoverSpec(Spec):
    """How a front door leaves a regional gateway that does not answer."""

    connect_timeout_milliseconds: Milliseconds = 500
    """For a new connection to another region: at least twice the round trip. Istio's own default is 10 s."""
    ping_interval_milliseconds: Milliseconds = 500
    """HTTP/2 PING between the doors. A missed one resets the streams of a frozen region, so that they are retried
    elsewhere; without it they hang until callers give up."""
    ping_timeout_milliseconds: Milliseconds = 500
    gateway_errors: Annotated[int, Field(ge=1)] = 3
    """Answers 502, 503 or 504 in a row before a region is left alone. More than one, as a full region answers 503 too."""
    ejection_seconds: Seconds = 5
    """How long a failing region is left alone at first; longer with each repetition."""


class CapacityFailoverSpec(Spec):
    """How Karmada replaces the replicas of a lost cluster. Defaults are Karmada's own but for the eviction rate."""

    status_interval_seconds: Seconds = 10
    """How often the health of each member is read."""
    failure_threshold_seconds: Seconds = 30
    """A member must fail this long before it counts as lost."""
    success_threshold_seconds: Seconds = 30
    """A member must answer this long before it counts as back."""
    monitor_interval_seconds: Seconds = 5
    """How often missing status is looked for."""
    monitor_grace_seconds: Seconds = 40
    """Without any status for this long a member counts as lost."""
    evict_after_seconds: Annotated[int, Field(ge=0)] = 60
    """How long a lost cluster keeps its replicas. A short outage should not move models that take minutes to load."""
    evictions_per_second: Annotated[float, Field(gt=0)] = 10
    """Models moved per second off lost clusters. Karmada's default of 0.5 adds two seconds for each model."""
    purge: Literal["Gracefully", "Directly"] = "Gracefully"
    """`Gracefully` keeps the old copy until the new one is healthy, which matters when the cluster is cut off yet serving."""
    graceful_timeout_seconds: Seconds = 600
    """After this the old copy goes even if the new one is not healthy. Keep it above the time a model takes to load."""


class FailoverSpec(Spec):
    """The failover budget of the whole fleet."""

    requests: RequestFailoverSpec = RequestFailoverSpec()
    capacity: CapacityFailoverSpec = CapacityFailoverSpec()


def karmada_settings(spec: CapacityFailoverSpec) -> dict[str, Any]:
    """The settings of the control plane `karmada`; durations in seconds. Each becomes a flag of its controllers."""
    return {
        "clusterStatusUpdateFrequency": spec.status_interval_seconds,
        "clusterFailureThreshold": spec.failure_threshold_seconds,
        "clusterSuccessThreshold": spec.success_threshold_seconds,
        "clusterMonitorPeriod": spec.monitor_interval_seconds,
        "clusterMonitorGracePeriod": spec.monitor_grace_seconds,
        "resourceEvictionRate": spec.evictions_per_second,
        "gracefulEvictionTimeout": spec.graceful_timeout_seconds,
    }
