"""`fleet up`."""

import argparse
from pathlib import Path

from operations import token
from operations.commands.options import Group, add_stack


def add(commands: Group) -> None:
    command = commands.add_parser("up", help="pulumi up, then wait until every model serves as declared")
    add_stack(command)
    token.add_option(command)
    command.add_argument("--stages", type=Path, metavar="FILE", help="write seconds per stage as JSON")
    command.set_defaults(run=run, interrupted="; re-run `make up` to resume, `make down` removes everything")


def run(arguments: argparse.Namespace) -> None:
    from operations import bring_up

    bring_up.up(arguments.stack, token.read(arguments.token_file), arguments.stages)
