"""`fleet up`: `pulumi up` with the machine made ready before and the models awaited after; `pulumi` alone works too."""

import json
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
from pulumi import automation

from core.errors import FleetError
from core.exclusive import exclusive
from core.progress import Progress
from local.host_cluster import all_clusters
from operations import status
from operations import token as tokens
from operations.drills.faults.errors import FaultError
from operations.drills.faults.journal import heal_left_over
from operations.stack import in_clear, run_up, select
from operations.stack_file import runs_here
from toolchain import paths

# How long models may take from `pulumi up` to their last replica: vLLM imports for most of a minute on two busy cores.
_SERVING_TIMEOUT_S = 600.0
# From the readiness of a model until front doors use it: some active health checks, and the way of the routes to the gateways.
_IN_USE_S = 20.0


def _revive(progress: Progress) -> None:
    """Starts local clusters that are declared but not running: after a reboot, a crash or a drill."""
    # The hub first: it gives a region that comes back its share.
    for cluster in sorted(all_clusters(), key=lambda each: each.describe()["role"] != "hub"):
        if not cluster.alive():
            progress.say(f"  {cluster.name}: not running; restarted")
            subprocess.run([sys.executable, "-m", "operations.driver", "cluster", "start", cluster.name], check=True, stdout=subprocess.DEVNULL)


def _claim(stack: str) -> None:
    """One stack's local clusters per state folder: two stacks may both have a us-east, and would change each other's."""
    owner = paths.STATE / "stack"
    if owner.exists() and all_clusters() and owner.read_text() != stack:
        own = f"FLEET_STATE={paths.STATE.with_name(f'.fleet-{stack}').name}"
        raise FleetError(
            f"{paths.STATE.name}/ holds the running stack `{owner.read_text()}`, got: `{stack}`", hint=f"make down, or give it a folder of its own: {own}"
        )
    owner.write_text(stack)


def base_url(outputs: dict[str, Any], model: str, away: Collection[str] = ()) -> str:
    """Where callers reach a model: the front door that the outputs name, or another one where its cluster is away."""
    named = str(outputs["endpoints"]["models"][model]["openaiBaseUrl"])
    doors: dict[str, str] = outputs["endpoints"]["frontDoors"]
    others = [url for cluster, url in doors.items() if cluster not in away]
    gone = any(named.startswith(f"{url}/") for cluster, url in doors.items() if cluster in away)
    return f"{others[0]}/{model}/v1" if gone and others else named


def _first_answer(urls: dict[str, str], token: str) -> tuple[str, str]:
    """(model, base URL) of the first of `urls` that answers a chat completion through its front door.

    A model that has just become ready is in use once the active health checks of the front door have seen it.
    """
    deadline = time.monotonic() + _IN_USE_S
    while True:
        try:
            return _try_answer(urls, token)
        except FleetError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def _try_answer(urls: dict[str, str], token: str) -> tuple[str, str]:
    refusals: list[str] = []
    for model, base in urls.items():
        url = f"{base}/chat/completions"
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        try:
            answer = httpx.post(url, json=body, headers=tokens.headers(token), timeout=60, trust_env=False)
        except httpx.HTTPError as error:
            refusals.append(f"{model}: {error}")
            continue
        if answer.status_code == 200 and answer.json()["choices"][0]["message"] is not None:
            return model, base
        refusals.append(f"{model}: HTTP {answer.status_code} {answer.text.strip()[:200]}")
    raise FleetError("no model answers a completion through its front door:\n" + "\n".join(refusals))


def _selected(name: str, progress: Progress) -> automation.Stack:
    """The stack, with its clusters on this machine running. A stack that has none here leaves them to the stack that has."""
    if not runs_here(name):
        return select(name)
    # First: a drill may have put the stack's own state away. What needs a cluster that is down is mended below.
    with suppress(FaultError):
        heal_left_over(progress.say)
    stack = select(name)
    _claim(name)
    with progress.stage("local clusters"):
        _revive(progress)
        heal_left_over(progress.say)
    return stack


def _alone(name: str) -> AbstractContextManager[None]:
    """One command at a time changes this machine's clusters. For others the lock of the stack in its backend is enough."""
    return exclusive(paths.STATE / "up.lock", "fleet up") if runs_here(name) else nullcontext()


def up(stack_name: str, token: str, stages: Path | None, *, break_lock: bool = False) -> None:
    """`stages`: where seconds per stage are written as JSON. `break_lock`: cancels another's update of this stack."""
    progress = Progress()
    with _alone(stack_name):
        stack = _selected(stack_name, progress)
        with progress.stage(f"pulumi up -s {stack_name}"):
            _, changes = run_up(stack, progress, break_lock=break_lock)
            outputs = in_clear(stack.outputs())
        progress.say(f"  {changes} changes" if changes else "  nothing to change")
        with progress.stage("models"):
            status.await_models(outputs, lambda text: progress.say(f"  {text}"), _SERVING_TIMEOUT_S, "see `make status`, and .venv/bin/fleet logs CLUSTER")
        state = status.gather(outputs)
        away, asked = state.away(), tokens.asked_for(outputs)
        answering = {model: base_url(outputs, model, away) for model in state.answering()}
        served: tuple[str, str] | None = None
        if answering and (token or not asked):
            with progress.stage("first completion"):
                served = _first_answer(answering, token)
        elif answering:
            progress.say(f"  no completion tried: the front doors require authentication (`{asked}`); --token-file FILE")
            served = next(iter(answering.items()))
        progress.say("ready")
    if stages:
        stages.write_text(json.dumps({"stages": progress.stages, "changes": changes}))
    print(status.render(state))
    print(f"\n{_curl(*served, asked)}" if served else "\nall models run on simulated GPUs: their requests answer 503")


def _curl(model: str, base_url: str, asked: str) -> str:
    """A completion as a line for the shell."""
    request = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16})
    known = ' -H "Authorization: Bearer $TOKEN"' if asked else ""
    return f"curl -s {base_url}/chat/completions -H 'Content-Type: application/json'{known} -d '{request}'"
