"""`fleet outputs`."""

import argparse
import json

from operations.commands.options import Group, add_stack


def add(commands: Group) -> None:
    command = commands.add_parser("outputs", help="the stack outputs as JSON, secrets masked")
    add_stack(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Secrets stay masked: this is for eyes and for pipes. `pulumi stack output --show-secrets` shows them."""
    from operations.stack import deployed, require_backend

    require_backend(arguments.stack)
    masked = {key: "[secret]" if value.secret else value.value for key, value in deployed(arguments.stack).items()}
    print(json.dumps(masked, indent=2))
