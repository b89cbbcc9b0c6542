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
    command.add_argument("--break-lock", action="store_true", help="cancel another update that holds the stack: docs/runbooks/locked-stack.md")
    command.set_defaults(run=run, interrupted="; re-run `make up` to resume, `make down` removes everything")


def run(arguments: argparse.Namespace) -> None:
    from operations import bring_up
    from toolchain.backend import LOCAL

    if arguments.stack != LOCAL:
        arguments.interrupted = f"; re-run `fleet up -s {arguments.stack}` to resume"
    bring_up.up(arguments.stack, token.read(arguments.token_file), arguments.stages, break_lock=arguments.break_lock)
