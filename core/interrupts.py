"""What Ctrl-C and SIGTERM do to a command that has something to end or to mend."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator


@contextlib.contextmanager
def undisturbed(say: Callable[[str], None]) -> Generator[None]:
    """Ctrl-C and SIGTERM do not cut off what mends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(*_: object) -> None:
        say("undoing what the drill broke; this is not interrupted")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def heeding_sigterm() -> Generator[None]:
    """SIGTERM ends a command as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
