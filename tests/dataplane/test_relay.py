"""What a caller sees of a stream whose region is lost: one whole answer, or an error, never a silent end."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.dataplane.programs import (
    LAST_CHUNK,
    MODEL,
    POLICY,
    STREAM_HEAD,
    Heard,
    Program,
    Server,
    answer,
    ask,
    break_off,
    chunk,
    cutting,
    relay,
    said,
    serving,
    stand_in,
)
from toolchain import tools

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello there"}]}
USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with stand_in(tmp_path_factory.mktemp("engine"), "--tokens", "5") as program:
        yield program


def _whole(heard: Heard) -> object:
    """All that must be as if nothing had happened."""
    return heard.text, heard.reasons, heard.roles, heard.usages, heard.done, heard.error, len(heard.ids)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HELLO | USAGE),
        (CHAT, HELLO | {"max_completion_tokens": 4}),
        (TEXT, {"prompt": "Count from 3", "max_tokens": 4} | USAGE),
    ],
    ids=["chat of natural length", "chat with a limit", "completion"],
)
def test_an_answer_cut_at_any_byte_is_the_answer_that_was_not_cut(path: str, body: dict[str, Any], engine: Program, tmp_path: Path) -> None:
    unbroken = ask(engine.url, path, body)
    with httpx.stream("POST", engine.url + path, json={"model": MODEL, "stream": True} | body) as got:
        size = len(got.read())
    assert size > 500
    keep = 0
    cut: list[int] = []

    def first(passed: bytes) -> bytes | None:
        if not cut and len(passed) > keep:
            cut.append(keep)
            return passed[:keep]
        return None

    with cutting(engine.address, first) as region, relay(tmp_path, region.address) as program:
        for keep in range(0, size, 23):
            cut.clear()
            heard = ask(program.url, path, body)
            assert cut == [keep]
            assert _whole(heard) == _whole(unbroken), f"cut after {keep} bytes"
    log = program.log.read_text()
    assert "resumed path=" in log
    assert "Hello" not in log
    assert "Count" not in log


def test_a_cut_stream_that_must_not_be_computed_twice_ends_with_an_error_event(engine: Program, tmp_path: Path) -> None:
    def first(passed: bytes) -> bytes | None:
        at = passed.find(b'" 2"')
        return passed[:at] if at >= 0 else None

    with cutting(engine.address, first) as region, relay(tmp_path, region.address) as program:
        for change in ({"headers": {"x-fleet-resume": "never"}}, {"body": HELLO | {"tools": [{"type": "function"}]}}):
            heard = ask(program.url, CHAT, **({"body": HELLO} | change))
            assert (heard.text, heard.error, heard.done) == ("1", "stream_cut", False)
        assert len(region.requests) == 2, "the regions must not be asked again"
    lines = [line for line in program.log.read_text().splitlines() if " cut path=" in line]
    assert len(lines) == 2
    assert "the caller does not want it" in lines[0]


def test_a_stream_in_which_nothing_comes_is_gone_on_with(engine: Program, tmp_path: Path) -> None:
    def play(connection: socket.socket, request: bytes) -> None:
        if len(region.requests) == 1:
            connection.sendall(STREAM_HEAD + chunk(said("1")))
            region.over.wait()
            return
        with httpx.stream("POST", engine.url + CHAT, content=request.partition(b"\r\n\r\n")[2]) as got:
            connection.sendall(STREAM_HEAD + chunk(got.read().decode()) + LAST_CHUNK)

    with Server(play) as region, relay(tmp_path, region.address) as program:
        heard = ask(program.url, CHAT, HELLO, {"x-fleet-relay": "resume=true;idle=0.2;buffer=100000"})
    assert (heard.text, heard.done) == ("1 2 3 4 5", True)
    assert heard.comments == ["resumed unknown"]


def test_an_engine_that_hangs_in_the_middle_is_left_and_taken_again_when_it_computes(tmp_path: Path) -> None:
    with (
        serving("fleet-stand-in", tmp_path, "--model", MODEL, "--token-milliseconds", "20", "--tokens", "20", "--stall-seconds", "0.2") as engine,
        relay(tmp_path, engine.address) as program,
        httpx.stream("POST", program.url + CHAT, json={"model": MODEL, "stream": True} | HELLO, headers=POLICY, timeout=60) as got,
    ):
        text, comments, frozen = "", 0, False
        for line in got.iter_lines():
            comments += line.startswith(": resumed")
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                assert "error" not in event
                text += "".join(choice["delta"].get("content", "") for choice in event["choices"])
            if not frozen and " 3" in text:
                frozen = True
                httpx.post(engine.url + "/stand-in/freeze")
                wait_until(lambda: httpx.get(engine.url + "/fleet/ready").status_code == 503, "the stall to be seen")
                httpx.post(engine.url + "/stand-in/thaw")
    assert text == " ".join(map(str, range(1, 21)))
    assert comments == 1


def test_a_region_that_breaks_before_its_answer_is_a_502_after_one_more_try(tmp_path: Path) -> None:
    with Server(lambda connection, _: break_off(connection)) as region, relay(tmp_path, region.address) as program:
        got = httpx.post(program.url + CHAT, json=HELLO | {"stream": True}, headers=POLICY)
        assert len(region.requests) == 2
    assert got.status_code == 502
    assert got.json()["error"]["type"] == "region_lost"
    assert got.json()["error"]["code"] == 502


def test_no_way_to_the_regions_is_a_502(tmp_path: Path) -> None:
    with relay(tmp_path, f"127.0.0.1:{free_port()}") as program:
        for headers in ({}, POLICY):
            got = httpx.post(program.url + CHAT, json=HELLO, headers=headers)
            assert (got.status_code, got.json()["error"]["type"]) == (502, "region_lost")
            assert "127.0.0.1" not in got.text, "addresses are nobody's business"


def test_what_is_no_stream_passes_as_it_is(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": "full", "type": "overloaded", "code": 429}}).encode()

    def play(connection: socket.socket, _: bytes) -> bool:
        connection.sendall(answer("429 Too Many Requests", body, "Retry-After: 1", "x-fleet-cluster: us-east"))
        return True

    with Server(play) as region, relay(tmp_path, region.address) as program, httpx.Client() as client:
        for headers in ({}, POLICY, {"x-fleet-relay": "nonsense"}):
            got = client.post(program.url + "/m" + CHAT + "?a=%2F;b", json=HELLO, headers=headers)
            assert (got.status_code, got.content, got.headers["retry-after"]) == (429, body, "1")
        for _ in range(20):
            client.get(program.url + "/m/v1/models")
        assert region.connections < len(region.requests), "connections to the regions are kept"
    assert region.requests[0].startswith(b"POST /m/v1/chat/completions?a=%2F;b HTTP/1.1\r\n")
    assert region.requests[3].startswith(b"GET /m/v1/models HTTP/1.1\r\n")
    assert not any(b"x-fleet-relay" in request.lower() for request in region.requests)
    assert "unwatched" in program.log.read_text()


def test_a_caller_that_leaves_ends_the_computation(tmp_path: Path) -> None:
    left: list[bytes] = []

    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(said("1")))
        left.append(connection.recv(1))

    with Server(play) as region, relay(tmp_path, region.address) as program:
        with httpx.stream("POST", program.url + CHAT, json=HELLO | {"stream": True}, headers=POLICY) as got:
            lines = got.iter_lines()
            assert '"content":"1"' in next(lines)
        wait_until(lambda: left == [b""], "the connection to be closed")
    assert "cut" not in program.log.read_text()


def test_what_is_under_way_at_sigterm_ends_well(tmp_path: Path) -> None:
    with stand_in(tmp_path, "--token-milliseconds", "30") as engine, relay(tmp_path, engine.address) as program:
        with httpx.stream("POST", program.url + CHAT, json={"model": MODEL, "stream": True} | HELLO, headers=POLICY) as got:
            lines = got.iter_lines()
            next(lines)
            program.process.send_signal(signal.SIGTERM)
            wait_until(lambda: _refuses(program), "the relay to take no more connections")
            assert "data: [DONE]" in list(lines)
        assert program.process.wait(30) == 0


def test_what_does_not_end_in_time_after_sigterm_ends_with_an_error_event(tmp_path: Path) -> None:
    def play(connection: socket.socket, _: bytes) -> None:
        connection.sendall(STREAM_HEAD + chunk(said("1")))
        region.over.wait()

    with Server(play) as region, relay(tmp_path, region.address, "--drain", "100ms") as program:
        with httpx.stream("POST", program.url + CHAT, json=HELLO | {"stream": True}, headers=POLICY) as got:
            lines = got.iter_lines()
            next(lines)
            program.process.send_signal(signal.SIGTERM)
            assert '"stream_cut"' in "".join(lines)
        assert program.process.wait(30) == 0
        assert len(region.requests) == 1


def _refuses(program: Program) -> bool:
    host, port = program.address.split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionError:  # refused, or reset where it reached the queue of the socket that was just being closed
        return True
    return False


def test_its_numbers_are_told_where_they_are_asked_for(engine: Program, tmp_path: Path) -> None:
    port = free_port()
    with relay(tmp_path, engine.address, "--admin", f"127.0.0.1:{port}") as program:
        ask(program.url, CHAT, HELLO)
        got = httpx.get(f"http://127.0.0.1:{port}/stats").json()
    assert (got["streams"], got["resumed"], got["cut"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "--listen must be an address"),
        (["--listen", "127.0.0.1:0"], "--upstream must be http://HOST:PORT, got: ``"),
        (["--listen", "127.0.0.1:0", "--upstream", "https://a"], "--upstream must be http://HOST:PORT, got: `https://a`"),
        (["--listen", "127.0.0.1:0", "--upstream", "http://a/b"], "got: `http://a/b`"),
        (["--listen", "127.0.0.1:0", "--upstream", "http://a", "x"], "takes flags only, got: `x`"),
        (["--listen", "127.0.0.1:0", "--upstream", "http://a", "--buffers-mebibytes", "-1"], "must be 0 or more, got: `-1`"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], told: str) -> None:
    done = subprocess.run([str(tools.acquire("fleet-relay")), *flags], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_port_that_is_taken_is_told(engine: Program) -> None:
    command = [str(tools.acquire("fleet-relay")), "--listen", engine.address, "--upstream", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert re.search(r"cannot listen: .*address already in use", done.stderr)
