"""`fleet status`."""

import argparse

from operations.commands.options import Group, add_stack


def add(commands: Group) -> None:
    command = commands.add_parser("status", help="clusters, control planes, models, replicas, endpoints")
    add_stack(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations import status
    from operations.stack import deployed, in_clear, require_backend

    require_backend(arguments.stack)
    print(status.render(status.gather(in_clear(deployed(arguments.stack)))))
