"""`fleet versions`. What it does is operations/version_report.py."""

import argparse

from operations.commands.options import Group, add_stack

_DESCRIPTION = "Compares the versions that a stack file tells with what was tested together, and says which step to take next."


def add(commands: Group) -> None:
    command = commands.add_parser("versions", help="where a stack stands in the tested versions, and the next step", description=_DESCRIPTION)
    add_stack(command, "in stacks/ or stacks/examples/")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations import version_report

    version_report.versions(arguments)
