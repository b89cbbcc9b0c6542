"""`fleet plan`. What it does is operations/plan."""

import argparse
from pathlib import Path

from operations.commands.options import Group, add_stack

_DESCRIPTION = (
    "GPU use of every model, capacity after the loss of a region, failover times and cost. Computed from the "
    "stack file; nothing is started, changed or contacted."
)


def add(commands: Group) -> None:
    command = commands.add_parser("plan", help="sizes, capacity after a loss, failover time and cost of a stack file", description=_DESCRIPTION)
    add_stack(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything that was computed, as JSON")
    form.add_argument("--markdown", action="store_true", help="the tables for a pull request")
    command.add_argument(
        "--bench", nargs="+", action="extend", default=[], type=Path, metavar="FILE", help="what `fleet bench --json FILE` measured: times are computed with it"
    )
    command.add_argument(
        "--choose",
        action="store_true",
        help="choose again what the stack file leaves open, where that saves enough, and pin all choices in stacks/choices.ENV.yaml",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations.plan import cli

    cli.plan(arguments)
