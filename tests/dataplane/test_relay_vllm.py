"""A real vLLM takes what the relay makes of a request, and goes on with the answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.serving import serving_runtimes
from local import tiny_model
from specs import labels, runtimes
from specs.failover import RequestFailoverSpec
from tests.conftest import free_port, process, wait_until
from tests.dataplane.programs import ask, cutting, relay
from toolchain import tools

LENGTH = 24
BODY: dict[str, Any] = {"ignore_eos": True, "temperature": 0, "max_tokens": LENGTH, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a vLLM with tiny-chat, its settings those of the fleet's CPU runtime."""
    folder = tmp_path_factory.mktemp("vllm")
    tiny_model.write(folder / "model")
    runtime = serving_runtimes.serving_runtime(labels.RUNTIME_CPU, runtimes.RuntimesSpec().vllm_cpu, RequestFailoverSpec())
    (container,) = runtime["spec"]["containers"]
    settings = {each["name"]: each["value"].replace("$(POD_IP)", "127.0.0.1") for each in container["env"] if "value" in each}
    (dtype,) = [argument for argument in container["args"] if argument.startswith("--dtype")]
    port = free_port()
    small = ["--max-model-len=1024", "--max-num-seqs=4", "--kv-cache-memory-bytes=67108864", "--enforce-eager"]
    serve = [str(tools.path("vllm")), "serve", str(folder / "model"), "--served-model-name=tiny-chat", "--host=127.0.0.1", f"--port={port}", dtype, *small]
    command = ["env", *(f"{name}={value}" for name, value in settings.items()), *serve]
    log = folder / "vllm.log"
    with process(command, log):
        wait_until(lambda: _healthy(port), "vLLM to be healthy", timeout_s=300, log=log)
        yield f"127.0.0.1:{port}"


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {"messages": [{"role": "user", "content": "Tell me about the sea."}]}), ("/v1/completions", {"prompt": "The sea"})],
    ids=["chat", "completion"],
)
def test_an_answer_of_vllm_that_is_cut_is_gone_on_with(path: str, body: dict[str, Any], engine: str, tmp_path: Path) -> None:
    unbroken = ask(f"http://{engine}", path, BODY | body)
    assert unbroken.done
    events = 0
    seen: list[str] = []

    def first(passed: bytes) -> bytes | None:
        parts = passed.split(b"\n\n")
        if seen or len(parts) <= events:
            return None
        kept = b"\n\n".join(parts[:events]) + b"\n\n"
        seen.append(kept.decode())
        return kept

    with cutting(engine, first) as region, relay(tmp_path, region.address) as program:
        for events in (1, 2, 6, 15):
            seen.clear()
            region.requests.clear()
            heard = ask(program.url, path, BODY | body)
            assert len(seen) == 1
            assert len(region.requests) == 2
            assert (heard.done, heard.error, heard.reasons, len(heard.ids), heard.comments) == (True, "", ["length"], 1, ["resumed unknown"])
            assert heard.roles == unbroken.roles
            said = _said(seen[0])
            assert heard.text.startswith(said)
            assert len(heard.text) > len(said)
            # Text that was cut between tokens may be read as others: the prompt's count can differ by them, not the answer's.
            (usage,) = heard.usages
            assert usage["completion_tokens"] == LENGTH
            assert usage["total_tokens"] == usage["prompt_tokens"] + LENGTH
            assert abs(usage["prompt_tokens"] - unbroken.usages[0]["prompt_tokens"]) <= events


def _said(stream: str) -> str:
    text = ""
    for line in stream.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return text
