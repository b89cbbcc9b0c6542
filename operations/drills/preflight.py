"""What must be true before a drill breaks anything: what this machine can do, what is ready, what answers."""

from collections.abc import Sequence

import httpx

from core.errors import FleetError
from local.host_cluster import all_clusters
from operations.drills.case import Plan, shortest
from operations.status import FleetState
from operations.token import headers

_ANSWER_S = 30.0


def check_possible(plan: Plan) -> None:
    """What only some machines, models and options can do. Raises FleetError."""
    plan.case.precondition(plan)
    _check_length(plan)
    _check_running(plan)


def _check_length(plan: Plan) -> None:
    rate, requests = plan.options.rate, plan.options.requests
    least = shortest(plan.case)
    if rate is not None and requests is not None and requests / rate < least:
        raise FleetError(
            f"--requests: {requests} at {rate:g} a second last {requests / rate:.0f} s, and `{plan.case.name}` takes {least:.0f} s",
            hint=f"--requests {round(least * rate)}",
        )


def _check_running(plan: Plan) -> None:
    running = {each.name for each in all_clusters() if each.alive()}
    for name in plan.urls:
        if plan.fleet.by_name[name].driver.capabilities.on_this_machine and name not in running:
            raise FleetError(f"{name} is not running", hint="make up starts it")
    if plan.case.needs_hub and plan.fleet.hub.name not in running:
        raise FleetError(f"{plan.case.name}: the hub is not running on this machine", hint="make up starts a local one")


def check_state(plan: Plan, state: FleetState) -> None:
    """The model is ready where it has to be. Raises FleetError."""
    if plan.mocked and not plan.case.own_replicas:
        return
    model = plan.model.name
    for name in plan.serving:
        cluster = state.clusters[name]
        ready = cluster.models[model].ready if model in cluster.models else 0
        if cluster.error:
            raise FleetError(f"{name} does not answer: {cluster.error}", hint="make up")
        if not ready:
            raise FleetError(f"{model} has no ready replica in {name}", hint="make status shows what is ready, make up waits for it")


def check_doors(plan: Plan, models: Sequence[str]) -> None:
    """Each door answers a completion of each model. Raises FleetError that names the first that does not."""
    for model in models:
        for door in plan.doors:
            url = plan.url(door, model)
            body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
            try:
                answer = httpx.post(url, json=body, headers=headers(plan.options.token), timeout=_ANSWER_S, trust_env=False)
            except httpx.HTTPError as error:
                raise FleetError(f"the front door of {door} is not reachable: {url}: {error}", hint="make status, .venv/bin/fleet logs " + door) from None
            if answer.status_code != 200:
                raise FleetError(f"the front door of {door} does not answer for {model}: HTTP {answer.status_code} {answer.text.strip()[:200]}")
