"""The callers of a drill: fleet-load, run and read. What its records mean is analysis.py."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from core.errors import FleetError
from local.down import RUN
from toolchain import paths, tools

_BEGIN_S = 10.0
# The longest that a caller of a drill waits for an answer.
TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a child between fork and exec must not load libraries.
_libc = ctypes.CDLL(None)

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One stream of requests. `targets` are (front door, URL), taken in turn. `rate` per second; `requests` at most."""

    label: str
    model: str
    targets: Sequence[tuple[str, str]]
    rate: float
    requests: int
    stream: bool = False
    max_tokens: int = 8
    timeout_seconds: float = TIMEOUT_S
    switch_doors: bool = False
    token: str = field(default="", repr=False)

    def plan(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "model": self.model,
            "targets": [{"door": door, "url": url} for door, url in self.targets],
            "rate": self.rate,
            "requests": self.requests,
            "stream": self.stream,
            "maxTokens": self.max_tokens,
            "prompt": "Hello",
            "timeoutSeconds": self.timeout_seconds,
            "switchDoors": self.switch_doors,
            **({"token": self.token} if self.token else {}),
        }


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Load:
    """A load that runs from `with` on. Raises FleetError where it does not begin, or ends by itself too early."""

    def __init__(self, traffic: Sequence[Traffic]) -> None:
        self.traffic = traffic
        self.begin = 0.0
        """Seconds since the epoch; the records count from it."""
        self.records: list[Record] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._begun = threading.Event()
        self._finished = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [str(tools.path("fleet-load"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # `make down` ends it too.
            env={**os.environ, RUN: str(paths.STATE.resolve())},
            # Ctrl-C comes to us, who decide when it ends.
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it calls prctl alone, no lock of ours
        )
        assert self._process.stdin is not None
        # A tool that refuses its plan may be gone before it has read it.
        try:
            self._process.stdin.write(json.dumps([each.plan() for each in self.traffic]))
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + _BEGIN_S
        while not self._begun.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise self._failed("does not begin")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: Record = json.loads(line)
            if "begin" in told:
                self.begin = float(told["begin"])
                self._begun.set()
            elif "summary" not in told:
                self.records.append(told)

    def _failed(self, what: str) -> FleetError:
        assert self._process is not None
        assert self._process.stderr is not None
        told = self._process.stderr.read().strip()
        return FleetError(f"the load {what}" + (f": {told}" if told else f": fleet-load exited with {self._process.returncode}"))

    def now(self) -> float:
        """Seconds since its begin."""
        return time.time() - self.begin

    def wait(self, until: float) -> None:
        """Until that many seconds after its begin; at once where that has passed."""
        while (left := until - self.now()) > 0:
            assert self._process is not None
            if self._process.poll() is not None:
                raise self._failed("ended too early")
            time.sleep(min(left, 0.25))

    def finish(self, timeout_s: float) -> list[Record]:
        """No further requests; waits for those under way. The records, sorted by when they were due."""
        assert self._process is not None
        assert self._reader is not None
        if not self._finished:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise FleetError(f"fleet-load does not end, {timeout_s:.0f} s after its last request") from None
            self._reader.join(10)
            if self._process.returncode:
                raise self._failed("broke off")
            self._finished = True
        return sorted(self.records, key=lambda each: (each["due"], each["n"]))

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@dataclass
class Clock:
    """Moments of a drill, in seconds since the load began. The first time counts."""

    load: Load
    marks: dict[str, float] = field(default_factory=dict[str, float])

    def mark(self, name: str) -> None:
        self.marks.setdefault(name, round(self.load.now(), 6))


def shifted(records: Sequence[Mapping[str, Any]], seconds: float) -> list[Record]:
    """Records of a load that began `seconds` later, on the clock of the first one."""
    times = ("due", "sent", "headers", "firstToken", "end")
    return [{**each, **{name: each[name] + seconds for name in times if each.get(name) is not None}} for each in records]


def run(traffic: Sequence[Traffic], timeout_s: float = 60.0) -> list[Record]:
    """A load to its end."""
    with Load(traffic) as load:
        load_seconds = max(each.requests / each.rate for each in traffic)
        deadline = time.monotonic() + load_seconds
        while time.monotonic() < deadline:
            time.sleep(0.05)
        return load.finish(timeout_s)
