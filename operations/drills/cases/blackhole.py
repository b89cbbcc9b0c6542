"""The network to a region fails: packets are dropped, also those of new connections."""

from core.errors import FleetError
from operations.drills.case import Case, Plan
from operations.drills.cases import hang
from operations.drills.faults import packet_filter


def precondition(_: Plan) -> None:
    if why := packet_filter.refusal():
        raise FleetError(f"blackhole: {why}", hint="the case `hang` shows the same to callers: connections stay open without an answer")


CASE = Case(
    name="blackhole",
    summary="packets to and from a region are dropped",
    fault="cut",
    precondition=precondition,
    goals=hang.goals,
    bounds="blackhole",
    objectives=frozenset({"failoverSeconds"}),
    cuts_streams=True,
    resumable=True,
    returns=True,
)
