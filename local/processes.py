"""Finding and signalling processes by a marker in their environment. Standard library only.

A marker is inherited by everything that a process starts, whatever it forks or renames itself to and whoever dies
first, so it finds what process ids in files and process groups lose.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

Match = Callable[[bytes], bool]


def find(match: Match) -> list[int]:
    """Ids of living processes, this one excepted, that have an environment entry `NAME=value` for which `match` holds."""
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:
            # Gone meanwhile, or somebody else's: then it is not ours. A zombie has no environment left.
            continue
        if any(match(variable) for variable in variables):
            found.append(int(entry.name))
    return found


def equals(name: str, value: str | os.PathLike[str]) -> Match:
    wanted = f"{name}={os.fspath(value)}".encode()
    return lambda variable: variable == wanted


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(match: Match, timeout_s: float = 10) -> int:
    """SIGKILLs until nobody is left: one that dies late may still start another. Returns how many were killed.

    Raises TimeoutError naming those that stay, as processes do that hang in the kernel.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while living := find(match):
        signal_all(living, signal.SIGKILL)
        killed.update(living)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes do not end: {' '.join(map(str, living))}")
        time.sleep(0.01)
    return len(killed)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").is_dir()


def is_stopped(pid: int) -> bool:
    """Whether the process is frozen by SIGSTOP."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except OSError:
        return False
