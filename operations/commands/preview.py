"""`fleet preview`. What it does is operations/preview."""

import argparse
from pathlib import Path

from operations.commands.options import Group, add_stack

_DESCRIPTION = (
    "Runs `pulumi preview` with the policy pack on a state of its own, with placeholders for kubeconfigs: what the stack file declares is "
    "judged without any credential. Exit code 1 where a policy refuses it."
)


def add(commands: Group) -> None:
    command = commands.add_parser("preview", help="what a stack file declares, and what the policies say, without credentials", description=_DESCRIPTION)
    add_stack(command, "in stacks/ or stacks/examples/")
    command.add_argument("--base", type=Path, metavar="FILE", help="what --json wrote before the change: the difference is shown, and what it costs")
    command.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations.preview import cli

    cli.preview(arguments)
