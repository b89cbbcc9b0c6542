"""The engine guard: an ASGI class around vLLM's routes, in vLLM's own API server.

    vllm serve ... --middleware=engine_guard.EngineGuard

vLLM sends the headers of a stream before it computes, and calls itself healthy while its engine hangs. The guard holds
headers back until the first token, so that a proxy can send the request elsewhere until then; gives requests back when
the engine hangs; refuses at once when the replica is full. It knows nothing of other replicas or regions.

One file with nothing but the standard library and what vLLM has, because it reaches the pods as a ConfigMap.
docs/engine-guard.md has what callers see.
"""

import asyncio
import importlib
import json
import logging
import math
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

READY_PATH = "/fleet/ready"
HEALTH_PATH = "/health"
COMPLETIONS, EMBEDDINGS, RESPONSES = "/v1/completions", "/v1/embeddings", "/v1/responses"
# What makes the engine compute for a caller. Everything else passes untouched.
GUARDED = frozenset({"/v1/chat/completions", COMPLETIONS, EMBEDDINGS, RESPONSES})

# Settings, as environment variables.
STALL_SECONDS, CAPACITY, REVISION = "FLEET_GUARD_STALL_SECONDS", "FLEET_GUARD_CAPACITY", "FLEET_MODEL_REVISION"

# Written by vLLM from what the engine tells: as long as one of them changes, the engine computes. The first two move with
# tokens; during a long prefill that is computed in chunks only the KV cache does. Not the numbers of requests: a scheduler
# that gets nowhere still counts those that come.
_MOVING = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:kv_cache_usage_perc")
# From the start of one canary to the next, if that one has ended.
_CANARY_PERIOD_S = 2.0
# Two tokens that every vocabulary has, given by number: text would queue behind a caller's long prompt for the tokenizer.
_CANARY = {
    COMPLETIONS: {"prompt": [1, 1], "max_tokens": 1, "temperature": 0},
    EMBEDDINGS: {"input": [1, 1]},
}
# What the app may take to end once its caller is gone, before it is cancelled.
_LEAVE_S = 5.0

_ERROR_EVENT = b'data: {"error"'
# Events of a /v1/responses stream that come before the engine was asked, and those that end one. Other streams end with [DONE].
_PREAMBLE = (b"event: response.created", b"event: response.queued", b"event: response.in_progress")
# The event of a chat that says who speaks. vLLM sends it before whatever the engine says first, also if that is no token.
_ROLE = b'"delta":{"role":"assistant","content":""'
# What vLLM makes of all requests under way when it is stopped and does not wait for them: half an answer that looks whole.
# Text of a model cannot hold it, as its quotes would be escaped.
_ABORTED = b'"finish_reason":"abort"'
_LAST_EVENTS = tuple(f"event: {name}".encode() for name in ("response.completed", "response.failed", "response.incomplete", "response.cancelled", "error"))
# How vLLM names the 503 by which it refuses what its own queue limits do not let in. Other 503 have other types.
_OVERFLOW = "Service Unavailable"

# A logger below vLLM's own has its handlers and its format.
_logger = logging.getLogger("vllm.engine_guard")


@dataclass(frozen=True)
class Settings:
    """stall_seconds: how long the engine may compute nothing while a request waits for it. capacity: requests under way at
    once, 0 for no limit. revision: what the model's answers come from; told in every answer."""

    stall_seconds: float = 8.0
    capacity: int = 0
    revision: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """From the environment. Raises ValueError that names the variable."""
        stall = _number(float, environment.get(STALL_SECONDS, "8"), STALL_SECONDS, "a number of seconds above 0")
        capacity = _number(int, environment.get(CAPACITY, "0"), CAPACITY, "a whole number, 0 for no limit")
        if not 0 < stall < math.inf:
            raise ValueError(f"{STALL_SECONDS} must be a number of seconds above 0, got: `{stall:g}`")
        if capacity < 0:
            raise ValueError(f"{CAPACITY} must be a whole number, 0 for no limit, got: `{capacity}`")
        return cls(stall, capacity, environment.get(REVISION, ""))


def _number(kind: Callable[[str], Any], text: str, name: str, rule: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} must be {rule}, got: `{text}`") from None


@dataclass(frozen=True)
class _Refusal:
    """An answer of the guard's own."""

    status: int
    kind: str
    message: str
    headers: Headers = ()

    @property
    def body(self) -> bytes:
        return json.dumps({"error": {"message": self.message, "type": self.kind, "code": self.status}}).encode()


_NOTHING_SENT = "nothing of the answer was sent; the request can be sent again"
_HUNG = _Refusal(503, "engine_stalled", f"the engine of this replica hangs; {_NOTHING_SENT}", ((b"x-fleet-reason", b"engine-stalled"),))
_DEAD = _Refusal(503, "engine_stalled", f"the engine of this replica has died; {_NOTHING_SENT}", ((b"x-fleet-reason", b"engine-dead"),))
_STOPPED = _Refusal(503, "engine_stalled", f"this replica stops; {_NOTHING_SENT}", ((b"x-fleet-reason", b"engine-stopped"),))
_FULL = _Refusal(429, "overloaded", "this replica is full; try again later", ((b"retry-after", b"1"),))
_FAILED = _Refusal(500, "internal_error", "the server failed to answer")

_HUNG_MIDWAY = "the engine hangs; the answer is not complete"
_DIED_MIDWAY = "the engine has died; the answer is not complete"
_STOPPED_MIDWAY = "the replica stops; the answer is not complete"
_ENDED_MIDWAY = "the server broke off; the answer is not complete"


def engine_counters() -> tuple[float, ...]:
    """The values of _MOVING that there are, from the registry of this process."""
    # Not at the top: what imports this file for its names has no such package.
    registry = importlib.import_module("prometheus_client").REGISTRY
    return tuple(sample.value for metric in registry.restricted_registry(_MOVING).collect() for sample in metric.samples)


class EngineGuard:
    """See the module. `stalled`: the engine has computed nothing for too long, and requests are refused until it does."""

    def __init__(self, app: App, settings: Settings | None = None, counters: Callable[[], object] = engine_counters) -> None:
        self.app = app
        self.settings = settings or Settings.read()
        self.stalled = False
        self._counters = counters
        self._under_way: set[_Request] = set()
        self._watcher: asyncio.Task[None] | None = None
        # Bodies of good answers that the app has handed over, as a sign of life besides the counters.
        self.passed = 0
        self._seen: object = None
        self._progress_at = 0.0
        self._canary: asyncio.Task[bool] | None = None
        self._next_canary = 0.0
        # The request that waited longest, as a pattern for canaries: it has what vLLM asks of a caller, such as a key.
        self._like: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] in GUARDED and scope["method"] == "POST":
                await self._guard(_Request(self, scope, receive, send))
                return
            if scope["path"] == READY_PATH:
                await self._tell_readiness(scope, send)
                return
        await self.app(scope, receive, send)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every guarded answer carries."""
        revision = self.settings.revision
        return [(b"x-fleet-revision", revision.encode())] if revision else []

    async def healthy(self, scope: Scope) -> bool:
        """What vLLM says of itself: False once its engine has died, True while it hangs."""
        return await self._ask(scope, "GET", HEALTH_PATH, b"", None) == 200

    async def _tell_readiness(self, scope: Scope, send: Send) -> None:
        state = "stalled" if self.stalled else "ready" if await self.healthy(scope) else "dead"
        body = json.dumps({"status": state, "revision": self.settings.revision}).encode()
        await _answer(send, 200 if state == "ready" else 503, body, self.headers)

    async def _guard(self, request: "_Request") -> None:
        self._watch()
        if self.stalled:
            await request.refuse(_HUNG)
            return
        if self.settings.capacity and len(self._under_way) >= self.settings.capacity:
            await request.refuse(_FULL)
            return
        self._under_way.add(request)
        try:
            await request.run()
        finally:
            self._under_way.discard(request)
        await request.conclude()

    # Watching

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._progress_at = asyncio.get_running_loop().time()
            self._moved()
            self._watcher = asyncio.create_task(self._look_on())

    async def _look_on(self) -> None:
        """Looks at the engine while there is something to look at."""
        loop = asyncio.get_running_loop()
        period = min(1.0, self.settings.stall_seconds / 4)
        before = loop.time()
        try:
            while self._under_way or self.stalled:
                await asyncio.sleep(period)
                now = loop.time()
                late = now - before - period
                before = now
                if late > period:
                    # This process, too, stood still: in that time nobody could have seen the engine's progress.
                    self._progress_at = min(now, self._progress_at + late)
                self._judge(now)
        except Exception:
            _logger.exception("the engine guard stopped watching; the next request starts it again")

    def _judge(self, now: float) -> None:
        self._take_canary(now)
        if self._moved():
            self._progress_at = now
        if self.stalled:
            self._send_canary(now)
            return
        # Not those that wait for their caller: its upload, or its reading.
        waiting = [each for each in self._under_way if each.since is not None and not each.answered]
        if not waiting:
            self._progress_at = now
            return
        oldest = min(waiting, key=lambda each: each.since or 0.0)
        self._like = oldest.scope
        quiet = now - max(self._progress_at, oldest.since or 0.0)
        if quiet >= self.settings.stall_seconds:
            self._stall(quiet)
        elif quiet >= self.settings.stall_seconds / 2:
            # What is slow without a trace in the counters (fetching an image, a grammar, a prefill without KV cache) is
            # told from a hang by asking for one token.
            self._send_canary(now)

    def _moved(self) -> bool:
        seen = (self.passed, self._counters())
        moved = seen != self._seen
        self._seen = seen
        return moved

    def _stall(self, quiet: float) -> None:
        self.stalled = True
        given_back = [each for each in self._under_way if each.give_back()]
        begun = sum(each.begun for each in given_back)
        _logger.error(
            "the engine has computed nothing for %.1f s: %d requests are given back, %d streams end with an error; refusing requests until it answers a canary",
            quiet,
            len(given_back) - begun,
            begun,
        )

    def _send_canary(self, now: float) -> None:
        if self._canary is None and now >= self._next_canary:
            self._canary, self._next_canary = asyncio.create_task(self._sing(self._like)), now + _CANARY_PERIOD_S

    def _take_canary(self, now: float) -> None:
        if self._canary is None or not self._canary.done():
            return
        alive = self._canary.result()
        self._canary = None
        if alive:
            self._progress_at = now
            if self.stalled:
                self.stalled = False
                _logger.warning("the engine computes again")

    async def _sing(self, like: Scope) -> bool:
        """Whether the engine computes one token within the time after which it counts as hung."""
        path = EMBEDDINGS if like["path"] == EMBEDDINGS else COMPLETIONS
        try:
            return await self._ask(like, "POST", path, json.dumps(_CANARY[path]).encode(), self.settings.stall_seconds) == 200
        except Exception:
            _logger.exception("the canary of the engine guard failed")
            return False

    async def _ask(self, like: Scope, method: str, path: str, body: bytes, seconds: float | None) -> int | None:
        """Status of a request of our own to the app; None where it did not answer within `seconds`."""
        keys = ("type", "asgi", "http_version", "scheme", "server", "client", "root_path", "app")
        scope = {key: like[key] for key in keys if key in like}
        scope |= {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "state": dict(like.get("state") or {})}
        kept = [(name, value) for name, value in like["headers"] if name.lower() in (b"authorization", b"host")]
        scope["headers"] = [*kept, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        status: int | None = None
        asked = False
        left = asyncio.Event()

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        running = asyncio.ensure_future(self.app(scope, receive, send))
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if not done:
            left.set()
            _leave(running)
            return None
        running.result()
        return status


class _Request:
    """One guarded request under way. `since`: when the app began to wait for the engine; None while it waits for the caller.

    begun: something of the answer was sent. answered: all of it was. gone: the caller hung up.
    """

    __slots__ = (
        "_guard",
        "_held",
        "_last",
        "_loop",
        "_over",
        "_receive",
        "_running",
        "_send",
        "_status",
        "_streaming",
        "_uploaded",
        "answered",
        "begun",
        "given_back",
        "gone",
        "scope",
        "since",
    )

    def __init__(self, guard: EngineGuard, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.since: float | None = None
        self.begun = self.answered = self.given_back = self.gone = False
        self._guard, self._receive, self._send = guard, receive, send
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._running: asyncio.Future[None] | None = None
        self._uploaded = self._streaming = False
        self._status = 0
        self._held: list[Message] = []
        self._last = b""

    async def run(self) -> None:
        """Until the app has ended, or the request was given back."""
        # Not in this task: what the caller gets must not depend on how fast the app lets go.
        self._running = asyncio.ensure_future(self._guard.app(self.scope, self._app_receives, self._app_sends))
        self._running.add_done_callback(self._ended)
        try:
            await self._over
        except asyncio.CancelledError:
            self._running.cancel()
            raise

    def _ended(self, running: "asyncio.Future[None]") -> None:
        if not running.cancelled():
            # Looked at in `conclude`; asked for here so that asyncio does not complain about one that was given back.
            running.exception()
        if not self._over.done():
            self._over.set_result(None)

    def give_back(self) -> bool:
        """Ends it for its caller now. False where nothing can be given back: an answer without events that has begun."""
        if self.answered or (self.begun and not self._streaming):
            return False
        self.given_back = True
        if not self._over.done():
            self._over.set_result(None)
        return True

    async def conclude(self) -> None:
        """Whatever the app left undone."""
        running = self._running
        assert running is not None
        if self.given_back:
            await (self._cut(_HUNG_MIDWAY) if self.begun else self.refuse(_HUNG))
            # Its caller has its answer, which the app hears as a disconnect: vLLM's own reason to abort.
            _leave(running)
            return
        error = None if running.cancelled() else running.exception()
        if error is not None:
            _logger.error("the app failed in %s", self.scope["path"], exc_info=error)
        if self.answered or self.gone:
            return
        if not self.begun:
            await self.refuse(_FAILED if await self._guard.healthy(self.scope) else _DEAD)
        elif self._streaming:
            await self._cut(_ENDED_MIDWAY)
        else:
            # Its length was announced: the server breaks the connection, so that nobody takes a part for the whole.
            raise error or RuntimeError(_ENDED_MIDWAY)

    async def refuse(self, refusal: _Refusal) -> None:
        """Answers with an error of our own in place of an answer."""
        # Envoy does not retry a request that is answered before it was sent wholly.
        while not self._uploaded and not self.gone:
            self._note(await self._receive())
        await self._answer_once(refusal.status, refusal.body, refusal.headers)

    async def _answer_once(self, status: int, body: bytes, headers: Headers = ()) -> None:
        # The app may be about to answer while the request is given back.
        if not self.answered:
            self.answered = True
            await _answer(self._send, status, body, [*headers, *self._guard.headers])

    async def _cut(self, message: str) -> None:
        """Ends a stream that has begun with an event that says so, and without [DONE]."""
        if not self.answered:
            self.answered = True
            event = b"data: " + _Refusal(503, "engine_stalled", message).body + b"\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})

    # What the app sees in place of the server

    async def _app_receives(self) -> Message:
        if not self.given_back:
            message = await self._receive()
            self._note(message)
            if not self.given_back:
                return message
        return {"type": "http.disconnect"}

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.gone = True
        elif not message.get("more_body"):
            self._uploaded = True
            self.since = self._loop.time()

    async def _app_sends(self, message: Message) -> None:
        if self.given_back or self.answered:
            return
        if message["type"] == "http.response.start":
            self._read_start(message)
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self.begun or await self._begin(message):
            await self._pass(message)

    def _read_start(self, message: Message) -> None:
        headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
        self._status = message["status"]
        self._streaming = any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
        self._held.append({**message, "headers": [*headers, *self._guard.headers]})

    async def _begin(self, message: Message) -> bool:
        """Sends what was held back if `message` is the first that the engine has a part in. False where it is not passed on."""
        body, more = message.get("body", b""), message.get("more_body", False)
        if more and not body:
            return False
        if self._streaming:
            if body.startswith(b":"):
                # A comment that keeps idle connections open; it is no token.
                return False
            if more and (body.startswith(_PREAMBLE) or _ROLE in body):
                self._held.append(message)
                return False
            if body.startswith(_ERROR_EVENT):
                await self._refuse_as(*_code_and_body(body))
                return False
            if not body:
                await self.refuse(_FAILED if await self._guard.healthy(self.scope) else _DEAD)
                return False
        elif self._status >= 500 and not more:
            await self._refuse_as(self._status, body)
            return False
        if _ABORTED in body:
            await self.refuse(_STOPPED)
            return False
        self.begun = True
        for held in self._held:
            await self._send(held)
        self._held.clear()
        return True

    async def _refuse_as(self, status: int, body: bytes) -> None:
        """Answers with vLLM's own error, or with what it means: full, or its engine has died."""
        if status == 503 and _type_of(body) == _OVERFLOW:
            await self.refuse(_FULL)
        elif status >= 500 and not await self._guard.healthy(self.scope):
            await self.refuse(_DEAD)
        else:
            await self._answer_once(status, body)

    async def _pass(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._streaming:
            if body.startswith(_ERROR_EVENT) and not await self._guard.healthy(self.scope):
                await self._cut(_DIED_MIDWAY)
            elif _ABORTED in body:
                await self._cut(_STOPPED_MIDWAY)
            if self.answered:
                return
            self._last = body or self._last
            if not more and not self.gone and not self._is_whole():
                if body:
                    await self._send({**message, "more_body": True})
                await self._cut(_ENDED_MIDWAY)
                return
        if body and self._status == 200 and not body.startswith(b":"):
            self._guard.passed += 1
        self.answered = not more
        # However long the caller takes to read, it is not the engine that is waited for.
        self.since = None
        await self._send(message)
        self.since = self._loop.time()

    def _is_whole(self) -> bool:
        return self._last.startswith(_LAST_EVENTS) if self.scope["path"] == RESPONSES else b"data: [DONE]" in self._last


def _code_and_body(event: bytes) -> tuple[int, bytes]:
    """The status that an error event would have had as an answer, and that answer's body."""
    body = event.split(b"\n", 1)[0].removeprefix(b"data: ")
    code = _error(body).get("code")
    return (code if isinstance(code, int) and 400 <= code <= 599 else 500), body


def _type_of(body: bytes) -> object:
    return _error(body).get("type")


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


async def _answer(send: Send, status: int, body: bytes, headers: Headers) -> None:
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _leave(running: "asyncio.Future[None]") -> None:
    """Lets the app end what it does for nobody any more, and cancels it where it does not."""
    if not running.done():
        # The timer also keeps the task alive: asyncio itself holds only a weak reference.
        asyncio.get_running_loop().call_later(_LEAVE_S, running.cancel)
