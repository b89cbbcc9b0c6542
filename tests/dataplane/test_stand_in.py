"""The stand-in engine: an OpenAI server for every client, and the faults of a real engine."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.dataplane.programs import MODEL, Program, ask, hear, serving, stand_in

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER: dict[str, Any] = {"role": "user", "content": "Hello there"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with stand_in(tmp_path_factory.mktemp("engine"), "--revision", "r7") as program:
        yield program


@pytest.fixture
def client(engine: Program) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0)


def test_openais_own_client_understands_its_answers(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello there"}])
    assert chat.choices[0].message.content == "1 2 3 4 5 6 7 8"
    assert (chat.choices[0].finish_reason, chat.model, chat.object) == ("stop", MODEL, "chat.completion")
    assert chat.usage is not None
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens, chat.usage.total_tokens) == (2, 8, 10)
    text = client.completions.create(model=MODEL, prompt="Count from 41", max_tokens=2)
    assert (text.choices[0].text, text.choices[0].finish_reason) == (" 42 43", "length")
    assert [model.id for model in client.models.list()] == [MODEL]


def test_openais_own_client_understands_its_streams(client: openai.OpenAI) -> None:
    events = list(
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert events[0].choices[0].delta.role == "assistant"
    assert [event.choices[0].delta.content for event in events[1:-1]] == ["1", " 2", " 3"]
    assert [event.choices[0].finish_reason for event in events[:-1]] == [None, None, None, "length"]
    assert events[-1].usage is not None
    assert (events[-1].choices, events[-1].usage.completion_tokens) == ([], 3)
    assert len({event.id for event in events}) == 1
    texts = client.completions.create(model=MODEL, prompt="Hello", max_tokens=2, stream=True)
    assert [event.choices[0].text for event in texts] == [" 1", " 2"]


def test_an_answer_is_gone_on_with_where_it_stopped(engine: Program) -> None:
    goes_on = {"continue_final_message": True, "add_generation_prompt": False}
    for said, follows in (("1 2 3", " 4 5 6 7 8"), ("1 2 3 ", "4 5 6 7 8"), ("1 2 3 4 5 6 7", " 8")):
        heard = ask(engine.url, CHAT, {"messages": [USER, {"role": "assistant", "content": said}], **goes_on})
        assert (heard.text, heard.reasons) == (follows, ["stop"])
    parts = [{"role": "user", "content": [{"type": "text", "text": "from 10"}]}, {"role": "assistant", "content": "11"}]
    assert ask(engine.url, CHAT, {"messages": parts, "max_tokens": 2, **goes_on}).text == " 12 13"
    assert ask(engine.url, TEXT, {"prompt": "Hello 1 2", "max_tokens": 2}).text == " 3 4"


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        (CHAT, {"model": "other", "messages": [USER]}, 404, "The model `other` does not exist."),
        (CHAT, {"model": MODEL, "messages": []}, 400, "messages must not be empty"),
        (CHAT, {"model": MODEL, "messages": [USER], "n": 2}, 400, "n must be 1, got: `2`"),
        (CHAT, {"model": MODEL, "messages": [USER], "max_tokens": 0}, 400, "max_tokens must be 1 or more, got: `0`"),
        (CHAT, {"model": MODEL, "messages": [USER], "continue_final_message": True}, 400, "Cannot set both"),
        (TEXT, {"model": MODEL, "prompt": ""}, 400, "prompt must be one text"),
        (TEXT, {"model": MODEL, "prompt": ["a", "b"]}, 400, "must be a request of this API"),
        ("/v1/embeddings", {"model": MODEL}, 404, "there is no POST /v1/embeddings"),
    ],
)
def test_what_it_cannot_answer_is_refused_as_vllm_does(engine: Program, path: str, body: dict[str, Any], status: int, told: str) -> None:
    got = httpx.post(engine.url + path, json=body)
    assert got.status_code == got.json()["error"]["code"] == status
    assert told in got.json()["error"]["message"]


def test_answers_tell_the_revision_and_health_is_always_good(engine: Program) -> None:
    for path in ("/health", "/fleet/ready", "/v1/models"):
        got = httpx.get(engine.url + path)
        assert (got.status_code, got.headers["x-fleet-revision"]) == (200, "r7")
    assert httpx.get(engine.url + "/fleet/ready").json()["status"] == "ready"


def test_a_full_engine_says_so_and_has_a_place_again_when_a_caller_leaves(tmp_path: Path) -> None:
    with stand_in(tmp_path, "--capacity", "1", "--token-milliseconds", "20", "--tokens", "5000") as engine:
        body = {"model": MODEL, "messages": [USER]}
        with httpx.stream("POST", engine.url + CHAT, json=body | {"stream": True}) as taken:
            lines = taken.iter_lines()
            next(lines)
            full = httpx.post(engine.url + CHAT, json=body)
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        assert (full.json()["error"]["type"], full.json()["error"]["code"]) == ("overloaded", 429)
        wait_until(lambda: httpx.post(engine.url + CHAT, json=body | {"max_tokens": 1}).status_code == 200, "the place to be free")


def test_a_frozen_engine_gives_its_requests_back_and_is_ready_when_it_computes_again(tmp_path: Path) -> None:
    with serving("fleet-stand-in", tmp_path, "--model", MODEL, "--token-milliseconds", "20", "--tokens", "500", "--stall-seconds", "0.2") as engine:
        body = {"model": MODEL, "messages": [USER]}
        with httpx.stream("POST", engine.url + CHAT, json=body | {"stream": True}, timeout=60) as got:
            lines = got.iter_lines()
            next(lines)
            assert httpx.post(engine.url + "/stand-in/freeze").json() == {"frozen": True}
            begun = hear(lines)
        assert (begun.error, begun.done) == ("engine_stalled", False)
        assert httpx.get(engine.url + "/health").status_code == 200, "nothing but progress tells a hang"
        ready = httpx.get(engine.url + "/fleet/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stalled")
        refused = httpx.post(engine.url + CHAT, json=body | {"stream": True})
        assert (refused.status_code, refused.headers["x-fleet-reason"], refused.json()["error"]["type"]) == (503, "engine-stalled", "engine_stalled")
        httpx.post(engine.url + "/stand-in/thaw")
        assert httpx.get(engine.url + "/fleet/ready").status_code == 200
        assert httpx.post(engine.url + CHAT, json=body | {"max_tokens": 1}).status_code == 200


def test_requests_that_wait_for_a_frozen_engine_are_given_back_before_their_first_token(tmp_path: Path) -> None:
    with stand_in(tmp_path, "--stall-seconds", "0.2") as engine:
        httpx.post(engine.url + "/stand-in/freeze")
        assert httpx.get(engine.url + "/fleet/ready").status_code == 200, "without a request nobody knows"
        for stream in (True, False):
            got = httpx.post(engine.url + CHAT, json={"model": MODEL, "messages": [USER], "stream": stream}, timeout=60)
            assert (got.status_code, got.headers["x-fleet-reason"]) == (503, "engine-stalled")


def test_a_slow_token_is_no_stall(tmp_path: Path) -> None:
    with serving("fleet-stand-in", tmp_path, "--model", MODEL, "--token-milliseconds", "900", "--stall-seconds", "0.6") as engine:
        got = httpx.post(engine.url + CHAT, json={"model": MODEL, "messages": [USER], "max_tokens": 2}, timeout=60)
        assert got.status_code == 200


def test_a_process_that_was_stopped_and_goes_on_is_no_stalled_engine(tmp_path: Path) -> None:
    slow = ("--model", MODEL, "--token-milliseconds", "20", "--tokens", "500", "--stall-seconds", "0.2")
    body = {"model": MODEL, "messages": [USER], "stream": True}
    with serving("fleet-stand-in", tmp_path, *slow) as engine, httpx.stream("POST", engine.url + CHAT, json=body, timeout=60) as got:
        lines = got.iter_lines()
        for _ in range(10):
            next(lines)
            engine.process.send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            engine.process.send_signal(signal.SIGCONT)
            assert httpx.get(engine.url + "/fleet/ready").json()["status"] == "ready"
        assert hear(lines).done


def test_what_is_under_way_at_sigterm_ends_well(tmp_path: Path) -> None:
    with serving("fleet-stand-in", tmp_path, "--model", MODEL, "--token-milliseconds", "30") as engine:
        with httpx.stream("POST", engine.url + CHAT, json={"model": MODEL, "messages": [USER], "stream": True}) as got:
            lines = got.iter_lines()
            next(lines)
            engine.process.send_signal(signal.SIGTERM)
            assert hear(lines).done
        assert engine.process.wait(30) == 0
