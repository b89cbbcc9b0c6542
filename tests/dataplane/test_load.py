"""What the load generator sends, when, and what it says that each request came to."""

import json
import signal
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local import pki
from tests.conftest import free_port
from tests.dataplane.programs import DONE, LAST_CHUNK, MODEL, STREAM_HEAD, Play, Server, answer, break_off, chunk, run_load, said, stand_in
from toolchain import tools

OK = answer("200 OK", b"{}", "x-fleet-cluster: us-east", "x-fleet-revision: r1")
ABORTED = 'data: {"id":"a","choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort"}]}\n\n'
ERROR_EVENT = 'data: {"error":{"message":"stalled","type":"engine_stalled","code":503}}\n\n'


def plan(*addresses: str, **fields: Any) -> dict[str, Any]:
    targets = [{"door": f"door-{at}", "url": f"http://{address}/m/v1/chat/completions"} for at, address in enumerate(addresses)]
    return {"targets": targets, "requests": 1, "rate": 1000.0, "model": MODEL} | fields


def sends(*parts: str | bytes, then: Play | None = None) -> Play:
    def play(connection: socket.socket, request: bytes) -> bool | None:
        connection.sendall(b"".join(part if isinstance(part, bytes) else chunk(part) for part in parts))
        return then(connection, request) if then else True

    return play


def closes(connection: socket.socket, _: bytes) -> None:
    connection.close()


def breaks(connection: socket.socket, _: bytes) -> None:
    break_off(connection)


def hangs(_connection: socket.socket, _request: bytes) -> None:
    threading.Event().wait(30)


@pytest.mark.parametrize(
    ("stream", "play", "outcome", "told"),
    [
        (False, sends(OK), "ok", ""),
        (True, sends(STREAM_HEAD, said("1"), said(" 2"), DONE, LAST_CHUNK), "ok", ""),
        (True, sends(STREAM_HEAD, said("1"), DONE, then=breaks), "ok", ""),
        (False, sends(answer("503 Service Unavailable", b'{"error":{"message":"no region","type":"no_region","code":503}}')), "status", "no_region: no region"),
        (True, sends(answer("429 Too Many Requests", b"full", "Retry-After: 1")), "status", "full"),
        (False, breaks, "reset", "reset"),
        (False, closes, "reset", "EOF"),
        (False, sends(OK[:-1], then=closes), "reset", "EOF"),
        (True, sends(STREAM_HEAD, said("1"), LAST_CHUNK), "truncated", "without [DONE]"),
        (True, sends(STREAM_HEAD, said("1"), then=closes), "truncated", "EOF"),
        (True, sends(STREAM_HEAD, said("1"), "data: [DO", then=breaks), "truncated", "without [DONE]"),
        (True, sends(OK), "truncated", "without [DONE]"),
        (True, sends(STREAM_HEAD, said("1"), ABORTED, DONE, LAST_CHUNK), "truncated", "aborted"),
        (False, sends(answer("200 OK", b'{"choices":[{"message":{"content":"1"},"finish_reason":"abort"}]}')), "truncated", "aborted"),
        (True, sends(STREAM_HEAD, said("1"), ERROR_EVENT, LAST_CHUNK), "error-event", "engine_stalled: stalled"),
        (True, sends(STREAM_HEAD, said("1"), ERROR_EVENT, then=breaks), "error-event", "engine_stalled: stalled"),
        (False, hangs, "timeout", "timeout"),
        (True, sends(STREAM_HEAD, said("1"), then=hangs), "timeout", "timeout"),
    ],
)
def test_each_way_in_which_a_request_can_end_has_its_name(stream: bool, play: Play, outcome: str, told: str) -> None:
    with Server(play) as server:
        (result,), summary = run_load(plan(server.address, stream=stream, timeoutSeconds=0.5))
    assert result["outcome"] == outcome
    assert told in result["error"]
    assert (told == "") == (result["error"] == "")
    assert summary[outcome] == summary["labels"]["main"][outcome] == summary["sent"] == summary["requests"] == 1
    assert sum(summary[each] for each in ("ok", "status", "refused", "reset", "timeout", "truncated", "error-event")) == 1


def test_a_door_that_takes_no_connection_is_refused() -> None:
    (result,), _ = run_load(plan(f"127.0.0.1:{free_port()}"))
    assert result["outcome"] == "refused"
    assert "refused" in result["error"]
    assert (result["headers"], result["firstToken"], result["status"], result["cluster"]) == (None, None, None, None)


def test_what_an_answer_says_of_itself_is_told() -> None:
    with Server(sends(STREAM_HEAD, said("1"), ": resumed us-west\n\n", said(" 2"), said(""), DONE, LAST_CHUNK)) as server:
        (stream,), summary = run_load(plan(server.address, stream=True))
    assert (stream["tokens"], stream["resumed"], summary["resumed"]) == (2, True, 1)
    assert stream["due"] <= stream["sent"] <= stream["headers"] <= stream["firstToken"] <= stream["end"]
    with Server(sends(OK)) as server:
        (whole,), _ = run_load(plan(server.address))
    assert (whole["tokens"], whole["cluster"], whole["revision"], whole["status"], whole["retryAfter"]) == (1, "us-east", "r1", 200, None)
    with Server(sends(answer("429 Too Many Requests", b"{}", "Retry-After: 1"))) as server:
        (full,), _ = run_load(plan(server.address))
    assert (full["status"], full["retryAfter"], full["tokens"], full["firstToken"]) == (429, "1", 0, None)


def test_what_is_asked_is_what_the_plan_says() -> None:
    with Server(sends(OK)) as server:
        chat = plan(server.address, prompt='Say "<hi>"', maxTokens=3, label="a")
        text = plan(server.address, label="b", stream=False)
        text["targets"][0]["url"] = f"http://{server.address}/m/v1/completions"
        run_load([chat, text])
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    assert {"model": MODEL, "max_tokens": 3, "stream": False, "messages": [{"role": "user", "content": 'Say "<hi>"'}]} in bodies
    assert {"model": MODEL, "max_tokens": 8, "stream": False, "prompt": "Hello"} in bodies
    assert all(b"\r\nHost: 127.0.0.1:" in request for request in server.requests)


def test_a_token_goes_with_every_request_of_its_plan_alone() -> None:
    with Server(sends(OK)) as server:
        run_load([plan(server.address, requests=2, label="a", token="ours"), plan(server.address, label="b", prompt="none")])
    told = [b"\r\nAuthorization: Bearer ours\r\n" in request for request in server.requests]
    assert sorted(told) == [False, True, True]
    assert b"Authorization" not in next(each for each in server.requests if b'"none"' in each)


@dataclass(frozen=True)
class Folder:
    dir: Path


def test_front_doors_with_tls_are_asked_by_it_and_only_those_with_a_good_certificate(tmp_path: Path) -> None:
    made = pki.serving_certificate(Folder(tmp_path), "door", [])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    with Server(sends(OK), context) as server:
        asked = plan(server.address, requests=3, rate=4.0)
        asked["targets"][0]["url"] = asked["targets"][0]["url"].replace("http://", "https://")
        results, _ = run_load(asked, SSL_CERT_FILE=str(pki.authority(Folder(tmp_path))))
        assert [each["outcome"] for each in results] == ["ok"] * 3
        # One after another on the connection that is open.
        assert server.connections == 1
        strangers, _ = run_load(asked)
    assert {each["outcome"] for each in strangers} == {"refused"}
    assert "certificate" in strangers[0]["error"]
    assert len(server.requests) == 3


def test_requests_are_sent_when_they_are_due_though_none_was_answered() -> None:
    wanted = 300
    barrier = threading.Barrier(wanted)

    def play(connection: socket.socket, _: bytes) -> None:
        # A generator that waits for answers would never have them.
        barrier.wait(30)
        connection.sendall(OK)

    with Server(play) as server:
        results, summary = run_load(plan(server.address, requests=wanted))
    assert summary["ok"] == wanted
    assert [result["due"] for result in results] == [n / 1000 for n in range(wanted)]
    assert all(result["sent"] >= result["due"] for result in results)


def test_doors_are_taken_in_turn_and_their_connections_are_kept() -> None:
    with Server(sends(OK)) as first, Server(sends(OK)) as second:
        results, _ = run_load(plan(first.address, second.address, requests=40, rate=200))
        assert [result["door"] for result in results] == ["door-0", "door-1"] * 20
        assert len(first.requests) == len(second.requests) == 20
        assert first.connections < 20


def test_a_kept_connection_that_the_server_has_closed_is_not_used() -> None:
    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK)

    with Server(play) as server:
        results, _ = run_load(plan(server.address, requests=5, rate=10))
    assert {result["outcome"] for result in results} == {"ok"}


@pytest.mark.parametrize("play", [breaks, closes, None], ids=["broken", "closed", "refused"])
def test_a_request_that_no_door_began_to_answer_goes_to_the_next_where_the_plan_says_so(play: Play | None) -> None:
    with Server(play or breaks) as dead, Server(sends(OK)) as alive:
        address = dead.address if play else f"127.0.0.1:{free_port()}"
        switching, summary = run_load(plan(address, alive.address, requests=4, switchDoors=True))
        staying, _ = run_load(plan(address, alive.address, requests=4))
    assert [(result["outcome"], result["door"], result["switched"]) for result in switching] == [("ok", "door-1", 1), ("ok", "door-1", 0)] * 2
    assert summary["switched"] == 2
    assert [result["outcome"] == "ok" for result in staying] == [False, True] * 2


def test_an_answer_that_has_begun_is_not_asked_for_elsewhere() -> None:
    with Server(sends(STREAM_HEAD, said("1"), then=breaks)) as dead, Server(sends(OK)) as alive:
        (result,), _ = run_load(plan(dead.address, alive.address, stream=True, switchDoors=True))
    assert (result["outcome"], result["switched"]) == ("truncated", 0)


def test_no_door_at_all_is_told_of_the_last_one() -> None:
    (result,), _ = run_load(plan(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", switchDoors=True))
    assert (result["outcome"], result["door"], result["switched"]) == ("refused", "door-1", 1)


def _started(document: object) -> subprocess.Popen[str]:
    process = subprocess.Popen([str(tools.acquire("fleet-load"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(document))
    process.stdin.close()
    return process


def test_at_sigterm_nothing_more_is_sent_and_what_is_under_way_is_told() -> None:
    asked, going = threading.Event(), threading.Event()

    def play(connection: socket.socket, _: bytes) -> bool:
        if len(server.requests) == 1:
            connection.sendall(OK)
            return True
        asked.set()
        going.wait(30)
        connection.sendall(OK)
        return True

    with Server(play) as server:
        process = _started(plan(server.address, requests=100_000, rate=5))
        assert process.stdout is not None
        # Each line comes while the run goes on.
        assert set(json.loads(process.stdout.readline())) == {"begin"}
        assert json.loads(process.stdout.readline())["outcome"] == "ok"
        assert asked.wait(30)
        process.send_signal(signal.SIGTERM)
        going.set()
        *results, last = (json.loads(line) for line in process.stdout)
        assert process.wait(30) == 0
    assert results
    assert {result["outcome"] for result in results} == {"ok"}
    assert last["summary"]["ok"] == last["summary"]["sent"] == len(results) + 1 == len(server.requests)
    assert last["summary"]["requests"] == 100_000


def test_several_plans_run_at_once_and_are_told_apart() -> None:
    both = threading.Barrier(2)

    def play(connection: socket.socket, _: bytes) -> bool:
        both.wait(30)
        connection.sendall(OK)
        return True

    with Server(play) as server:
        results, summary = run_load([plan(server.address, label="a"), plan(server.address, label="b")])
    assert [result["label"] for result in results] == ["a", "b"]
    assert summary["ok"] == 2
    assert summary["labels"]["a"]["ok"] == summary["labels"]["b"]["ok"] == 1


def test_thousands_of_requests_to_a_stand_in_all_end_well(tmp_path: Path) -> None:
    with stand_in(tmp_path) as engine:
        target = [{"door": "a", "url": f"{engine.url}/v1/chat/completions"}]
        common = {"targets": target, "requests": 1000, "rate": 500, "model": MODEL}
        _, summary = run_load([common | {"label": "whole"}, common | {"label": "stream", "stream": True}])
    assert summary["ok"] == summary["requests"] == 2000


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("[", ["the plan must be JSON"]),
        ("{", ["plan: unexpected EOF"]),
        ("[]", ["there must be a plan"]),
        ('{"rates": 1}', ['plan: unknown field "rates"']),
        ('{"rate": "1"}', ["plan: cannot unmarshal string into Go struct field Plan.rate of type float64"]),
        (
            '{"targets": [], "requests": 0, "rate": 0, "maxTokens": 0, "timeoutSeconds": -1, "prompt": ""}',
            [
                "targets: must name a door at least, got: `[]`",
                "requests: must be 1 or more, got: `0`",
                "rate: must be above 0 and at most 1000000, got: `0`",
                "model: must be a name, got: ``",
                "maxTokens: must be 1 or more, got: `0`",
                "prompt: must not be empty, got: ``",
                "timeoutSeconds: must be above 0, got: `-1`",
            ],
        ),
        (
            json.dumps([plan("a"), plan("a:1") | {"targets": [{"door": "", "url": "http://a/v1/completions"}, {"door": "b", "url": "ftp://a"}]}]),
            [
                "[1].label: must be another than the other plans', got: `main`",
                "[1].targets[0].door: must be a name, got: ``",
                "[1].targets[1].url: must be http://HOST:PORT/PATH or https://…, got: `ftp://a`",
            ],
        ),
        (
            json.dumps(plan("a") | {"targets": [{"door": "b", "url": "http://a/v1/models"}]}),
            ["targets[0].url: must end in /chat/completions or /completions, got: `http://a/v1/models`"],
        ),
    ],
)
def test_a_wrong_plan_is_refused_with_every_error(document: str, told: list[str]) -> None:
    done = subprocess.run([str(tools.acquire("fleet-load"))], input=document, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    for line in told:
        assert line in done.stderr
