"""The options of `fleet bench`. What it does is cli.py, imported when it is called."""

from pathlib import Path
from typing import Any

from operations import token
from operations.later import later

# Low enough for an engine on two cores, and enough that the 95th percentile is not the worst request.
_RATE, _REQUESTS, _INPUT_TOKENS, _OUTPUT_TOKENS = 4.0, 80, 128, 32
_DESCRIPTION = "Asks a model by `vllm bench serve` through its front door and at each regional gateway, and prints how fast they answer."


def add_command(commands: Any) -> None:
    """Adds `bench`. `commands` is what argparse's add_subparsers gave."""
    command = commands.add_parser("bench", help="how fast a model answers, per region and through the front door", description=_DESCRIPTION)
    command.add_argument("model", metavar="MODEL", help="a model of the stack that a server stands behind")
    command.add_argument("-s", "--stack", default="local", help="environment (default: %(default)s)")
    command.add_argument(
        "--cluster",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="clusters whose front doors and regional gateways are asked (default: the model's own front door, every region that serves it)",
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
    command.set_defaults(run=later("operations.bench.cli", "bench"))
