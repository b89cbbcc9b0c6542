"""Keeps the processes of one local cluster running: `python -m local.supervisor <cluster folder>`.

It reads units/*.json and makes the world look so: starts what is missing in order, restarts what exits, stops what was
removed, and writes run/<unit>.json for those who wait. It takes no commands: who wants a change writes a unit file, so
there is nothing to lose when either side dies. Standard library only, because it stays resident once per cluster.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from socket import create_connection

from local import processes
from local.down import CELL
from local.units import HttpReady, TcpReady, Unit, UnitStatus, ordered, read_units

# Every process of a unit carries it, so that leftovers of an earlier run are found.
UNIT = "FLEET_UNIT"

_TICK_S = 0.1
_PROBE_S = 0.15
_BACKOFF_S = (0.5, 10.0)
# A unit that ran this long starts again at once when it exits.
_STEADY_S = 30.0
_LOG_LIMIT = 20 * 1024 * 1024
_LOG_LOOK_S = 30.0
_PR_SET_PDEATHSIG = 1
# Of units that give way: a third of the weight of others where all want to compute.
_NICE = 5

# Exit code of a unit that was not started because somebody listens on its port: a stranger's answers would make it ready.
PORT_TAKEN = errno.EADDRINUSE

# Loaded before any fork: a child between fork and exec must not load libraries.
_libc = ctypes.CDLL(None)


def _begin(gives_way: bool) -> None:
    """In the child, before its program: nothing that needs a lock of ours."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if gives_way:
        os.nice(_NICE)
        # Where the kernel groups processes by session, nice counts inside a group only, and this among groups.
        with contextlib.suppress(OSError):
            descriptor = os.open("/proc/self/autogroup", os.O_WRONLY)
            os.write(descriptor, str(_NICE).encode())
            os.close(descriptor)


@dataclass
class _Child:
    """A unit as it runs now."""

    unit: Unit
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started_at: float = 0.0
    exit_code: int | None = None
    restarts: int = -1
    pause_s: float = 0.0
    not_before: float = 0.0
    written: str = ""
    probe: threading.Thread | None = field(default=None, repr=False)


class Supervisor:
    """One per cluster folder; the lock file run/supervisor.lock sees to that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: dict[str, _Child] = {}
        self.stopping = False
        self._units_seen = -1
        for name in ("units", "run", "logs", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        look = time.monotonic()
        while not self.stopping:
            self._read()
            if time.monotonic() >= look:
                look = time.monotonic() + _LOG_LOOK_S
                for log in (self.folder / "logs").glob("*.log"):
                    _cap(log)
            for child in self._in_order():
                self._look_after(child)
            time.sleep(_TICK_S)
        for child in reversed(self._in_order()):
            self._end(child)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _in_order(self) -> list[_Child]:
        return [self.children[unit.name] for unit in ordered({name: child.unit for name, child in self.children.items()})]

    def _read(self) -> None:
        """Takes up unit files that came, changed or went since the last look."""
        # Files are replaced, never written in place, so every change touches the folder.
        seen = (self.folder / "units").stat().st_mtime_ns
        if seen == self._units_seen:
            return
        try:
            units = read_units(self.folder / "units")
        except ValueError as error:
            print(f"supervisor: {error}", file=sys.stderr, flush=True)
            return
        self._units_seen = seen
        for name in [name for name in self.children if name not in units]:
            self._end(self.children.pop(name))
            (self.folder / "run" / f"{name}.json").unlink(missing_ok=True)
        for name, unit in units.items():
            child = self.children.get(name)
            if child is None:
                self.children[name] = _Child(unit)
            elif child.unit != unit:
                self._end(child)
                self.children[name] = _Child(unit, restarts=child.restarts)

    def _look_after(self, child: _Child) -> None:
        unit = child.unit
        if child.process is not None and child.process.poll() is not None:
            child.exit_code = child.process.returncode
            child.process, child.ready = None, False
            self._reap(child)
            lived = time.time() - child.started_at
            child.pause_s = 0.0 if lived > _STEADY_S else min(max(_BACKOFF_S[0], child.pause_s * 2), _BACKOFF_S[1])
            child.not_before = time.monotonic() + child.pause_s
            print(f"supervisor: {unit.name} exited with {child.exit_code}", file=sys.stderr, flush=True)
        waiting = [name for name in unit.after if not (name in self.children and self.children[name].ready)]
        due = child.process is None and not waiting and time.monotonic() >= child.not_before
        if due and (unit.restart or child.restarts < 0):
            self._start(child)
        if child.process is not None and unit.ready is not None and not child.ready and child.probe is None:
            child.probe = threading.Thread(target=self._await_ready, args=(child, child.process, unit.ready), daemon=True)
            child.probe.start()
        self._tell(child, waiting)

    def _start(self, child: _Child) -> None:
        unit = child.unit
        own = self.folder / "tmp" / unit.name
        own.mkdir(parents=True, exist_ok=True)
        log = self.folder / "logs" / f"{unit.name}.log"
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "USER", "FLEET_STATE", "FLEET_CACHE") if name in os.environ},
            "TMPDIR": str(own),
            **unit.env,
            CELL: str(self.folder),
            UNIT: f"{self.folder}/{unit.name}",
        }
        child.restarts += 1
        child.started_at = time.time()
        with log.open("ab") as stream:
            if unit.ready is not None and _accepts(_address(unit.ready)):
                stream.write(f"not started: {unit.ready.what}, but another process listens there\n".encode())
                self._put_off(child, PORT_TAKEN)
                return
            try:
                # The parent-death signal counts the forking thread's death, hence the main thread, here.
                child.process = subprocess.Popen(
                    unit.argv,
                    env=environment,
                    cwd=unit.cwd or own,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    start_new_session=True,
                    preexec_fn=partial(_begin, unit.gives_way),  # noqa: PLW1509 - it takes no lock
                )
            except OSError as error:
                stream.write(f"cannot be started: {error}\n".encode())
                self._put_off(child, 127)
                return
        child.ready = unit.ready is None

    def _put_off(self, child: _Child, exit_code: int) -> None:
        child.exit_code = exit_code
        child.pause_s = min(max(_BACKOFF_S[0], child.pause_s * 2), _BACKOFF_S[1])
        child.not_before = time.monotonic() + child.pause_s

    def _await_ready(self, child: _Child, process: subprocess.Popen[bytes], probe: HttpReady | TcpReady) -> None:
        """Asks until the first good answer or the process's end. Runs beside the loop, since an answer may take its time."""
        ask = partial(_accepts, _address(probe)) if isinstance(probe, TcpReady) else _HttpAsker(probe)
        while child.process is process and process.poll() is None and not self.stopping:
            if ask():
                child.ready = child.process is process
                break
            time.sleep(_PROBE_S)
        child.probe = None

    def _reap(self, child: _Child) -> None:
        """Kills what the unit's process started and left behind."""
        processes.kill_all(processes.equals(UNIT, f"{self.folder}/{child.unit.name}"))

    def _end(self, child: _Child) -> None:
        if child.process is not None and child.process.poll() is None:
            child.process.terminate()
            try:
                child.process.wait(child.unit.stop_timeout_s)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        child.process, child.ready = None, False
        self._reap(child)

    def _tell(self, child: _Child, waiting: list[str]) -> None:
        status = UnitStatus(
            name=child.unit.name,
            digest=child.unit.digest,
            pid=child.process.pid if child.process else None,
            ready=child.ready,
            restarts=max(child.restarts, 0),
            exit_code=child.exit_code,
            started_at=child.started_at or None,
            waiting_for=waiting,
        ).to_json()
        if status != child.written:
            path = self.folder / "run" / f"{child.unit.name}.json"
            temporary = path.with_suffix(".tmp")
            temporary.write_text(status)
            temporary.replace(path)
            child.written = status


class _HttpAsker:
    """Asks a unit whether it is ready. Never raises: no answer is a no. One TLS context for all its questions."""

    def __init__(self, probe: HttpReady) -> None:
        self._probe = probe
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if probe.url.startswith("https"):
            context = ssl.create_default_context(cafile=probe.ca)
            if probe.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if probe.cert and probe.key:
                context.load_cert_chain(probe.cert, probe.key)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def __call__(self) -> bool:
        try:
            with self._opener.open(self._probe.url, timeout=2) as answer:
                return answer.status == self._probe.expect
        except urllib.error.HTTPError as error:
            return error.code == self._probe.expect
        except (OSError, ValueError):
            return False


def _address(probe: HttpReady | TcpReady) -> tuple[str, int]:
    if isinstance(probe, TcpReady):
        return probe.host, probe.port
    url = urllib.parse.urlsplit(probe.url)
    return url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80)


def _accepts(address: tuple[str, int]) -> bool:
    try:
        create_connection(address, timeout=2).close()
    except OSError:
        return False
    return True


def _cap(log: Path) -> None:
    """Moves the newer half of a log that grew over the limit to <name>.1 and empties it.

    Emptied in place, because its writer has it open for appending.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            with log.open("rb") as stream:
                stream.seek(-_LOG_LIMIT // 2, os.SEEK_END)
                log.with_name(f"{log.name}.1").write_bytes(stream.read())
            os.truncate(log, 0)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    (folder / "run").mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "run" / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"supervisor: another one runs {folder.name}")
    os.ftruncate(lock, 0)
    # A supervisor that was killed may have left processes that could not be told to die with it, and words about units
    # that were ready then. Both go before our process id appears in the lock, which is what HostCluster waits for.
    processes.kill_all(processes.equals(CELL, str(folder)))
    for stale in (folder / "run").glob("*.json"):
        stale.unlink()
    os.write(lock, str(os.getpid()).encode())
    Supervisor(folder).run()


if __name__ == "__main__":
    main()
