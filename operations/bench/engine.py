"""The load of a benchmark: `vllm bench serve` of the pinned vLLM, run and watched. What its results mean is result.py."""

import contextlib
import ctypes
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import FleetError
from local.down import RUN
from operations.bench.result import BenchLoad, Objectives
from toolchain import paths, tools

_SCRIPT = Path(__file__).with_name("in_vllm.py")
# Longer than any answer should take. Without a sign of life for so long, the load is ended.
_SILENT_S = 600.0
_SAY_S, _EXIT_S = 10.0, 10.0
_TAIL = 4000
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a child between fork and exec must not load libraries.
_libc = ctypes.CDLL(None)

LOOPBACK = ("127.0.0.1", "localhost", "::1")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What vLLM told of one endpoint."""

    result: Mapping[str, Any]
    errors: Mapping[str, int]
    short: int


def arguments(base_url: str, model: str, tokenizer: str, load: BenchLoad, objectives: Objectives, place: int) -> list[str]:
    """Of `vllm bench serve` for the endpoint at `place`."""
    limits = {"ttft": objectives.time_to_first_token_seconds, "tpot": objectives.inter_token_seconds}
    goodput = [f"{name}:{seconds * 1000:g}" for name, seconds in limits.items() if seconds is not None]
    return [
        # Chat completions: what callers use, and what front doors resume.
        "--backend=openai-chat",
        f"--base-url={base_url}",
        "--endpoint=/v1/chat/completions",
        f"--model={model}",
        f"--tokenizer={tokenizer}",
        "--dataset-name=random",
        f"--random-input-len={load.input_tokens}",
        f"--random-output-len={load.output_tokens}",
        f"--num-prompts={load.requests}",
        f"--num-warmups={load.warmups}",
        # Always given: vLLM's own default sends everything at once.
        f"--request-rate={'inf' if load.rate is None else f'{load.rate:g}'}",
        *([] if load.concurrency is None else [f"--max-concurrency={load.concurrency}"]),
        f"--seed={load.seed + place}",
        "--percentile-metrics=ttft,tpot,itl,e2el",
        "--metric-percentiles=50,95,99",
        # Without it the errors of requests are dropped.
        "--save-detailed",
        *(["--goodput", *goodput] if goodput else []),
    ]


def environment(tokenizer: str, token: str, outside: Mapping[str, str]) -> dict[str, str]:
    """Of the load, from that of the shell. `token`: what the front doors ask for, if anything."""
    # A key for another service is not for our gateways: vLLM would send it along.
    kept = {name: value for name, value in outside.items() if name != "OPENAI_API_KEY"}
    # vLLM heeds proxies, and a proxy cannot reach what listens on loopback here.
    direct = [each.strip() for each in (outside.get("no_proxy") or outside.get("NO_PROXY") or "").split(",") if each.strip()]
    no_proxy = ",".join(dict.fromkeys([*direct, *LOOPBACK]))
    return {
        **kept,
        # vLLM's benchmark reads it from nowhere else.
        **({"OPENAI_API_KEY": token} if token else {}),
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # It computes nothing by torch, and shall not take cores from what it measures.
        "OMP_NUM_THREADS": "1",
        **({"HF_HUB_OFFLINE": "1"} if Path(tokenizer).is_dir() else {}),
        # `make down` ends it too.
        RUN: str(paths.STATE.resolve()),
    }


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def run(plans: Sequence[Sequence[str]], names: Sequence[str], tokenizer: str, token: str, say: Say) -> Generator[Told]:
    """Loads the endpoints in turn; `plans` are their arguments. Raises FleetError where vLLM does not do it.

    Whatever ends this, also Ctrl-C, ends the load.
    """
    python = tools.path("vllm").with_name("python")
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            # Isolated: neither this folder nor the shell's PYTHONPATH is searched for modules.
            [str(python), "-I", str(_SCRIPT), str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            env=environment(tokenizer, token, os.environ),
            # Ctrl-C comes to us, who end it.
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it calls prctl alone, no lock of ours
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with _ended(process), os.fdopen(reading, "rb", buffering=0) as results:
        assert process.stdin is not None
        # What fails at once is told below, by what it left.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([list(each) for each in plans]).encode())
            process.stdin.close()
        yield from _Watch(process, results, names, say).told()


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Generator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Watch:
    """Reads what a load tells and what it prints, and notices when it does neither."""

    def __init__(self, process: "subprocess.Popen[bytes]", results: Any, names: Sequence[str], say: Say) -> None:
        self.process, self.results, self.names, self.say = process, results, names, say
        self.printed = ""
        self.place = -1
        self.said = time.monotonic()

    def told(self) -> Iterator[Told]:
        assert self.process.stdout is not None
        rest, done = b"", 0
        alive = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for each in (self.results, self.process.stdout):
                os.set_blocking(each.fileno(), False)
                selector.register(each, selectors.EVENT_READ)
            # The end of the results is the end of the load.
            while True:
                for key, _ in selector.select(1.0):
                    chunk = os.read(key.fd, 65536)
                    alive = time.monotonic()
                    if key.fileobj is self.results:
                        if not chunk:
                            self._end(done)
                            return
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            if (told := self._heard(json.loads(line))) is not None:
                                done += 1
                                yield told
                                # Whoever takes it may take its time.
                                alive = time.monotonic()
                    elif chunk:
                        self.printed = (self.printed + chunk.decode(errors="replace"))[-_TAIL:]
                    else:
                        selector.unregister(key.fileobj)
                self._progress()
                if time.monotonic() - alive > _SILENT_S:
                    raise FleetError(f"{self._name()}: no answer for {_SILENT_S:.0f} s", hint="make status; less load: --rate, --concurrency")

    def _name(self) -> str:
        return self.names[self.place] if 0 <= self.place < len(self.names) else "vLLM's benchmark"

    def _heard(self, told: Mapping[str, Any]) -> Told | None:
        if "begin" in told:
            self.place = int(told["begin"])
            self.printed, self.said = "", time.monotonic()
            self.say(self.names[self.place])
            return None
        if "failed" in told:
            why = _short(str(told["failed"]))
            if told["missing"]:
                raise FleetError(f"vLLM's benchmark lacks something: {why}", hint="make setup; vLLM's environment is runtime_image/requirements-cpu.lock")
            raise FleetError(f"{self._name()}: vLLM's benchmark broke off: {why}")
        return Told(result=told["result"], errors=told["errors"], short=int(told["short"]))

    def _progress(self) -> None:
        # Of the bar that vLLM draws: `  5%|▌    | 4/80 [00:01<00:19,  3.9it/s]`.
        if time.monotonic() - self.said > _SAY_S and (found := re.findall(r"\| *(\d+)/(\d+) \[", self.printed)):
            self.said = time.monotonic()
            self.say(f"  {' of '.join(found[-1])} answered")

    def _end(self, done: int) -> None:
        if done == len(self.names):
            # What is left of it is the end of an interpreter with all of torch in it.
            return
        try:
            code = self.process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            raise FleetError(f"{self._name()}: vLLM's benchmark stopped telling") from None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        last = _short("\n".join(self.printed.strip().splitlines()[-3:]))
        raise FleetError(f"{self._name()}: vLLM's benchmark {how}" + (f": {last}" if last else ""))


def _short(text: str) -> str:
    """One line, for a message."""
    line = " ".join(text.split())
    return line if len(line) <= 400 else f"{line[:397]}..."
