"""What a caller gets at the front doors: tokens, from any region, and nothing but tokens."""

import time

import httpx
import pytest
from openai import OpenAI

from tests.fleet.conftest import Fleet

MESSAGES = [{"role": "user", "content": "Hello"}]


def _client(fleet: Fleet) -> OpenAI:
    # As a user has it: an address from the outputs, no key.
    url = fleet.outputs["endpoints"]["models"]["tiny-chat"]["openaiBaseUrl"]
    return OpenAI(base_url=url, api_key="none", timeout=60, max_retries=0)


def test_an_openai_client_lists_the_model_and_streams_a_completion(fleet: Fleet) -> None:
    with _client(fleet) as client:
        assert [model.id for model in client.models.list()] == ["tiny-chat"]
        stream = client.chat.completions.create(model="tiny-chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=12, stream=True)
        chunks = [chunk.choices[0] for chunk in stream]
    assert "".join(chunk.delta.content or "" for chunk in chunks)
    # A stream and not one answer at the end: several pieces, then why it ended.
    assert len(chunks) > 3
    assert chunks[-1].finish_reason in ("length", "stop")


def test_answers_say_which_cluster_and_model_served(fleet: Fleet) -> None:
    for region in ("us-east", "us-west"):
        answer = fleet.ask(region)
        assert (answer.status_code, answer.headers["x-fleet-cluster"], answer.headers["x-fleet-model"]) == (200, region, "tiny-chat")


def test_a_region_without_the_model_serves_it_from_others(fleet: Fleet) -> None:
    answer = fleet.ask("eu-west")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-fleet-cluster"] in ("us-east", "us-west")


# Every one of them is something that vLLM answers on the same port.
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/tiny-chat/metrics"),
        ("GET", "/tiny-chat/health"),
        ("POST", "/tiny-chat/pause"),
        ("POST", "/tiny-chat/v1/../pause"),
        ("POST", "/tiny-chat/v1/%2e%2e/pause"),
        ("POST", "/tiny-chat/v1%2f..%2fpause"),
        ("POST", "/tiny-chat//pause"),
        ("POST", "/tiny-chat/v1/load_lora_adapter"),
        ("GET", "/tiny-chat/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/other-model/v1/models"),
    ],
)
def test_what_is_not_a_question_to_the_model_is_refused(fleet: Fleet, method: str, path: str) -> None:
    ports = fleet.kube("us-east").list("networking.istio.io/v1", "Gateway", "istio-ingress")
    doors = {each["metadata"]["name"]: each["spec"]["servers"][0]["port"]["number"] for each in ports}
    assert set(doors) == {"front-door", "front-door-egress", "regional-gateway"}
    for port in doors.values():
        request = httpx.Request(method, f"http://127.0.0.1:{port}/")
        # As it stands, not as a client would tidy it up.
        request.extensions["target"] = path.encode()
        with httpx.Client(trust_env=False) as client:
            assert client.send(request).status_code == 404, (port, path)


def test_a_model_on_simulated_gpus_refuses_at_once(fleet: Fleet) -> None:
    for region, model in (("us-east", "llama-3-70b"), ("eu-west", "llama-3-70b"), ("us-east", "qwen-eu")):
        begun = time.monotonic()
        answer = fleet.ask(region, model)
        # Not a hang until the caller gives up, and no attempt to reach a pod address outside this machine.
        assert (answer.status_code, time.monotonic() - begun < 5) == (503, True), answer.text


def test_a_question_that_the_model_refuses_comes_back_as_its_answer(fleet: Fleet) -> None:
    body = {"model": "tiny-chat", "messages": MESSAGES, "max_tokens": 100_000}
    answer = httpx.post(f"{fleet.door('us-east')}/tiny-chat/v1/chat/completions", json=body, timeout=30, trust_env=False)
    assert answer.status_code == 400
    assert "error" in answer.json()
