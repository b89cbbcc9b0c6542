"""Marking a cluster unschedulable on the hub, as `karmadactl cordon` does, and taking the mark off again.

Karmada places no new replicas on a cordoned cluster and leaves there what it holds; the failback controller gives it nothing.
"""

from typing import Any

from kube.client import ApiError, Kube
from specs import labels

_CLUSTER = ("cluster.karmada.io/v1alpha1", "Cluster")
# Karmada changes the same list when a cluster is lost or comes back.
_WRITE_S = 10.0

Object = dict[str, Any]


def set_cordon(hub: Kube, name: str, *, on: bool) -> None:
    """Does nothing where the cluster is no member. Raises Unreachable, ApiError, TimeoutError."""

    def write() -> bool:
        cluster = hub.find(*_CLUSTER, name)
        wanted = None if cluster is None else taints(cluster, on=on)
        if cluster is None or wanted is None:
            return True
        version = {"resourceVersion": cluster["metadata"]["resourceVersion"]}
        try:
            hub.patch(*_CLUSTER, name, {"metadata": version, "spec": {"taints": wanted}})
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    hub.wait(write, _WRITE_S, f"the hub to {'cordon' if on else 'uncordon'} `{name}`")


def taints(cluster: Object, *, on: bool) -> list[Object] | None:
    """The taints that the cluster should have; None where it has them."""
    found: list[Object] = cluster["spec"].get("taints") or []
    others = [each for each in found if each["key"] != labels.TAINT_CORDONED]
    if (len(others) < len(found)) == on:
        return None
    return [*others, {"key": labels.TAINT_CORDONED, "effect": "NoSchedule"}] if on else others
