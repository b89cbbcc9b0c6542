"""`fleet drill`. What it does is operations/drills."""

import argparse
from pathlib import Path

from operations import token
from operations.commands.options import Group, add_stack


class _Help(argparse.Action):
    """Lists the cases, whose modules are imported for nothing else before a drill runs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from operations.drills.cases import CASES, EVERY

        cases = "\n".join(f"  {each.name:12} {each.summary}" for each in CASES.values())
        parser.epilog = f"cases:\n{cases}\n  {EVERY:12} each of them in turn\n\nExit code 1 where a goal is not kept. docs/drills.md has more."
        parser.print_help()
        parser.exit()


def add(commands: Group) -> None:
    command = commands.add_parser(
        "drill",
        help="inject a fault under load, undo it, and report what callers noticed",
        description="Sends requests through the front doors, breaks something, undoes it, and judges what callers noticed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    command.add_argument("-h", "--help", action=_Help, nargs=0, help="show this help message and exit")
    command.add_argument("case", metavar="CASE", help="what is broken, see below")
    add_stack(command)
    command.add_argument("--cluster", help="the cluster that is harmed (default: where requests go first)")
    command.add_argument("--model", help="the model that serves the requests (default: one that answers on this machine)")
    command.add_argument("--rate", type=float, help="requests per second (default: what the machine serves)")
    command.add_argument("--requests", type=int, help="at least this many (default: to mock engines 1500 to 10000, by the case; else for 90 s)")
    command.add_argument("--stream", action="store_true", help="streamed answers, long enough to be under way when it happens")
    command.add_argument("--tokens", type=int, help="tokens of an answer (default: 8, of a stream 64)")
    command.add_argument("--doors", default="", help="clusters whose front doors are used, with commas (default: those that use the harmed region first)")
    command.add_argument("--mock-engine", "--stand-in", action="store_true", help="mock engines in place of the model: high rates on a small machine")
    command.add_argument("--baseline", action="store_true", help="with --mock-engine: a second model with the settings that articles publish, in the same run")
    command.add_argument("--repeat", type=int, default=1, metavar="N", help="runs of each case (default: %(default)s)")
    token.add_option(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    command.add_argument("--report", type=Path, metavar="DIR", help="write a Markdown report, pictures and JSON files")
    command.add_argument("--not-local", action="store_true", help="allow a stack that is not on this machine alone")
    command.add_argument("--yes-i-mean", metavar="CLUSTER", help="with --not-local: confirms the cluster that is harmed")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from operations.drills import series

    series.drill(arguments)
