"""A server, callers and an engine to try the guard with: no network, and a clock that jumps instead of waiting."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runtime_image.engine_guard import EngineGuard, Message, Receive, Scope, Send, Settings

_T = TypeVar("_T")

CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"
DONE = b"data: [DONE]\n\n"
REVISION = "r1"


class Clock(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time. `stand_still`: as if the process had been stopped meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None = None) -> Any:
            if timeout is None:
                raise AssertionError("everything waits for something that never comes")
            self._now += max(0.0, timeout)
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def stand_still(self, seconds: float) -> None:
        self._now += seconds


def play(scene: Coroutine[Any, Any, _T]) -> _T:
    """Runs a scene on a clock of its own."""
    loop = Clock()
    try:
        return loop.run_until_complete(scene)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@dataclass
class Engine:
    """What the fake vLLM asks for tokens. `frozen`: it computes nothing. `steps` is what its counters show."""

    frozen: bool = False
    dead: bool = False
    steps: int = 0
    running: int = 0
    aborted: int = 0
    seconds_per_token: float = 0.1
    _thawed: asyncio.Event = field(default_factory=asyncio.Event)

    async def token(self) -> None:
        await asyncio.sleep(self.seconds_per_token)
        while self.frozen:
            self._thawed.clear()
            await self._thawed.wait()
        self.steps += 1

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        self._thawed.set()


class Vllm:
    """As much of vLLM's server as the guard knows: headers before the first token, /health that says nothing, and work that
    goes on when its task is cancelled and ends when the caller hangs up."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await answer(send, 503 if self.engine.dead else 200, b"")
            return
        body = await read(receive)
        asked = json.loads(body or b"{}")
        self.asked.append((scope["path"], asked))
        self.headers.append(dict(scope["headers"]))
        if scope["path"] not in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES):
            await answer(send, 200, b'{"untouched": true}')
            return
        work = asyncio.ensure_future(self._work(scope, asked, send))
        leaving = asyncio.ensure_future(hung_up(receive))
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not work.done():
            self.engine.aborted += 1
            work.cancel()
        else:
            work.result()

    async def _work(self, scope: Scope, asked: dict[str, Any], send: Send) -> None:
        tokens = asked.get("max_tokens", 3)
        self.engine.running += 1
        try:
            if not asked.get("stream"):
                for _ in range(tokens):
                    await self.engine.token()
                await answer(send, 200, b'{"choices": []}')
                return
            await send(start(200, b"text/event-stream; charset=utf-8"))
            for number in range(tokens):
                await self.engine.token()
                await send(chunk(b'data: {"id": %d}\n\n' % number))
            await send(chunk(DONE))
            await send(chunk(b"", more=False))
        finally:
            self.engine.running -= 1


async def read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def start(status: int, kind: bytes = b"application/json") -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}


def chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def answer(send: Send, status: int, body: bytes) -> None:
    await send(start(status))
    await send(chunk(body, more=False))


class Caller:
    """One request as the server sees it: what was sent, and when. `reads` off: the caller takes nothing."""

    def __init__(self, body: bytes = b"{}", path: str = CHAT, *, uploads: bool = True, method: str = "POST") -> None:
        self.path, self.method = path, method
        self.headers = [(b"host", b"door"), (b"authorization", b"Bearer key")]
        self.sent: list[tuple[float, Message]] = []
        # What a server would not have taken.
        self.faults: list[Message] = []
        self._body: list[Message] = [{"type": "http.request", "body": body, "more_body": False}] if uploads else []
        self._news = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self._gone = False
        self.task: asyncio.Future[None] | None = None

    def call(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> "Caller":
        scope = {"type": "http", "path": self.path, "method": self.method, "headers": self.headers, "http_version": "1.1", "app": object()}
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))
        return self

    async def answered(self) -> "Caller":
        assert self.task is not None
        await self.task
        return self

    # What a caller does

    def upload(self, body: bytes, *, more: bool = False) -> None:
        self._body.append({"type": "http.request", "body": body, "more_body": more})
        self._news.set()

    def stop_reading(self) -> None:
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    def hang_up(self) -> None:
        self._gone = True
        self._news.set()
        self._reads.set()

    # What a caller sees

    @property
    def status(self) -> int:
        assert self.sent, "nothing was sent"
        return self.sent[0][1]["status"]

    @property
    def response_headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0][1]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for _, message in self.sent[1:])

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]

    @property
    def last_event(self) -> dict[str, Any]:
        return json.loads(self.body.strip().rsplit(b"data: ", 1)[1])

    @property
    def complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1][1].get("more_body", True)

    # As uvicorn does it

    async def _receive(self) -> Message:
        while not self._body and not self._gone and not self.complete:
            self._news.clear()
            await self._news.wait()
        if self._gone or self.complete:
            return {"type": "http.disconnect"}
        return self._body.pop(0)

    async def _send(self, message: Message) -> None:
        await self._reads.wait()
        if self._gone:
            return
        if self.complete or message["type"] != ("http.response.body" if self.sent else "http.response.start"):
            self.faults.append(message)
            raise RuntimeError(f"unexpected ASGI message {message['type']}")
        self.sent.append((asyncio.get_running_loop().time(), message))
        if self.complete:
            self._news.set()


def now() -> float:
    return asyncio.get_running_loop().time()


def guarded(engine: Engine, app: Any = None, *, capacity: int = 0, stall_seconds: float = 8.0, counters: Any = None) -> EngineGuard:
    settings = Settings(stall_seconds, capacity, REVISION)
    return EngineGuard(app or Vllm(engine), settings, counters or (lambda: engine.steps))


async def ask(app: Any, body: bytes = b"{}", path: str = CHAT, method: str = "POST") -> Caller:
    """A request and its whole answer."""
    return await Caller(body, path, method=method).call(app).answered()
