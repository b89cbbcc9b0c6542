"""A fleet that asks who calls, and is open again after; and what its members hold of network policies."""

import pytest
from openai import AuthenticationError, OpenAI

from tests.fleet.conftest import Fleet, Object, wait_until
from tests.gateways.tokens import AUDIENCE, ISSUER, Issuer

REGIONS = ("us-east", "us-west", "eu-west")


def _client(fleet: Fleet, region: str, token: str) -> OpenAI:
    return OpenAI(base_url=f"{fleet.door(region)}/tiny-chat/v1", api_key=token, timeout=60, max_retries=0)


def test_a_token_is_asked_for_at_every_front_door_and_is_the_key_of_an_openai_client(fleet: Fleet) -> None:
    issuer = Issuer()

    def asks(spec: Object) -> None:
        spec["frontDoors"] = {"authentication": {"kind": "jwt", "issuers": [{"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": issuer.jwks()}]}}

    try:
        fleet.update(asks)
        for region in REGIONS:
            wait_until(lambda region=region: fleet.ask(region).status_code == 401, f"the front door of {region} to ask for a token", 60)
            with _client(fleet, region, issuer.token()) as known:
                # Streams go through the relay.
                stream = known.chat.completions.create(model="tiny-chat", messages=[{"role": "user", "content": "Hello"}], max_tokens=8, stream=True)
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                assert [each.id for each in known.models.list()] == ["tiny-chat"]
            with _client(fleet, region, Issuer().token()) as stranger, pytest.raises(AuthenticationError, match="Jwt verification fails"):
                stranger.models.list()
        refused = fleet.fleet("bench", "tiny-chat", "--requests", "1", check=False)
        assert refused.code == 1
        assert "hint: --token-file FILE" in refused.err
    finally:
        fleet.update()
    for region in REGIONS:
        wait_until(lambda region=region: fleet.ask(region).status_code == 200, f"the front door of {region} to be open again", 60)


def test_every_member_denies_what_nobody_allowed(fleet: Fleet) -> None:
    for region in REGIONS:
        with fleet.kube(region) as kube:
            found = {each["metadata"]["name"]: each["spec"] for each in kube.list("networking.k8s.io/v1", "NetworkPolicy", "models")}
            pods = kube.list("v1", "Pod", "models", label_selector="inference-fleet.dev/model=llama-3-70b")
        assert set(found) == {"default-deny", "serving", "fetching"}
        assert found["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        # What the policies select by is on the pods: KServe has copied it.
        assert pods
        for pod in pods:
            labels = pod["metadata"]["labels"]
            assert found["fetching"]["podSelector"]["matchLabels"].items() <= labels.items()
            assert {each["key"] for each in found["serving"]["podSelector"]["matchExpressions"]} <= labels.keys()
