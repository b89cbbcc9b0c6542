"""A region is lost for good: Karmada gives its replicas to other regions, and requests follow."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from kube.client import Kube, KubeError
from local.host_cluster import HostCluster
from local.node_agent import mesh as node_mesh
from operations import status
from operations.drills import analysis
from operations.drills.analysis import Analysis
from operations.drills.case import Case, Live, Plan
from operations.drills.goals import NOT_MEASURED, Line, at_most, bound, longest, nothing_lost, seconds, since_fault
from operations.drills.result import DrillResult
from operations.status import FleetState
from planning import failover_budget, failover_time
from specs import labels
from specs.accelerators import CPU
from specs.fleet import FleetSpec
from specs.models import ModelSpec

REPLACE_S = 20.0

_REPLACED_S = 420.0
_POLL_S = 0.5


def choose_model(fleet: FleetSpec) -> ModelSpec | None:
    """A simulated model is ready at once: what is measured is the fleet, not the loading of weights."""
    return next((each for each in fleet.models if each.accelerator.type != CPU and len(each.placement.weights) > 1), None)


def more_bounds(plan: Plan) -> Mapping[str, float | None]:
    capacity = failover_budget.capacity(plan.fleet, plan.model)
    return {"replaced": None if capacity.load is None else failover_time.total(failover_time.restore(capacity, silent=False))}


def await_replaced(live: Live) -> None:
    """Until the replicas of the lost region are ready elsewhere, and hub and mesh agree on where."""
    plan, load, clock = live.plan, live.load, live.clock
    deadline = time.monotonic() + _REPLACED_S
    while "agreed" not in clock.marks:
        load.wait(load.now() + _POLL_S)
        state = status.gather(dict(live.outputs))
        if state.hub.members.get(plan.victim) is False:
            clock.mark("lost")
        if replaced(state, plan):
            clock.mark("replaced")
            if agree(state, plan, _in_mesh(plan)):
                clock.mark("agreed")
        if time.monotonic() > deadline:
            live.say(f"{plan.model.name} is not replaced {_REPLACED_S:.0f} s after the loss of {plan.victim}")
            return


def replaced(state: FleetState, plan: Plan) -> bool:
    """The hub has the model elsewhere and Ready, and every replica is ready there."""
    name = plan.model.name
    scheduled = state.hub.scheduled.get(name, {})
    there = [cluster for cluster, count in scheduled.items() if count and cluster != plan.victim]
    ready = sum(state.clusters[each].models[name].ready for each in there if name in state.clusters[each].models)
    return not scheduled.get(plan.victim) and bool(there) and ready >= plan.model.replicas and state.hub.ready.get(name, False)


def agree(state: FleetState, plan: Plan, in_mesh: Mapping[str, int] | None) -> bool:
    """Where the hub has replicas, as many are ready, and where the mesh knows pods there are as many; nowhere else are any.

    in_mesh: endpoints by living cluster, None where pods are simulated and the mesh has none.
    """
    name = plan.model.name
    scheduled = {cluster: count for cluster, count in state.hub.scheduled.get(name, {}).items() if count}
    ready = {each.name: each.models[name].ready for each in state.clusters.values() if not each.error and name in each.models and each.models[name].ready}
    return scheduled == ready and (in_mesh is None or {cluster: count for cluster, count in in_mesh.items() if count} == ready)


def _in_mesh(plan: Plan) -> Mapping[str, int] | None:
    if plan.model.accelerator.type != CPU:
        return None
    found: dict[str, int] = {}
    selector = f"{labels.LABEL_PODS_OF_MODEL}={plan.model.name}"
    for name in plan.urls:
        with contextlib.suppress(KubeError), Kube.from_kubeconfig(HostCluster(name).kubeconfig, timeout=2) as api:
            found[name] = len(api.list(node_mesh.API_VERSION, node_mesh.KIND, labels.NAMESPACE_MODELS, label_selector=selector))
    return found


def goals(result: DrillResult, found: Analysis) -> Iterator[Line]:
    yield nothing_lost(found)
    yield at_most("replicas ready elsewhere after", since_fault(found, analysis.REPLACED), REPLACE_S, computed=bound(result, "replaced"))
    agreed = since_fault(found, analysis.AGREED)
    measured = NOT_MEASURED if agreed is None else f"after {seconds(agreed)}"
    yield Line(name="hub and mesh agree on where the model is", goal="they do", measured=measured, computed="", ok=agreed is not None)


def besides(found: Sequence[Analysis]) -> str:
    return f"ready elsewhere after {longest(since_fault(each, analysis.REPLACED) for each in found)}"


CASE = Case(
    name="replace",
    summary="a region is lost for good, until its replicas are ready elsewhere",
    fault="kill",
    during=await_replaced,
    needs_hub=True,
    choose_model=choose_model,
    simulated=True,
    own_replicas=True,
    goals=goals,
    # A killed region that is replaced is a killed region to callers.
    bounds="kill",
    more_bounds=more_bounds,
    objectives=frozenset({"failoverSeconds", "restoreSeconds"}),
    cuts_streams=True,
    resumable=True,
    published=False,
    besides=besides,
)
