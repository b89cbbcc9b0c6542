"""Settings of Karmada."""

from typing import Any

from specs.failover import CapacityFailoverSpec


def karmada_settings(spec: CapacityFailoverSpec) -> dict[str, Any]:
    """The settings of the control plane `karmada`; durations in seconds. Each becomes a flag of its controllers."""
    return {
        "clusterStatusUpdateFrequency": spec.status_interval_seconds,
        "clusterFailureThreshold": spec.failure_threshold_seconds,
        "clusterSuccessThreshold": spec.success_threshold_seconds,
        "resourceEvictionRate": spec.evictions_per_second,
        "gracefulEvictionTimeout": spec.graceful_timeout_seconds,
    }
