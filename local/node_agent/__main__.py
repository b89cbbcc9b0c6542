"""`python -m local.node_agent`: the process. `local.node_agent.unit` says how it is called."""

import argparse
import contextlib
import ctypes
import os
import threading
from pathlib import Path

from local.node_agent.agent import Agent, Settings

# A thread per pod and per probe: small stacks, and one heap for all of them, keep the agent small. glibc gives each
# thread a heap of its own otherwise (mallopt M_ARENA_MAX).
_STACK_BYTES = 512 * 1024
_M_ARENA_MAX = -8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.node_agent", description="Runs the pods of one cluster's CPU node as host processes.")
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--folder", required=True, type=Path, help="the cluster's folder")
    parser.add_argument("--index", required=True, type=int, help="number of the cluster on this machine")
    parser.add_argument("--region", required=True)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--port", required=True, type=int, help="where the API server asks for logs")
    for name, what in (("cert", "serving certificate"), ("key", "its key"), ("client-ca", "authority of those who may ask")):
        parser.add_argument(f"--{name}", required=True, type=Path, help=what)
    threading.stack_size(_STACK_BYTES)
    # Absent where the C library is not glibc: another allocator, without the habit.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    os.umask(0o077)
    Agent(Settings(**vars(parser.parse_args()))).run()


if __name__ == "__main__":
    main()
