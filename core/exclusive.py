"""One `fleet up` at a time per clone, also when the first one was killed."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from core.errors import FleetError


@contextmanager
def exclusive(path: Path, what: str) -> Generator[None]:
    """Holds `path` as a lock. Raises FleetError that names the holder when someone else has it.

    The lock is the kernel's (flock): it goes with the last process that holds it, so a killed run never has to be
    cleaned up by hand. The Pulumi engine inherits it on purpose: as long as an orphaned engine works on the state,
    the next run must not.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode() or "another run"
        os.close(descriptor)
        raise FleetError(f"{what}: {holder} is at work on this fleet", hint="wait for it, or stop it and run again") from None
    os.set_inheritable(descriptor, True)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"`{what}` (process {os.getpid()})".encode())
    try:
        yield
    finally:
        os.close(descriptor)
