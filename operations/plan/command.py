"""The options of `fleet plan`. What it does is cli.py, imported when it is called."""

from pathlib import Path
from typing import Any

from operations.later import later

_DESCRIPTION = (
    "What every model takes of its GPUs, what the fleet still serves after a loss, how long a failover takes, and what it costs. Computed from the "
    "stack file; nothing is started, changed or asked."
)


def add_command(commands: Any) -> None:
    """Adds `plan`. `commands` is what argparse's add_subparsers gave."""
    command = commands.add_parser("plan", help="sizes, capacity after a loss, failover time and cost of a stack file", description=_DESCRIPTION)
    command.add_argument("-s", "--stack", default="local", help="environment: the ENV of stacks/Pulumi.ENV.yaml (default: %(default)s)")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything that was computed, as JSON")
    form.add_argument("--markdown", action="store_true", help="the tables for a pull request")
    command.add_argument(
        "--bench", nargs="+", action="extend", default=[], type=Path, metavar="FILE", help="what `fleet bench --json FILE` measured: times are computed with it"
    )
    command.add_argument(
        "--choose",
        action="store_true",
        help="choose again what the stack file leaves open, where that saves enough, and keep all choices in stacks/choices.ENV.yaml",
    )
    command.set_defaults(run=later("operations.plan.cli", "plan"))
