"""`fleet check`. What it does is operations/check.py."""

import argparse

from operations.commands.options import Group, add_stack

_DESCRIPTION = "Verifies hub and members whose control planes somebody else installed, and names everything that they lack. Changes nothing."


def add(commands: Group) -> None:
    command = commands.add_parser("check", help="what clusters that somebody else set up lack; changes nothing", description=_DESCRIPTION)
    add_stack(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations import check

    check.check(arguments.stack)
