"""`fleet drain`: takes a local cluster out of service, as planned, and puts it back."""

import argparse

from operations.commands.options import Group


def add(commands: Group) -> None:
    command = commands.add_parser("drain", help="take a local cluster out of service, as planned, and put it back")
    command.add_argument("cluster")
    command.add_argument("--end", action="store_true", help="put it back")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations import drain

    drain.drain(arguments.cluster, end=arguments.end)
