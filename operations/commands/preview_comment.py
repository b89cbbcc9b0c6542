"""`fleet preview-comment`. What it does is operations/preview."""

import argparse
from pathlib import Path

from operations.commands.options import Group

_DESCRIPTION = "Writes what previews found as one comment of a pull request, which later runs change in place."


def add(commands: Group) -> None:
    command = commands.add_parser("preview-comment", help="one comment of a pull request from previews", description=_DESCRIPTION)
    command.add_argument("folder", type=Path, help="what preview-change wrote")
    command.add_argument("--post", metavar="OWNER/REPOSITORY#NUMBER", help="post it by GitHub's API, with the token in GITHUB_TOKEN (default: print it)")
    command.add_argument("--run-url", default="", metavar="URL", help="a link to the run, shown at the end")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations.preview import cli

    cli.comment(arguments)
