"""`fleet down`."""

import argparse

from operations.commands.options import Group, add_stack


def add(commands: Group) -> None:
    command = commands.add_parser("down", help="stop and remove what runs on this machine; other stacks are left alone")
    add_stack(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from core.errors import FleetError
    from local import down
    from toolchain.backend import LOCAL

    if arguments.stack != LOCAL:
        raise FleetError(
            f"stack `{arguments.stack}`: `fleet down` removes what runs on this machine, and nothing else", hint=f"pulumi destroy -s {arguments.stack}"
        )
    down.main()
