"""`fleet preview-change`. What it does is operations/preview."""

import argparse
from pathlib import Path

from operations.commands.options import Group

_DESCRIPTION = "Previews what is committed here and what is committed in BASE, each by its own program, and hands the cost before the change over."


def add(commands: Group) -> None:
    command = commands.add_parser("preview-change", help="every environment that a change may touch, before and after it", description=_DESCRIPTION)
    command.add_argument("base", type=Path, help="a clone or worktree of the commit before the change, after `make setup`")
    command.add_argument("folder", type=Path, help="where ENV.head.json, ENV.base.json and ENV.plan.md are written")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations.preview import cli

    cli.change(arguments)
