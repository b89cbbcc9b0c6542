"""`fleet bench MODEL` measures a model of the running fleet; `fleet bench gateway|up|plan|preview` measure parts of the fleet itself.

`fleet bench MODEL` is short for `fleet bench model MODEL`, which a model that is named like one of the verbs needs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from operations import token
from operations.commands.options import Group, add_stack

MODEL, GATEWAY, UP, PLAN, PREVIEW = "model", "gateway", "up", "plan", "preview"
_VERBS = (MODEL, GATEWAY, UP, PLAN, PREVIEW)

# Low enough for an engine on two cores, and enough that the 95th percentile is not the worst request.
_RATE, _REQUESTS, _INPUT_TOKENS, _OUTPUT_TOKENS = 4.0, 80, 128, 32
_DESCRIPTION = "Runs `vllm bench serve` against a model through its front door and at each regional gateway, and prints latency and throughput."


def expanded(line: Sequence[str]) -> list[str]:
    """The command line with the verb `model` where `fleet bench` has none."""
    match list(line):
        case ["bench", first, *rest] if first not in (*_VERBS, "-h", "--help"):
            return ["bench", MODEL, first, *rest]
        case given:
            return given


def add(commands: Group) -> None:
    group = commands.add_parser(
        "bench",
        help="latency and throughput of a model, per region and through the front door; benchmarks of parts of the fleet",
        description="`fleet bench MODEL` is short for `fleet bench model MODEL`.",
    )
    group.set_defaults(run=run)
    verbs = group.add_subparsers(required=True, metavar="MODEL|VERB", dest="verb")
    _add_model(verbs.add_parser(MODEL, help="how fast a model answers, per region and through the front door", description=_DESCRIPTION))
    gateway = verbs.add_parser(GATEWAY, help="what the gateways and the stream relay of the running local fleet cost a request")
    add_stack(gateway)
    gateway.add_argument("--rounds", type=int, default=5)
    gateway.add_argument("--seconds", type=float, default=8.0, help="of a round")
    verbs.add_parser(UP, help="seconds and memory per stage of `fleet up`, on a fleet of its own")
    verbs.add_parser(PLAN, help="how long the planner takes to place up to 100 models on 100 clusters")
    verbs.add_parser(PREVIEW, help="how long `pulumi preview` takes for generated fleets")


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a model of the stack that runs on real servers")
    add_stack(command)
    command.add_argument(
        "--cluster",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="clusters whose front doors and regional gateways are measured (default: the model's own front door, every region that serves it)",
    )
    command.add_argument(
        "--rate", type=float, default=_RATE, help="requests per second at each endpoint; `inf` with --concurrency: without a pause (default: %(default)g)"
    )
    command.add_argument("--requests", type=int, default=_REQUESTS, help="of each endpoint (default: %(default)s)")
    command.add_argument("--concurrency", type=int, help="requests under way at most (default: as many as there are)")
    command.add_argument("--input-tokens", type=int, default=_INPUT_TOKENS, metavar="N", help="of a prompt (default: %(default)s)")
    command.add_argument("--output-tokens", type=int, default=_OUTPUT_TOKENS, metavar="N", help="of an answer (default: %(default)s)")
    command.add_argument("--tokenizer", metavar="WHERE", help="folder or ORGANISATION/MODEL of Hugging Face (default: the model's own)")
    token.add_option(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")


def run(arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "model":
            from operations.bench import model

            model.bench(arguments)
        case "gateway":
            from operations.bench import gateway

            gateway.bench(arguments.stack, arguments.rounds, arguments.seconds)
        case "up":
            from operations.bench import up

            up.bench()
        case "plan":
            from operations.bench import plan

            plan.bench()
        case _:
            from operations.bench import preview

            preview.bench()
