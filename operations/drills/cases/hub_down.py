"""A region dies while nothing can be changed: proxies must do with what they have."""

from operations.drills.case import Case
from operations.drills.cases import kill

CASE = Case(
    name="hub-down",
    summary="a region is killed while the hub, every istiod and Pulumi's backend are away",
    fault="kill-without-hub",
    needs_hub=True,
    mock_requests=10_000,
    goals=kill.goals,
    bounds="hub-down",
    objectives=frozenset({"failoverSeconds"}),
    cuts_streams=True,
    resumable=True,
    returns=True,
)
