"""Mock engines for one drill: how they compute, where they run, and what leads requests to them."""

import contextlib
import time
from typing import Any

import httpx

from components.mesh.regions import Endpoint
from components.mesh.routes import HEADER_CLUSTER, ModelRoutes, pods_entry, resolved
from core.errors import FleetError
from local.gateways import ADDRESS, REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from operations.drills import published
from operations.drills.case import Plan, Say
from operations.drills.faults import mock_engine
from operations.drills.faults.journal import Journal
from operations.drills.faults.undo import remove_mock_engines_step
from operations.drills.plan import members
from operations.drills.traffic import first_rate, tokens
from operations.token import headers

_PUBLISHED_S = 30.0
_POLL_S = 0.05
# How long a mock engine takes for a token: a stream must be under way when the fault comes.
_TOKEN_MS, _STREAM_TOKEN_MS = 5.0, 20.0


def engine(plan: Plan, rate: float) -> mock_engine.Engine:
    """How the mock engines of a drill compute, given the requests per second."""
    stall = plan.fleet.failover.requests.stall_seconds
    if plan.case.mock_engines:
        return plan.case.mock_engines(rate, tokens(plan), stall)
    return mock_engine.Engine(token_milliseconds=_STREAM_TOKEN_MS if plan.options.stream else _TOKEN_MS, tokens=tokens(plan), stall_seconds=stall)


def objects(plan: Plan, cluster: str) -> list[dict[str, Any]]:
    """What the member `cluster` holds of the models of the drill."""
    member, region = HostCluster(cluster), plan.regions[cluster]
    endpoints = [Endpoint(region=plan.regions[each], address=ADDRESS, port=HostCluster(each).port(REGIONAL_GATEWAY)) for each in plan.serving]
    routes = ModelRoutes(model=mock_engine.DECLARED, endpoints=endpoints, failover=plan.fleet.failover.requests, streams=plan.fleet.failover.streams)
    # A front door that is in none of the regions takes them in the model's order.
    own = region if not plan.victim_first or cluster == plan.victim else ""
    found = [pods_entry(mock_engine.DECLARED, [mock_engine.address(member, mock_engine.DECLARED)]), *resolved(routes, cluster, own)]
    if plan.options.baseline:
        found += [
            pods_entry(mock_engine.PUBLISHED, [mock_engine.address(member, mock_engine.PUBLISHED)]),
            *published.objects(mock_engine.PUBLISHED, endpoints, cluster, region),
        ]
    return found


def start(plan: Plan, journal: Journal, say: Say) -> None:
    """In every region, also in those that may not serve the model: that nothing goes there must not be for want of a server."""
    here = members(plan)
    journal.note(remove_mock_engines_step(here))
    models = [mock_engine.DECLARED, *([mock_engine.PUBLISHED] if plan.options.baseline else [])]
    mock_engine.start(here, models, engine(plan, first_rate(plan)))
    for each in here:
        mock_engine.publish(each, objects(plan, each.name))
    say(f"mock engines in {', '.join(each.name for each in here)}")
    deadline = time.monotonic() + _PUBLISHED_S
    waiting = [(door, model) for model in models for door in plan.doors]
    while waiting:
        waiting = [(door, model) for door, model in waiting if _first_answer(plan, door, model) != _first_of(plan, door)]
        if time.monotonic() > deadline:
            door, model = waiting[0]
            raise FleetError(f"the front door of {door} does not reach {model} in {_first_of(plan, door)} after {_PUBLISHED_S:.0f} s")
        time.sleep(_POLL_S)


def _first_of(plan: Plan, door: str) -> str:
    """The cluster that a door asks first."""
    own = [each for each in plan.serving if plan.regions[each] == plan.regions[door]]
    return own[0] if own and not plan.victim_first else plan.serving[0]


def _first_answer(plan: Plan, door: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.post(plan.url(door, model), json=body, headers=headers(plan.options.token), timeout=5, trust_env=False)
        if answer.status_code == 200:
            return answer.headers.get(HEADER_CLUSTER, "")
    return ""
