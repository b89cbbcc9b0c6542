"""The token with which a command calls the front doors of a fleet that asks who calls."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import FleetError


def add_option(command: argparse.ArgumentParser) -> None:
    # A file: arguments and the environment of a process are seen by others.
    command.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token or API key for the front doors, one line")


def read(file: Path | None) -> str:
    """The token in `file`, empty where none is named. Raises FleetError, which never shows what is in the file."""
    if file is None:
        return ""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"--token-file: cannot be read: {error}") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise FleetError(f"--token-file: must hold one token in one line, without blanks: `{file}`")
    return token


def asked_for(outputs: Mapping[str, Any]) -> str:
    """How the front doors of the stack ask who calls; empty where they do not."""
    kind = outputs["endpoints"].get("authentication", {}).get("kind", "none")
    return "" if kind == "none" else str(kind)


def require(outputs: Mapping[str, Any], token: str) -> None:
    """Raises FleetError where the front doors of the stack ask who calls and no token is at hand."""
    if (asked := asked_for(outputs)) and not token:
        raise FleetError(f"the front doors of this stack require authentication (`frontDoors.authentication`, kind `{asked}`)", hint="--token-file FILE")


def headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}
