"""What callers and probes see of a pod with the engine watchdog: when the engine computes, hangs, dies or is full."""

import asyncio
import json
import logging
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from runtime_image import engine_guard
from runtime_image.engine_guard import EngineGuard, Message, Receive, Scope, Send, Settings
from tests.guard import stage
from tests.guard.stage import CHAT, COMPLETIONS, DONE, EMBEDDINGS, RESPONSES, Caller, Engine, ask, guarded, now

STREAM = b'{"stream": true}'
READY = "/fleet/ready"
# The clock's own jumps, and the guard's looks once a second.
LOOK_S = 1.0


def long_stream(tokens: int = 1000) -> bytes:
    return json.dumps({"stream": True, "max_tokens": tokens}).encode()


def long_answer(tokens: int = 1000) -> bytes:
    return json.dumps({"max_tokens": tokens}).encode()


async def readiness(guard: EngineGuard) -> tuple[int, dict[str, Any]]:
    caller = await ask(guard, path=READY, method="GET")
    return caller.status, json.loads(caller.body)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vllm.engine_guard")


# Streams begin with their first token


def test_the_headers_of_a_stream_come_with_its_first_token() -> None:
    async def scene() -> None:
        caller = await ask(guarded(Engine(seconds_per_token=2.0)), STREAM)
        begun, first = caller.sent[0][0], caller.sent[1][0]
        assert begun == first == 2.0
        assert caller.status == 200
        assert caller.body.endswith(DONE)

    stage.play(scene())


def test_comments_that_keep_a_connection_open_are_no_token() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await send(stage.start(200, b"text/event-stream"))
        await send(stage.chunk(b": keep-alive\n\n"))
        await asyncio.sleep(3)
        await send(stage.chunk(b"data: {}\n\n"))
        await send(stage.chunk(b": keep-alive\n\n"))
        await send(stage.chunk(DONE, more=False))

    async def scene() -> None:
        caller = await ask(guarded(Engine(), app), STREAM)
        assert caller.sent[0][0] == 3
        assert caller.body == b"data: {}\n\n: keep-alive\n\n" + DONE

    stage.play(scene())


def test_a_responses_stream_begins_with_what_the_engine_said_and_keeps_its_events_in_order() -> None:
    events = [b"event: response.created\ndata: {}\n\n", b"event: response.in_progress\ndata: {}\n\n", b"event: response.output_text.delta\ndata: {}\n\n"]
    last = b"event: response.completed\ndata: {}\n\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await send(stage.start(200, b"text/event-stream"))
        for event in events[:2]:
            await send(stage.chunk(event))
        await asyncio.sleep(3)
        for event in (*events[2:], last):
            await send(stage.chunk(event))
        await send(stage.chunk(b"", more=False))

    async def scene() -> None:
        caller = await ask(guarded(Engine(), app), STREAM, RESPONSES)
        assert caller.sent[0][0] == 3
        assert caller.body == b"".join([*events, last])

    stage.play(scene())


@pytest.mark.parametrize(("path", "method"), [("/v1/models", "GET"), ("/metrics", "GET"), ("/v1/audio/transcriptions", "POST"), (CHAT, "OPTIONS")])
def test_everything_else_passes_untouched(path: str, method: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(stage.start(404))
        await send(stage.chunk(b"plain", more=False))

    async def scene() -> None:
        guard = guarded(Engine(), app, capacity=1)
        guard.stalled = True
        caller = await ask(guard, path=path, method=method)
        assert caller.status == 404
        assert "x-fleet-revision" not in caller.response_headers

    stage.play(scene())


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_every_answer_tells_the_models_revision(path: str) -> None:
    async def scene() -> None:
        guard = guarded(Engine())
        answers = [await ask(guard, b"{}", path), await ask(guard, path=READY, method="GET")]
        guard.stalled = True
        answers.append(await ask(guard, b"{}", path))
        assert [caller.status for caller in answers] == [200, 200, 503]
        assert {caller.response_headers["x-fleet-revision"] for caller in answers} == {"r1"}

    stage.play(scene())


# A full replica


def test_a_full_replica_says_so_at_once_and_takes_the_next_when_there_is_room() -> None:
    async def scene() -> None:
        engine = Engine()
        guard = guarded(engine, capacity=2)
        under_way = [Caller(STREAM).call(guard) for _ in range(2)]
        await asyncio.sleep(0.01)
        asked = now()
        refused = await ask(guard, STREAM)
        assert now() == asked
        assert refused.status == 429
        assert refused.response_headers["retry-after"] == "1"
        assert refused.error == {"message": "this replica is full; try again later", "type": "overloaded", "code": 429}
        assert engine.running == 2
        for caller in under_way:
            await caller.answered()
        assert (await ask(guard)).status == 200

    stage.play(scene())


def test_a_full_replica_is_ready() -> None:
    async def scene() -> None:
        guard = guarded(Engine(), capacity=1)
        Caller(STREAM).call(guard)
        await asyncio.sleep(0.01)
        assert (await ask(guard)).status == 429
        assert await readiness(guard) == (200, {"status": "ready", "revision": "r1"})

    stage.play(scene())


def test_a_caller_that_hangs_up_makes_room() -> None:
    async def scene() -> None:
        engine = Engine()
        guard = guarded(engine, capacity=1)
        caller = Caller(long_stream()).call(guard)
        await asyncio.sleep(0.5)
        caller.hang_up()
        await caller.answered()
        assert engine.aborted == 1
        assert (await ask(guard)).status == 200

    stage.play(scene())


def test_a_refusal_waits_for_the_end_of_the_request_so_that_envoy_can_send_it_elsewhere() -> None:
    async def scene() -> None:
        guard = guarded(Engine(), capacity=1)
        Caller(long_stream()).call(guard)
        await asyncio.sleep(0.01)
        caller = Caller(uploads=False).call(guard)
        caller.upload(b"{", more=True)
        await asyncio.sleep(1)
        assert not caller.sent
        caller.upload(b"}")
        assert (await caller.answered()).status == 429

    stage.play(scene())


OVERFLOW = {"error": {"message": "The engine is currently busy", "type": "Service Unavailable", "param": None, "code": 503}}


def test_vllms_own_overflow_is_a_429_as_well() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not json.loads(await stage.read(receive)).get("stream"):
            await stage.answer(send, 503, json.dumps(OVERFLOW).encode())
            return
        await send(stage.start(200, b"text/event-stream"))
        await send(stage.chunk(b"data: " + json.dumps(OVERFLOW).encode() + b"\n\n"))
        await send(stage.chunk(DONE))
        await send(stage.chunk(b"", more=False))

    async def scene() -> None:
        for body in (b"{}", STREAM):
            caller = await ask(guarded(Engine(), app), body)
            assert caller.status == 429
            assert caller.response_headers["retry-after"] == "1"
            assert caller.error["type"] == "overloaded"

    stage.play(scene())


# Errors of vLLM's own


def failing(status: int, kind: str) -> Any:
    """An app that answers with an error, as an answer or as the first event of a stream."""
    error = json.dumps({"error": {"message": "no", "type": kind, "code": status}}).encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await stage.answer(send, 503 if kind == "dead" else 200, b"")
        elif not json.loads(await stage.read(receive)).get("stream"):
            await stage.answer(send, status, error)
        else:
            await send(stage.start(200, b"text/event-stream"))
            await send(stage.chunk(b"data: " + error + b"\n\n"))
            await send(stage.chunk(DONE))
            await send(stage.chunk(b"", more=False))

    return app


@pytest.mark.parametrize("body", [b"{}", STREAM])
@pytest.mark.parametrize("status", [400, 500])
def test_an_error_before_the_first_token_is_an_answer_with_its_status(body: bytes, status: int) -> None:
    async def scene() -> None:
        caller = await ask(guarded(Engine(), failing(status, "BadRequestError")), body)
        assert caller.status == status
        assert caller.error == {"message": "no", "type": "BadRequestError", "code": status}
        assert caller.complete

    stage.play(scene())


@pytest.mark.parametrize("body", [b"{}", STREAM])
def test_what_a_dead_engine_has_not_answered_can_be_sent_elsewhere(body: bytes) -> None:
    async def scene() -> None:
        guard = guarded(Engine(), failing(500, "dead"))
        caller = await ask(guard, body)
        assert caller.status == 503
        assert caller.response_headers["x-fleet-reason"] == "engine-dead"
        assert caller.error["type"] == "engine_stalled"
        assert await readiness(guard) == (503, {"status": "dead", "revision": "r1"})

    stage.play(scene())


def test_an_app_that_breaks_before_it_answers_is_an_error_with_a_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await stage.answer(send, 200, b"")
            return
        await stage.read(receive)
        raise RuntimeError("a fault")

    async def scene() -> None:
        caller = await ask(guarded(Engine(), app))
        assert caller.status == 500
        assert caller.error == {"message": "the server failed to answer", "type": "internal_error", "code": 500}

    stage.play(scene())


@pytest.mark.parametrize("how", ["raises", "ends", "ends with a token", "returns"])
def test_a_stream_that_breaks_off_ends_with_an_event_that_says_so(how: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await send(stage.start(200, b"text/event-stream"))
        await send(stage.chunk(b'data: {"id": 0}\n\n'))
        if how == "raises":
            raise RuntimeError("a fault")
        if how == "ends":
            await send(stage.chunk(b"", more=False))
        if how == "ends with a token":
            await send(stage.chunk(b'data: {"id": 1}\n\n', more=False))

    async def scene() -> None:
        caller = await ask(guarded(Engine(), app), STREAM)
        assert caller.complete
        assert caller.body.startswith(b'data: {"id": 0}\n\n')
        assert b'data: {"id": 1}\n\n' in caller.body or how != "ends with a token"
        assert caller.last_event["error"] == {
            "message": "the server broke off; the answer is not complete",
            "type": "engine_stalled",
            "code": 503,
        }
        assert b"[DONE]" not in caller.body

    stage.play(scene())


def test_a_stream_of_an_engine_that_died_does_not_end_as_if_it_were_whole() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await stage.answer(send, 503, b"")
            return
        await stage.read(receive)
        await send(stage.start(200, b"text/event-stream"))
        await send(stage.chunk(b'data: {"id": 0}\n\n'))
        await send(stage.chunk(b'data: {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}\n\n'))
        await send(stage.chunk(DONE))
        await send(stage.chunk(b"", more=False))

    async def scene() -> None:
        caller = await ask(guarded(Engine(), app), STREAM)
        assert caller.last_event["error"]["type"] == "engine_stalled"
        assert b"[DONE]" not in caller.body

    stage.play(scene())


ROLE = b'data: {"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
TOKEN = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"\\"finish_reason\\":\\"abort\\""},"finish_reason":null}]}\n\n'
ABORT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}]}\n\n'


def streaming(*events: bytes) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await send(stage.start(200, b"text/event-stream"))
        for event in (*events, DONE):
            await asyncio.sleep(1)
            await send(stage.chunk(event))
        await send(stage.chunk(b"", more=False))

    return app


def test_who_speaks_is_told_with_the_first_token() -> None:
    async def scene() -> None:
        caller = await ask(guarded(Engine(), streaming(ROLE, TOKEN)), STREAM)
        assert caller.sent[0][0] == 2
        assert caller.body == ROLE + TOKEN + DONE

    stage.play(scene())


def test_what_a_stopping_replica_leaves_off_is_not_taken_for_an_answer() -> None:
    """vLLM ends requests under way with half a text and finish_reason `abort` when its time to stop is over."""

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await stage.answer(send, 200, b'{"choices":[{"message":{"content":"half a"},"finish_reason":"abort"}]}')

    async def scene() -> None:
        for caller in (await ask(guarded(Engine(), half)), await ask(guarded(Engine(), streaming(ROLE, ABORT)), STREAM)):
            assert (caller.status, caller.response_headers["x-fleet-reason"]) == (503, "engine-stopped")
            assert caller.error["type"] == "engine_stalled"
        caller = await ask(guarded(Engine(), streaming(ROLE, TOKEN, ABORT)), STREAM)
        assert caller.body.startswith(ROLE + TOKEN + b'data: {"error"')
        assert caller.last_event["error"]["message"] == "the replica stops; the answer is not complete"
        assert DONE not in caller.body

    stage.play(scene())


def test_an_answer_without_events_that_breaks_off_breaks_its_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await send(stage.start(200))
        await send(stage.chunk(b'{"half": '))
        raise RuntimeError("a fault")

    async def scene() -> None:
        with pytest.raises(RuntimeError, match="a fault"):
            await ask(guarded(Engine(), app))

    stage.play(scene())


# A hung engine


def test_requests_of_a_hung_engine_are_given_back_and_the_pod_is_not_ready() -> None:
    async def scene() -> None:
        engine = Engine()
        guard = guarded(engine)
        await ask(guard)
        engine.freeze()
        frozen = now()
        waiting = [Caller(STREAM).call(guard), Caller(long_answer()).call(guard), Caller(b"{}", EMBEDDINGS).call(guard)]
        assert (await readiness(guard))[0] == 200
        for caller in waiting:
            await caller.answered()
            assert caller.status == 503
            assert caller.response_headers["x-fleet-reason"] == "engine-stalled"
            assert caller.error["type"] == "engine_stalled"
            assert caller.error["code"] == 503
        assert 8 <= now() - frozen <= 8 + LOOK_S
        assert await readiness(guard) == (503, {"status": "stalled", "revision": "r1"})

    stage.play(scene())


def test_new_requests_are_refused_at_once_while_the_engine_hangs() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        guard = guarded(engine)
        await ask(guard)
        begun = now()
        assert begun < 8 + LOOK_S
        for body in (b"{}", STREAM):
            caller = await ask(guard, body)
            assert (caller.status, caller.error["type"]) == (503, "engine_stalled")
        assert now() == begun

    stage.play(scene())


def test_streams_that_have_begun_end_with_an_event_when_the_engine_hangs() -> None:
    async def scene() -> None:
        engine = Engine()
        guard = guarded(engine)
        caller = Caller(long_stream()).call(guard)
        await asyncio.sleep(1.05)
        engine.freeze()
        await caller.answered()
        assert caller.status == 200
        assert caller.complete
        assert caller.last_event["error"] == {"message": "the engine hangs; the answer is not complete", "type": "engine_stalled", "code": 503}
        assert b"[DONE]" not in caller.body
        assert caller.body.count(b'{"id"') == 10

    stage.play(scene())


def test_vllm_lets_go_of_requests_that_were_given_back() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        guard = guarded(engine)
        callers = [Caller(STREAM).call(guard), Caller().call(guard)]
        for caller in callers:
            await caller.answered()
        await asyncio.sleep(0.1)
        # The two, and not the canary.
        assert engine.aborted == 2
        assert engine.running == 1

    stage.play(scene())


def test_an_app_that_does_not_let_go_keeps_no_caller_waiting() -> None:
    cancelled: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if json.loads(await stage.read(receive)).get("max_tokens") == 1:
            return
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scene() -> None:
        caller = await ask(guarded(Engine(), app))
        assert caller.status == 503
        assert not cancelled
        await asyncio.sleep(6)
        assert cancelled

    stage.play(scene())


def test_what_an_app_says_of_a_request_that_was_given_back_reaches_nobody() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked = json.loads(await stage.read(receive))
        if asked.get("max_tokens") == 1:
            return
        await send(stage.start(200, b"text/event-stream"))
        if asked.get("begins"):
            await send(stage.chunk(b"data: {}\n\n"))
        await asyncio.sleep(10)
        await send(stage.chunk(b"data: {}\n\n"))
        await send(stage.chunk(DONE, more=False))

    async def scene() -> None:
        guard = guarded(Engine(), app)
        callers = [Caller(b'{"begins": true}').call(guard), Caller().call(guard)]
        for caller in callers:
            await caller.answered()
        await asyncio.sleep(4)
        assert [caller.status for caller in callers] == [200, 503]
        assert [caller.faults for caller in callers] == [[], []]

    stage.play(scene())


def test_an_answer_without_events_that_has_begun_is_left_to_end() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        vllm = stage.Vllm(engine)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] != EMBEDDINGS:
                await vllm(scope, receive, send)
                return
            await stage.read(receive)
            await send(stage.start(200))
            await send(stage.chunk(b"[1,"))
            await asyncio.sleep(30)
            await send(stage.chunk(b"2]", more=False))

        guard = guarded(engine, app)
        halfway = Caller(b"{}", EMBEDDINGS).call(guard)
        assert (await ask(guard)).status == 503
        assert (await halfway.answered()).body == b"[1,2]"

    stage.play(scene())


def test_a_hung_engine_that_goes_on_is_taken_back_by_itself() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        guard = guarded(engine)
        await ask(guard)
        await asyncio.sleep(60)
        assert (await readiness(guard))[0] == 503
        engine.thaw()
        thawed = now()
        while (await readiness(guard))[0] == 503:
            await asyncio.sleep(0.1)
        assert now() - thawed <= 2 + 2 * LOOK_S
        assert (await ask(guard, STREAM)).status == 200
        assert engine.running == 0

    stage.play(scene())


def test_the_canary_is_one_token_with_the_credentials_of_a_waiting_caller() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        vllm = stage.Vllm(engine)
        guard = guarded(engine, vllm)
        await ask(guard, b'{"prompt": "x", "max_tokens": 500}', COMPLETIONS)
        (path, body) = vllm.asked[-1]
        assert path == COMPLETIONS
        assert body == {"prompt": [1, 1], "max_tokens": 1, "temperature": 0}
        assert vllm.headers[-1][b"authorization"] == b"Bearer key"

    stage.play(scene())


def test_a_model_for_embeddings_is_asked_for_an_embedding() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        vllm = stage.Vllm(engine)
        await ask(guarded(engine, vllm), b'{"input": "x"}', EMBEDDINGS)
        assert vllm.asked[-1] == (EMBEDDINGS, {"input": [1, 1]})

    stage.play(scene())


def test_canaries_are_few_and_leave_nothing_behind_in_a_hung_engine() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        vllm = stage.Vllm(engine)
        guard = guarded(engine, vllm)
        await ask(guard)
        await asyncio.sleep(100)
        canaries = len(vllm.asked) - 1
        assert 5 <= canaries <= 20
        assert engine.running <= 1

    stage.play(scene())


def test_a_canary_that_is_refused_proves_nothing() -> None:
    canaries: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if json.loads(await stage.read(receive)).get("max_tokens") == 1:
            canaries.append(now())
            await stage.answer(send, 400, b"{}")
            return
        await stage.hung_up(receive)

    async def scene() -> None:
        guard = guarded(Engine(), app)
        assert (await ask(guard)).status == 503
        asked = len(canaries)
        await asyncio.sleep(10)
        assert guard.stalled
        # One every two seconds, however fast it is refused.
        assert 4 <= len(canaries) - asked <= 6

    stage.play(scene())


def test_a_shorter_limit_is_kept_too() -> None:
    async def scene() -> None:
        await ask(guarded(Engine(frozen=True), stall_seconds=0.4))
        assert 0.4 <= now() <= 0.5

    stage.play(scene())


# What is no hang


def never_stalled(scene: Coroutine[Any, Any, EngineGuard]) -> None:
    guard = stage.play(scene)
    assert not guard.stalled


def test_an_idle_engine_is_not_hung() -> None:
    async def scene() -> EngineGuard:
        guard = guarded(Engine())
        await ask(guard)
        await asyncio.sleep(3600)
        assert (await readiness(guard))[0] == 200
        assert (await ask(guard)).status == 200
        return guard

    never_stalled(scene())


def test_a_long_answer_without_events_is_not_a_hang() -> None:
    async def scene() -> EngineGuard:
        guard = guarded(Engine())
        assert (await ask(guard, long_answer(1000))).status == 200
        assert now() > 99
        return guard

    never_stalled(scene())


def test_a_request_that_queues_behind_others_is_not_a_hang() -> None:
    async def scene() -> EngineGuard:
        engine = Engine()
        vllm = stage.Vllm(engine)
        one_at_a_time = asyncio.Lock()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/health":
                await vllm(scope, receive, send)
                return
            async with one_at_a_time:
                await vllm(scope, receive, send)

        guard = guarded(engine, app)
        callers = [Caller(long_answer(200)).call(guard) for _ in range(4)]
        for caller in callers:
            assert (await caller.answered()).status == 200
        return guard

    never_stalled(scene())


def test_a_slow_upload_is_not_a_hang() -> None:
    async def scene() -> EngineGuard:
        vllm = stage.Vllm(Engine())
        guard = guarded(vllm.engine, vllm)
        caller = Caller(uploads=False).call(guard)
        for _ in range(60):
            await asyncio.sleep(1)
            caller.upload(b" ", more=True)
        caller.upload(b"{}")
        assert (await caller.answered()).status == 200
        assert len(vllm.asked) == 1
        return guard

    never_stalled(scene())


def test_a_caller_that_reads_slowly_is_not_a_hang() -> None:
    async def scene() -> EngineGuard:
        vllm = stage.Vllm(Engine())
        guard = guarded(vllm.engine, vllm)
        caller = Caller(long_stream(30)).call(guard)
        await asyncio.sleep(1.05)
        caller.stop_reading()
        await asyncio.sleep(60)
        assert (await readiness(guard))[0] == 200
        caller.read_on()
        assert (await caller.answered()).body.endswith(DONE)
        # No canary either: nothing is suspected.
        assert len(vllm.asked) == 1
        return guard

    never_stalled(scene())


def test_a_caller_that_reads_slowly_does_not_hide_a_hang_from_others() -> None:
    async def scene() -> None:
        engine = Engine()
        guard = guarded(engine)
        slow = Caller(long_stream()).call(guard)
        await asyncio.sleep(1.05)
        slow.stop_reading()
        await asyncio.sleep(0.1)
        engine.freeze()
        assert (await ask(guard, STREAM)).status == 503
        slow.read_on()
        assert (await slow.answered()).last_event["error"]["type"] == "engine_stalled"

    stage.play(scene())


@pytest.mark.parametrize("seconds", [20, 3600])
def test_a_process_that_stood_still_does_not_blame_the_engine(seconds: int) -> None:
    async def scene() -> EngineGuard:
        engine = Engine(seconds_per_token=7)
        guard = guarded(engine)
        caller = Caller(uploads=False).call(guard)
        await asyncio.sleep(30)
        caller.upload(long_answer(2))
        await asyncio.sleep(3)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, stage.Clock)
        loop.stand_still(seconds)
        assert (await caller.answered()).status == 200
        return guard

    never_stalled(scene())


def test_slow_work_before_the_engine_is_told_from_a_hang_by_a_canary() -> None:
    """Images are fetched, grammars compiled: nothing shows in the counters, and the engine is well."""

    async def scene() -> EngineGuard:
        engine = Engine()
        vllm = stage.Vllm(engine)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == CHAT:
                await stage.read(receive)
                await asyncio.sleep(60)
                await stage.answer(send, 200, b"{}")
            else:
                await vllm(scope, receive, send)

        guard = guarded(engine, app, counters=lambda: None)
        assert (await ask(guard)).status == 200
        assert {path for path, _ in vllm.asked} == {COMPLETIONS}
        return guard

    never_stalled(scene())


def test_errors_for_bad_requests_are_no_sign_of_life() -> None:
    async def scene() -> None:
        engine = Engine(frozen=True)
        vllm = stage.Vllm(engine)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == EMBEDDINGS:
                await stage.read(receive)
                await stage.answer(send, 400, b'{"error": {}}')
            else:
                await vllm(scope, receive, send)

        guard = guarded(engine, app)
        caller = Caller(STREAM).call(guard)
        while not caller.sent:
            await ask(guard, b"{}", EMBEDDINGS)
            await asyncio.sleep(0.5)
        assert caller.status == 503
        assert now() <= 8 + 2 * LOOK_S

    stage.play(scene())


# Settings


def test_settings_come_from_the_environment() -> None:
    given = {"FLEET_GUARD_STALL_SECONDS": "2.5", "FLEET_GUARD_CAPACITY": "12", "FLEET_MODEL_REVISION": "abc"}
    assert Settings.read(given) == Settings(2.5, 12, "abc")
    assert Settings.read({}) == Settings(8, 0, "")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("FLEET_GUARD_STALL_SECONDS", "soon", "must be a number of seconds above 0, got: `soon`"),
        ("FLEET_GUARD_STALL_SECONDS", "0", "must be a number of seconds above 0, got: `0`"),
        ("FLEET_GUARD_STALL_SECONDS", "nan", "must be a number of seconds above 0, got: `nan`"),
        ("FLEET_GUARD_CAPACITY", "1.5", "must be a whole number, 0 for no limit, got: `1.5`"),
        ("FLEET_GUARD_CAPACITY", "-1", "must be a whole number, 0 for no limit, got: `-1`"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(name: str, value: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must") as raised:
        Settings.read({name: value})
    assert str(raised.value) == f"{name} {rule}"


# Cost


@pytest.fixture
def samples() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n" + "\n".join(lines))


@pytest.mark.parametrize("chunks", [1, 500])
def test_bench_what_the_guard_costs(chunks: int, samples: list[str]) -> None:
    """Prints; holds no number, as it would be that of the machine."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stage.read(receive)
        await send(stage.start(200, b"text/event-stream"))
        for _ in range(chunks):
            await send(stage.chunk(b'data: {"id": 0}\n\n'))
        await send(stage.chunk(DONE))
        await send(stage.chunk(b"", more=False))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        pass

    async def per_request(served: Any, times: int) -> float:
        scope = {"type": "http", "path": CHAT, "method": "POST", "headers": []}
        best = float("inf")
        for _ in range(5):
            begun = time.perf_counter()
            for _ in range(times):
                await served(dict(scope), receive, send)
            best = min(best, (time.perf_counter() - begun) / times)
        return best

    async def scene() -> tuple[float, float]:
        times = max(20, 4000 // chunks)
        return await per_request(app, times), await per_request(EngineGuard(app, Settings(), lambda: 0), times)

    bare, watched = asyncio.run(scene())
    samples.append(
        f"{chunks} events: {bare * 1e6:.1f} µs without, {watched * 1e6:.1f} µs with the guard, "
        f"{(watched - bare) * 1e6:.1f} µs per request, {(watched - bare) / (chunks + 3) * 1e6:.2f} µs per message"
    )
    assert engine_guard.GUARDED
