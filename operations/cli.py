"""The `fleet` command: up, status, outputs, logs, bench, drill, drain, model, image, plan, preview, versions.

`fleet up` is `pulumi up` with the machine made ready before and the models awaited after; `pulumi` alone works too.
"""

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from core.errors import FleetError
from core.exclusive import exclusive
from core.progress import Progress
from kube.client import Kube
from local import faults, rebalance
from local.host_cluster import all_clusters
from operations import left_behind, status, stuck_works
from operations import token as tokens
from operations.bench import command as bench_command
from operations.drill import command as drill_command
from operations.image import command as image_command
from operations.model import command as model_command
from operations.plan import command as plan_command
from operations.preview import command as preview_command
from operations.stack import deployed, in_clear, require_backend, run_up, select
from operations.versions import command as versions_command
from toolchain import paths, tools

# How long models may take from `pulumi up` to their last replica: vLLM imports for most of a minute on two busy cores.
_SERVING_TIMEOUT_S = 600.0
# From the readiness of a model until front doors use it: some deep checks, and the way of the routes to the gateways.
_IN_USE_S = 20.0


def _revive(progress: Progress) -> None:
    """Starts local clusters that are declared but not running: after a reboot, a crash or a drill."""
    # The hub first: a region that comes back is given its share by the hub.
    for cluster in sorted(all_clusters(), key=lambda each: each.describe()["role"] != "hub"):
        if not cluster.alive():
            progress.say(f"  {cluster.name} was not running: started again")
            subprocess.run([sys.executable, "-m", "local.driver", "cluster", "start", cluster.name], check=True, stdout=subprocess.DEVNULL)


def _claim(stack: str) -> None:
    """One stack's local clusters per state folder: two stacks may both have a us-east, and would change each other's."""
    owner = paths.STATE / "stack"
    if owner.exists() and all_clusters() and owner.read_text() != stack:
        own = f"FLEET_STATE={paths.STATE.with_name(f'.fleet-{stack}').name}"
        raise FleetError(
            f"{paths.STATE.name}/ holds the running stack `{owner.read_text()}`, got: `{stack}`", hint=f"make down, or give it a folder of its own: {own}"
        )
    owner.write_text(stack)


def _refill(outputs: dict[str, Any], progress: Progress) -> None:
    """Asks for a fresh division where a living cluster was passed over: Karmada divides once and does not look again."""
    for name in status.gather(outputs).passed_over():
        for model in rebalance.refill(name):
            progress.say(f"  {model}: divided afresh, {name} had none of it")


def _tidy(outputs: dict[str, Any], progress: Progress) -> None:
    with Kube.from_kubeconfig(outputs["kubeconfigs"]["hub"]) as hub:
        for each in stuck_works.release(hub):
            progress.say(f"  {each} is there, and the hub took it for refused: looked at anew")
    for each in left_behind.find(outputs["kubeconfigs"], remove=True):
        progress.say(f"  {each} is declared no more and was left behind there: deleted")


def _await_models(outputs: dict[str, Any], progress: Progress) -> None:
    deadline = time.monotonic() + _SERVING_TIMEOUT_S
    told: list[str] = []
    while missing := status.gather(outputs).missing():
        if missing != told:
            progress.say(f"  waiting for {'; '.join(missing)}")
            told = missing
        if time.monotonic() > deadline:
            raise FleetError(f"not ready after {_SERVING_TIMEOUT_S:.0f} s: {'; '.join(missing)}", hint="see `make status`, and .venv/bin/fleet logs CLUSTER")
        time.sleep(1)


def _first_answer(outputs: dict[str, Any], models: list[str], token: str) -> tuple[str, str]:
    """(model, base URL) of the first of `models` that answers a chat completion through its front door.

    A model that has just become ready is in use once the deep checks of the front door have seen it.
    """
    deadline = time.monotonic() + _IN_USE_S
    while True:
        try:
            return _try_answer(outputs, models, token)
        except FleetError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def _try_answer(outputs: dict[str, Any], models: list[str], token: str) -> tuple[str, str]:
    refusals: list[str] = []
    for model in models:
        base_url = outputs["endpoints"]["models"][model]["openaiBaseUrl"]
        url = f"{base_url}/chat/completions"
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        try:
            answer = httpx.post(url, json=body, headers=tokens.headers(token), timeout=60, trust_env=False)
        except httpx.HTTPError as error:
            refusals.append(f"{model}: {error}")
            continue
        if answer.status_code == 200 and answer.json()["choices"][0]["message"] is not None:
            return model, base_url
        refusals.append(f"{model}: HTTP {answer.status_code} {answer.text.strip()[:200]}")
    raise FleetError("no model answers a completion through its front door:\n" + "\n".join(refusals))


def up(arguments: argparse.Namespace) -> None:
    progress = Progress()
    token = tokens.read(arguments.token_file)
    with exclusive(paths.STATE / "up.lock", "fleet up"):
        # First: a drill may have put the stack's own state away. What needs a cluster that is down is mended below.
        with suppress(faults.FaultError):
            faults.heal_left_over(progress.say)
        stack = select(arguments.stack)
        _claim(arguments.stack)
        with progress.stage("local clusters"):
            _revive(progress)
            faults.heal_left_over(progress.say)
        with progress.stage(f"pulumi up -s {arguments.stack}"):
            _, changes = run_up(stack, progress)
            outputs = in_clear(stack.outputs())
        progress.say(f"  {changes} changes" if changes else "  nothing to change")
        with progress.stage("models"):
            _tidy(outputs, progress)
            _refill(outputs, progress)
            _await_models(outputs, progress)
        state = status.gather(outputs)
        answering, asked = state.answering(), tokens.asked_for(outputs)
        served: tuple[str, str] | None = None
        if answering and (token or not asked):
            with progress.stage("first completion"):
                served = _first_answer(outputs, answering, token)
        elif answering:
            progress.say(f"  no completion was tried: the front doors ask who calls (`{asked}`); --token-file FILE tries one")
            served = answering[0], outputs["endpoints"]["models"][answering[0]]["openaiBaseUrl"]
        progress.say("ready")
    if arguments.stages:
        Path(arguments.stages).write_text(json.dumps({"stages": progress.stages, "changes": changes}))
    print(status.render(state))
    print(f"\n{_curl(*served, asked)}" if served else "\nall models run on simulated GPUs: their requests answer 503")


def _curl(model: str, base_url: str, asked: str) -> str:
    """A completion as a line for the shell."""
    request = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16})
    known = ' -H "Authorization: Bearer $TOKEN"' if asked else ""
    return f"curl -s {base_url}/chat/completions -H 'Content-Type: application/json'{known} -d '{request}'"


def show_status(arguments: argparse.Namespace) -> None:
    require_backend()
    print(status.render(status.gather(in_clear(deployed(arguments.stack)))))


def show_outputs(arguments: argparse.Namespace) -> None:
    """Secrets stay masked: this is for eyes and for pipes. `pulumi stack output --show-secrets` is the way to see them."""
    require_backend()
    masked = {key: "[secret]" if value.secret else value.value for key, value in deployed(arguments.stack).items()}
    print(json.dumps(masked, indent=2))


def logs(arguments: argparse.Namespace) -> None:
    """The tail of each log of one local cluster, or of one of its processes."""
    folder = paths.STATE / "clusters" / arguments.cluster
    if not folder.is_dir():
        raise FleetError(f"no local cluster `{arguments.cluster}`", hint="make status lists them")
    files = sorted((folder / "logs").glob("*.log")) + sorted((folder / "pods").rglob("*.log"))
    chosen = [file for file in files if arguments.name in str(file.relative_to(folder))]
    if not chosen:
        raise FleetError(f"no log of `{arguments.name}` in {arguments.cluster}", hint=f"there are: {', '.join(file.stem for file in files)}")
    for file in chosen:
        lines = file.read_text(errors="replace").splitlines()[-arguments.lines :]
        print(f"==> {file} <==\n" + "\n".join(lines))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fleet", description="Run and look at an inference fleet.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("up", up, "pulumi up, then wait until every model serves as declared"),
        ("status", show_status, "clusters, control planes, models, replicas, endpoints"),
        ("outputs", show_outputs, "the stack outputs as JSON, secrets masked"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("-s", "--stack", default="local", help="environment: the ENV of stacks/Pulumi.ENV.yaml (default: %(default)s)")
        command.set_defaults(run=run)
        if name == "up":
            tokens.add_option(command)
            command.add_argument("--stages", metavar="FILE", help="write seconds per stage as JSON")
    command = commands.add_parser("logs", help="tail of the logs of a local cluster")
    command.add_argument("cluster")
    command.add_argument("name", nargs="?", default="", help="part of a process or pod name (default: all)")
    command.add_argument("-n", "--lines", type=int, default=20)
    command.set_defaults(run=logs)
    bench_command.add_command(commands)
    drill_command.add_commands(commands)
    model_command.add_commands(commands)
    image_command.add_commands(commands)
    preview_command.add_commands(commands)
    versions_command.add_command(commands)
    plan_command.add_command(commands)
    return top


def _write_no_more() -> None:
    """What is still to be written at the end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> int:
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
        # Not sys.stdout.flush(): with `>&-` there is none.
        print(end="", flush=True)
    except (FleetError, faults.FaultError, tools.ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        if getattr(error, "hint", ""):
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `fleet plan | head`: nobody reads on.
        _write_no_more()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _write_no_more()
        print(f"error: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "; `make up` goes on from here, `make down` removes everything" if arguments.run is up else ""
        print(f"interrupted{goes_on}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
