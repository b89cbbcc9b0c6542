"""What the modules of commands have in common: their shape, and options that several of them have."""

import argparse
from typing import Any, Protocol


class Group(Protocol):
    """What argparse's add_subparsers returns."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


class Command(Protocol):
    """A module of this package."""

    def add(self, commands: Group) -> None: ...


def add_stack(command: argparse.ArgumentParser, where: str = "the ENV of stacks/Pulumi.ENV.yaml") -> None:
    command.add_argument("-s", "--stack", default="local", help=f"environment: {where} (default: %(default)s)")
