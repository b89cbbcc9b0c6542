"""A cluster that is drained is cordoned on the hub, beside whatever Karmada does to its taints."""

from typing import Any

import pytest

from kube.client import ApiError, Kube
from operations.cordon import set_cordon, taints
from specs.labels import TAINT_CORDONED

LOST = {"key": "inference-fleet.dev/cluster-lost", "effect": "NoExecute"}
CORDONED = {"key": TAINT_CORDONED, "effect": "NoSchedule"}
Object = dict[str, Any]


@pytest.mark.parametrize(
    ("found", "on", "want"),
    [
        pytest.param([LOST], True, [LOST, CORDONED], id="cordoned beside another taint"),
        pytest.param(None, True, [CORDONED], id="the first taint"),
        pytest.param([CORDONED, LOST], False, [LOST], id="only its own is taken off"),
        pytest.param([CORDONED], False, [], id="the last taint"),
        pytest.param([CORDONED], True, None, id="it is cordoned"),
        pytest.param([LOST], False, None, id="it is not cordoned"),
    ],
)
def test_only_the_cordon_changes(found: list[Object] | None, on: bool, want: list[Object] | None) -> None:
    assert taints({"spec": {"taints": found} if found else {}}, on=on) == want


class Hub(Kube):
    """A hub whose Cluster somebody else changes at the same time."""

    def __init__(self, cluster: Object | None, conflicts: int = 0) -> None:
        self.cluster, self.conflicts = cluster, conflicts

    def find(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        return self.cluster

    def patch(self, api_version: str, kind: str, name: str, patch: Any, *_: Any, **__: Any) -> Object:
        assert self.cluster is not None
        if self.conflicts:
            self.conflicts -= 1
            self.cluster["metadata"]["resourceVersion"] = "2"
            raise ApiError(409, "Conflict", "someone else was first")
        assert patch["metadata"] == self.cluster["metadata"], "a change of an older version would undo somebody's"
        self.cluster["spec"] = patch["spec"]
        return self.cluster


def test_a_change_of_somebody_else_is_kept() -> None:
    hub = Hub({"metadata": {"resourceVersion": "1"}, "spec": {"taints": [LOST]}}, conflicts=1)
    set_cordon(hub, "east", on=True)
    assert hub.cluster == {"metadata": {"resourceVersion": "2"}, "spec": {"taints": [LOST, CORDONED]}}


def test_a_cluster_that_is_no_member_needs_no_cordon() -> None:
    set_cordon(Hub(None), "east", on=True)
