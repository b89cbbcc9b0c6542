"""Who may call: what the stack file may say, and what is declared of it. What callers hear is tests/gateways."""

import json
from typing import Any

import pytest

from components.federation.overrides import overridden
from components.mesh.gateways import egress_gateway
from specs.base import SpecError
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from tests.unit.test_fleet import declare

_KEY = {"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ"}
_ISSUER = {"issuer": "https://login.example.com/", "audiences": ["llm"], "jwksUri": "https://login.example.com/jwks.json"}


def fleet(authentication: Any) -> dict[str, Any]:
    return {**fleets.small(), "frontDoors": {"authentication": authentication}}


def told(authentication: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_fleet(fleet(authentication))
    return str(caught.value)


def with_keys(*keys: Any) -> dict[str, Any]:
    return {"kind": "jwt", "issuers": [{"issuer": "i", "audiences": ["llm"], "jwks": json.dumps({"keys": keys})}]}


@pytest.mark.parametrize(
    ("issuer", "says"),
    [
        ({"audiences": []}, "authentication.issuers[0].audiences"),
        ({"jwks": json.dumps({"keys": [_KEY]})}, "issuers[0]: needs exactly one of `jwksUri` and `jwks`"),
        ({"jwksUri": None}, "issuers[0]: needs exactly one of `jwksUri` and `jwks`"),
        ({"jwksUri": "login.example.com"}, "issuers[0].jwksUri: must be a URL"),
        ({"jwksUri": None, "jwks": "{"}, "issuers[0].jwks: must be a JSON Web Key Set"),
        ({"jwksUri": None, "jwks": "[]"}, "issuers[0].jwks: must be a JSON Web Key Set"),
        ({"jwksUri": None, "jwks": '{"keys": []}'}, "issuers[0].jwks: must hold a key at least"),
    ],
)
def test_a_wrong_issuer_is_told_by_its_field(issuer: dict[str, Any], says: str) -> None:
    assert says in told({"kind": "jwt", "issuers": [{**_ISSUER, **issuer}]})


@pytest.mark.parametrize("secret", [{**_KEY, "d": "Zm9v"}, {"kty": "oct", "k": "Zm9v"}])
def test_a_key_that_makes_tokens_is_refused(secret: dict[str, str]) -> None:
    assert "must hold public keys only" in told(with_keys(_KEY, secret))


def test_local_clusters_have_no_service_to_ask() -> None:
    assert "frontDoors.authentication.provider: needs an extension provider" in told({"kind": "external", "provider": "keys"})


@pytest.mark.parametrize("authentication", [with_keys(_KEY), {"kind": "jwt", "issuers": [_ISSUER]}])
def test_nobody_gets_in_before_the_front_door_asks(authentication: dict[str, Any]) -> None:
    """A front door is declared after what asks, and what denies after what reads tokens."""
    recorded, outputs = declare(fleet(authentication))
    order = [each.inputs.get("kind") for each in recorded.declared]
    assert order.index("RequestAuthentication") < order.index("AuthorizationPolicy")
    door = next(place for place, each in enumerate(recorded.declared) if each.name == "mesh-front-door")
    assert order.index("AuthorizationPolicy") < door
    assert outputs["endpoints"]["authentication"]["issuers"][0]["audiences"] == ["llm"]


def test_without_authentication_there_is_nothing_of_it() -> None:
    recorded, outputs = declare(fleets.small())
    assert not {"RequestAuthentication", "AuthorizationPolicy"} & {each.inputs.get("kind") for each in recorded.declared}
    assert outputs["endpoints"]["authentication"] == {"kind": "none"}


def test_the_relays_way_is_left_open_on_its_own_port_in_each_local_cluster() -> None:
    spec = fleet(with_keys(_KEY))
    spec.setdefault("failover", {})["streams"] = {"relay": True}
    recorded, _ = declare(spec)
    objects = {each.name: each.inputs for each in recorded.declared}
    for cluster in (each["name"] for each in spec["clusters"]):
        got = overridden(objects["mesh-authorization"], [objects["mesh-callers-egress"]], cluster)
        egress = overridden(objects["mesh-egress"], [objects["mesh-egress-listener"]], cluster)
        # A port of an AuthorizationPolicy is text.
        assert got["spec"]["rules"][0]["to"] == [{"operation": {"notPorts": [str(egress["spec"]["servers"][0]["port"]["number"])]}}]


def test_elsewhere_the_relays_way_has_the_port_of_the_egress() -> None:
    for asked in (with_keys(_KEY), {"kind": "external", "provider": "keys"}):
        spec = fleet(asked)
        for each in spec["clusters"]:
            fleets.make_existing(each)
        recorded, _ = declare(spec, preview=False, **{each["name"]: "kubeconfig" for each in spec["clusters"]})
        (policy,) = [each.inputs for each in recorded.declared if each.name == "mesh-authorization"]
        (server,) = egress_gateway()["spec"]["servers"]
        assert policy["spec"]["rules"][0]["to"] == [{"operation": {"notPorts": [str(server["port"]["number"])]}}]
