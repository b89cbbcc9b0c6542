"""The `fleet` command: its parser, and how it ends. The commands are the modules of commands/, one each."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence

from core.errors import FleetError
from operations.commands import COMMANDS, bench
from toolchain import tools


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fleet", description="Run and look at an inference fleet.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for each in COMMANDS:
        each.add(commands)
    return top


def parse(line: Sequence[str]) -> argparse.Namespace:
    return parser().parse_args(bench.expanded(line))


def _write_no_more() -> None:
    """What is still to be written at the end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> int:
    arguments = parse(sys.argv[1:])
    try:
        arguments.run(arguments)
        # Not sys.stdout.flush(): with `>&-` there is none.
        print(end="", flush=True)
    except (FleetError, tools.ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(f"hint: {hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `fleet plan | head`: nobody reads on.
        _write_no_more()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _write_no_more()
        print(f"error: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted{getattr(arguments, 'interrupted', '')}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
