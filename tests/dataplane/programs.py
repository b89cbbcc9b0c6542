"""The programs as processes of a test, and servers that break off where a test wants it."""

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import wait_until
from toolchain import tools

MODEL = "tiny-chat"
POLICY = {"x-fleet-relay": "resume=true;idle=30;buffer=1000000"}
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Program:
    """A running server. log: what it wrote to standard error."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def serving(name: str, folder: Path, *flags: str) -> Generator[Program]:
    """Runs a server on a port of its own choice."""
    log = folder / f"{name}-{len(list(folder.iterdir()))}.log"
    command = [str(tools.acquire(name)), "--listen", "127.0.0.1:0", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_die_with_us)  # noqa: PLW1509
    try:
        wait_until(lambda: "listens on" in log.read_text(), f"{name} to listen", log=log)
        found = re.search(r"listens on (\S+)", log.read_text())
        assert found is not None
        yield Program(f"http://{found[1]}", process, log)
    finally:
        process.kill()
        process.wait()


def stand_in(folder: Path, *flags: str) -> contextlib.AbstractContextManager[Program]:
    return serving("fleet-stand-in", folder, "--model", MODEL, "--token-milliseconds", "1", *flags)


def relay(folder: Path, upstream: str, *flags: str) -> contextlib.AbstractContextManager[Program]:
    return serving("fleet-relay", folder, "--upstream", f"http://{upstream}", *flags)


def run_load(plan: object, **environment: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The results, in the order of their numbers, and the summary."""
    command = [str(tools.acquire("fleet-load"))]
    done = subprocess.run(command, input=json.dumps(plan), env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    begin, *results, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert set(begin) == {"begin"}
    return sorted(results, key=lambda each: (each["label"], each["n"])), summary["summary"]


Play = Callable[[socket.socket, bytes], bool | None]
"""What a server does with one request: the connection and the request's bytes. True keeps the connection for further ones."""


class Server:
    """Answers each request as `play` does; counts connections and requests."""

    def __init__(self, play: Play, secured: ssl.SSLContext | None = None) -> None:
        self.play = play
        self.connections = 0
        self.requests: list[bytes] = []
        self.over = threading.Event()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer.connections += 1
                with contextlib.suppress(OSError):
                    if secured:
                        self.request = secured.wrap_socket(self.request, server_side=True)
                    while (request := read_request(self.request)) and outer.answer(self.request, request):
                        pass

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 512

        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.listener.server_address[1]}"

    def answer(self, connection: socket.socket, request: bytes) -> bool:
        self.requests.append(request)
        return bool(self.play(connection, request))

    def __enter__(self) -> "Server":
        threading.Thread(target=self.listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.listener.shutdown()
        self.listener.server_close()


def read_request(connection: socket.socket) -> bytes:
    """One request with a Content-Length; empty where there is none any more."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    length = int(found[1]) if found else 0
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            return b""
        body += more
    return head + b"\r\n\r\n" + body


def break_off(connection: socket.socket) -> None:
    """Closes with a reset, as a killed machine's neighbour does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def answer(status: str, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = "data: [DONE]\n\n"


def chunk(text: str) -> bytes:
    return f"{len(text.encode()):x}\r\n{text}\r\n".encode()


def said(text: str) -> str:
    return f'data: {{"id":"a","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}\n\n'


@contextlib.contextmanager
def cutting(upstream: str, first: Callable[[bytes], bytes | None]) -> Generator[Server]:
    """A proxy to `upstream` that asks `first` for what is left of each answer's bytes, as they come; None for all of them."""

    def play(connection: socket.socket, request: bytes) -> None:
        host, port = upstream.split(":")
        passed = b""
        with socket.create_connection((host, int(port))) as onward:
            onward.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            while more := onward.recv(65536):
                left = first(passed + more)
                if left is not None:
                    connection.sendall(left[len(passed) :])
                    break_off(connection)
                    return
                connection.sendall(more)
                passed += more

    with Server(play) as server:
        yield server


@dataclass(frozen=True)
class Heard:
    """What a caller makes of a stream."""

    text: str
    reasons: list[str]
    roles: int
    usages: list[dict[str, int]]
    ids: set[str]
    comments: list[str]
    error: str
    done: bool


def hear(lines: Iterator[str]) -> Heard:
    """Reads a stream of either kind, and refuses whatever follows its end."""
    text, error, done, roles = "", "", False, 0
    reasons: list[str] = []
    comments: list[str] = []
    usages: list[dict[str, int]] = []
    ids: set[str] = set()
    for line in lines:
        if line.startswith(":"):
            comments.append(line[1:].strip())
        if not line.startswith("data: "):
            continue
        assert not done, f"something follows the end: {line}"
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            done = True
            continue
        event = json.loads(data)
        if "error" in event:
            error, done = event["error"]["type"], True
            continue
        ids.add(event["id"])
        if event.get("usage"):
            usages.append(event["usage"])
        for choice in event["choices"]:
            text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
            roles += "role" in choice.get("delta", {})
            reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    return Heard(text, reasons, roles, usages, ids, comments, error, done and not error)


def ask(url: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Heard:
    """Asks for a stream and reads it to its end, which must be a proper one."""
    with httpx.stream("POST", url + path, json={"model": MODEL, "stream": True} | body, headers=POLICY | (headers or {}), timeout=60) as got:
        if got.status_code != 200:
            raise AssertionError(f"HTTP {got.status_code}: {got.read().decode()}")
        return hear(got.iter_lines())
