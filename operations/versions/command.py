"""The options of `fleet versions`. What it does is cli.py, imported when it is called."""

from typing import Any

from operations.later import later

_DESCRIPTION = "Compares the versions that a stack file tells with what was tested together, and says which step to take next."


def add_command(commands: Any) -> None:
    """Adds `versions` to the subparsers of `fleet`."""
    command = commands.add_parser("versions", help="where a stack stands in the tested versions, and the next step", description=_DESCRIPTION)
    command.add_argument("-s", "--stack", default="local", help="environment, in stacks/ or stacks/examples/ (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=later("operations.versions.cli", "versions"))
