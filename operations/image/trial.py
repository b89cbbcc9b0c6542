"""The image, run as a cluster would run it: by the command of our own runtime, as a user id that nobody chose, with a read-only root.

The model is tiny-chat, the runtime the CPU one. Everything listens on loopback; what was unpacked is removed by who asked for it.
"""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from components.serving import serving_runtimes
from core.errors import FleetError
from core.progress import Progress
from local import tiny_model
from oci.layout import Layout
from runtime_image.image import inputs, push, unpack
from runtime_image.image.confined import Container
from specs import labels, runtimes
from specs.failover import RequestFailoverSpec
from specs.serving_arguments import MODEL_PATH

USER = 1234567890
"""No image names it; OpenShift chooses such ones."""
_HOST = "127.0.0.1"
_ARGUMENTS = ("--max-model-len=1024", "--max-num-seqs=8", "--kv-cache-memory-bytes=67108864")
_READY_S, _LOOK_S = 600.0, 0.25
# Long enough that the order to stop comes in the middle of them.
_IN_FLIGHT, _TOKENS = 4, 400
_LOG_TAIL = 15
# What vLLM says when a part of its start is over, in the order in which it says it. The rest goes to the part after the last.
_PARTS = (
    ("import, configuration", re.compile(r"Initializing a V1 LLM engine")),
    ("weights", re.compile(r"Warming up model for the compilation|Loading weights took")),
    ("compile", re.compile(r"saved AOT compiled function|Initial profiling/warmup run took")),
    ("warm-up, KV cache", re.compile(r"init engine .* took")),
)
_LAST_PART = "API server"


@dataclass(frozen=True)
class Report:
    """version: what `vllm --version` says. parts: seconds of the start by part. checks: what was seen, in words."""

    version: str
    parts: dict[str, float]
    checks: tuple[str, ...]


@dataclass
class _Log:
    """Lines as they come, each with the second since the start."""

    lines: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    def follow(self, running: subprocess.Popen[str]) -> None:
        begun = time.monotonic()
        assert running.stdout is not None
        for line in running.stdout:
            self.lines.append((time.monotonic() - begun, line.rstrip()))

    def tail(self) -> str:
        return "\n".join(f"  {line[:200]}" for _, line in self.lines[-_LOG_TAIL:])


def parts(lines: Sequence[tuple[float, str]], ready: float) -> dict[str, float]:
    """Seconds of each part of a start, from the log's lines and the second at which it was ready."""
    result: dict[str, float] = {}
    begun = 0.0
    for name, pattern in _PARTS:
        at = next((second for second, line in lines if second >= begun and pattern.search(line)), begun)
        result[name] = at - begun
        begun = at
    return {**result, _LAST_PART: ready - begun}


def container(root: Path, folders: Path, port: int, user: int = USER) -> tuple[Container, dict[str, str]]:
    """The CPU runtime's own container, with its environment, over the image unpacked in `root`. folders: where model and guard lie."""
    declared: dict[str, Any] = serving_runtimes.serving_runtime(labels.RUNTIME_CPU, runtimes.CpuRuntimeSpec(), RequestFailoverSpec())["spec"]["containers"][0]
    replaced = {"$(POD_IP)": _HOST, "{{.Name}}": tiny_model.NAME, f"--port={serving_runtimes.PORT}": f"--port={port}"}

    def resolved(text: str) -> str:
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    env = {each["name"]: resolved(each.get("value", _HOST)) for each in declared["env"]}
    volumes = {MODEL_PATH: str(folders / "model"), serving_runtimes.GUARD_PATH: str(folders / "guard")}
    command = [*declared["command"], *(resolved(each) for each in declared["args"]), *_ARGUMENTS]
    return Container(str(root), user, declared["workingDir"], volumes, command), env


def run(layout: Path, work: Path, progress: Progress, user: int = USER) -> Report:
    """Unpacks the image in the layout into `work` and tries it. Raises FleetError that says what failed, with the end of the log."""
    place = Layout(layout)
    described = push.describe(place, place.root())
    root, folders = work / "root", work / "volumes"
    with progress.stage("unpacking"):
        unpack.unpack(layout, root)
    _volumes(folders)
    port = free_port()
    declared, env = container(root, folders, port, user)
    own = dict(each.split("=", 1) for each in described.config["Env"])
    with progress.stage("vllm --version"):
        version = _version(declared, own, described)
    with progress.stage("start"):
        running = subprocess.Popen(
            declared.arguments(), env={**own, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        log = _Log()
        reader = threading.Thread(target=log.follow, args=(running,), daemon=True)
        reader.start()
    try:
        begun = time.monotonic()
        with progress.stage("waiting for readiness"):
            _await(running, port)
        ready = time.monotonic() - begun
        with progress.stage("requests"):
            checks = [*_confinement(_inner(running), user), *_requests(port)]
        with progress.stage("SIGTERM with requests under way"):
            checks.append(_drain(running, port))
        return Report(version, parts(log.lines, ready), tuple(checks))
    except FleetError as error:
        raise FleetError(f"{error}\n{log.tail()}", hint=error.hint) from None
    finally:
        # With it goes the namespace and all in it.
        running.kill()
        running.wait()
        reader.join()


def _volumes(folders: Path) -> None:
    tiny_model.write(folders / "model")
    (folders / "guard").mkdir(parents=True)
    for name, text in serving_runtimes.guard_files()["data"].items():
        (folders / "guard" / name).write_text(text)


def free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return found.getsockname()[1]


def _version(declared: Container, env: dict[str, str], described: push.Description) -> str:
    """By the image's own entrypoint, in the folder that it names."""
    entrypoint: list[str] = described.config["Entrypoint"]
    asked = Container(declared.root, declared.user, described.config["WorkingDir"], {}, [entrypoint[0], "--version"])
    done = subprocess.run(asked.arguments(), env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    told = done.stdout.strip().splitlines()[-1:] or [""]
    wanted = described.labels[inputs.VERSION_LABEL]
    if done.returncode or not told[0].startswith(wanted):
        raise FleetError(f"`{entrypoint[0]} --version` must print `{wanted}`, got: `{told[0]}`\n{done.stderr.strip()[-2000:]}")
    return told[0]


def _await(running: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + _READY_S
    url = f"http://{_HOST}:{port}{serving_runtimes.READY_PATH}"
    while time.monotonic() < deadline:
        if running.poll() is not None:
            raise FleetError(f"vLLM ended with exit code {running.returncode} before it was ready")
        try:
            if httpx.get(url, trust_env=False, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(_LOOK_S)
    raise FleetError(f"vLLM was not ready after {_READY_S:.0f} s")


def _inner(running: subprocess.Popen[str]) -> int:
    """The process that is number 1 inside: `unshare` waits outside and does not pass signals on."""
    return int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0])


def _confinement(process: int, user: int) -> list[str]:
    """What the kernel says of the process. Raises FleetError where it has more than it should."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line)
    root = next(line.split()[5] for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines() if line.split()[4] == "/")
    found = {
        f"user {user}, group 0": status["Uid"].split()[1] == str(user) and status["Gid"].split()[1] == "0",
        "no capabilities, no new privileges": int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1",
        "read-only root": "ro" in root.split(","),
    }
    for what, holds in found.items():
        if not holds:
            raise FleetError(f"the process was to have: {what}; the kernel says otherwise")
    return list(found)


def _body(stream: bool, tokens: int, **more: Any) -> dict[str, Any]:
    return {"model": tiny_model.NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, "stream": stream, **more}


def _requests(port: int) -> list[str]:
    base = f"http://{_HOST}:{port}"
    with httpx.Client(base_url=base, trust_env=False, timeout=120) as http:
        answer = http.post("/v1/chat/completions", json=_body(False, 16))
        if answer.status_code != 200 or not answer.json()["choices"][0]["message"]["content"]:
            raise FleetError(f"a completion must have a text, got: `HTTP {answer.status_code} {answer.text[:200]}`")
        chunks = _stream(http, _body(True, 16), _nothing)
        if chunks < 2:
            raise FleetError(f"a stream must have several parts, got: `{chunks}`")
        metrics = http.get("/metrics").text
        counted = sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith("vllm:request_success_total{"))
        if counted < 2:
            raise FleetError(f"vllm:request_success_total in /metrics must count 2 requests, got: `{counted:g}`")
    return [f"completion of {answer.json()['usage']['completion_tokens']} tokens", f"stream of {chunks} parts", "/metrics counts them"]


def _nothing() -> None:
    pass


def _stream(http: httpx.Client, body: dict[str, Any], first: Callable[[], object]) -> int:
    """Parts of a whole stream. Calls `first` after the first one. Raises FleetError where it breaks off."""
    parts_seen, finished, done = 0, "", False
    try:
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    choices = json.loads(line[6:]).get("choices") or [{}]
                    finished = choices[0].get("finish_reason") or finished
                    parts_seen += 1
                    if parts_seen == 2:
                        first()
    except httpx.HTTPError as error:
        raise FleetError(f"a stream broke off after {parts_seen} parts: {error!r}") from None
    if not done or finished not in {"length", "stop"}:
        raise FleetError(f"a stream ended without an end after {parts_seen} parts, finish_reason: `{finished}`")
    return parts_seen


def _drain(running: subprocess.Popen[str], port: int) -> str:
    """All requests under way are finished after the order to stop, and then the process ends by itself."""
    under_way = threading.Barrier(_IN_FLIGHT + 1)
    ends: list[float] = []
    failures: list[str] = []

    def ask() -> None:
        try:
            with httpx.Client(base_url=f"http://{_HOST}:{port}", trust_env=False, timeout=120) as http:
                _stream(http, _body(True, _TOKENS, ignore_eos=True), under_way.wait)
            ends.append(time.monotonic())
        except (FleetError, threading.BrokenBarrierError) as error:
            failures.append(str(error))
            under_way.abort()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(_IN_FLIGHT)]
    for each in threads:
        each.start()
    try:
        under_way.wait(60)
    except threading.BrokenBarrierError:
        raise FleetError(f"{_IN_FLIGHT} streams did not begin: {'; '.join(failures)}") from None
    ordered = time.monotonic()
    os.kill(_inner(running), 15)
    for each in threads:
        each.join()
    if failures or min(ends) < ordered:
        raise FleetError(f"requests under way at SIGTERM must be finished, got: `{'; '.join(failures) or 'they were over before'}`")
    try:
        running.wait(runtimes.CpuRuntimeSpec().shutdown_seconds)
    except subprocess.TimeoutExpired:
        raise FleetError("vLLM did not end after its last request") from None
    return (
        f"SIGTERM: {_IN_FLIGHT} requests under way finished within {max(ends) - ordered:.1f} s, the process ended {time.monotonic() - ordered:.1f} s after it"
    )
