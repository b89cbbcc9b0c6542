"""`fleet logs`: the tail of each log of one local cluster, or of one of its processes."""

import argparse

from core.errors import FleetError
from operations.commands.options import Group
from toolchain import paths


def add(commands: Group) -> None:
    command = commands.add_parser("logs", help="tail of the logs of a local cluster")
    command.add_argument("cluster")
    command.add_argument("name", nargs="?", default="", help="part of a process or pod name (default: all)")
    command.add_argument("-n", "--lines", type=int, default=20)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    folder = paths.STATE / "clusters" / arguments.cluster
    if not folder.is_dir():
        raise FleetError(f"no local cluster `{arguments.cluster}`", hint="make status lists them")
    files = sorted((folder / "logs").glob("*.log")) + sorted((folder / "pods").rglob("*.log"))
    chosen = [file for file in files if arguments.name in str(file.relative_to(folder))]
    if not chosen:
        raise FleetError(f"no log of `{arguments.name}` in {arguments.cluster}", hint=f"there are: {', '.join(file.stem for file in files)}")
    for file in chosen:
        lines = file.read_text(errors="replace").splitlines()[-arguments.lines :]
        print(f"==> {file} <==\n" + "\n".join(lines))
