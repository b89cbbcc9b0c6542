"""What pods of models may reach and who may reach them, by the rules of NetworkPolicy: what one policy allows is allowed."""

import ipaddress
from typing import Any

import pytest

from components.serving import network_policies
from specs import labels
from specs.base import SpecError
from specs.network_policies import NetworkPoliciesSpec
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from tests.unit.test_fleet import declare

MODEL = {"serving.kserve.io/inferenceservice": "chat"}
FETCHING = {**MODEL, labels.LABEL_FETCHES: "true"}
Object = dict[str, Any]


def policies(spec: NetworkPoliciesSpec | None = None) -> list[Object]:
    spec = spec or NetworkPoliciesSpec()
    return [each["spec"] for each in (network_policies.default_deny(), network_policies.serving(spec), network_policies.fetching(spec))]


def selects(selector: Object, found: dict[str, str]) -> bool:
    exist = all(each["operator"] == "Exists" and each["key"] in found for each in selector.get("matchExpressions", []))
    return exist and selector.get("matchLabels", {}).items() <= found.items()


def meant(peer: Object, namespace: str, pod: dict[str, str], address: str | None) -> bool:
    if "ipBlock" in peer:
        inside = [address is not None and ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in (peer["ipBlock"]["cidr"],)]
        outside = any(address is not None and ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in peer["ipBlock"].get("except", []))
        return all(inside) and not outside
    return selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}) and selects(peer.get("podSelector", {}), pod)


def allowed(way: str, of: dict[str, str], port: int, *, namespace: str = "", pod: dict[str, str] | None = None, address: str | None = None) -> bool:
    """Whether a pod with the labels `of` may be reached (`ingress`) or may reach (`egress`) this, by TCP."""
    peers = {"ingress": "from", "egress": "to"}[way]
    relevant = [each for each in policies() if way.title() in each["policyTypes"] and selects(each["podSelector"], of)]
    assert relevant, "no policy is for this pod: Kubernetes would allow everything"
    rules = [rule for each in relevant for rule in each.get(way, [])]
    ports_and_peers = [rule for rule in rules if {"port": port, "protocol": "TCP"} in rule["ports"]]
    return any(meant(peer, namespace, pod or {}, address) for rule in ports_and_peers for peer in rule[peers])


def test_requests_come_from_regional_gateways_alone() -> None:
    gateway = {"istio": "regional-gateway"}
    assert allowed("ingress", MODEL, 8080, namespace="istio-ingress", pod=gateway)
    assert not allowed("ingress", MODEL, 8081, namespace="istio-ingress", pod=gateway)
    # A front door that is taken over has no short way to vLLM's other paths.
    assert not allowed("ingress", MODEL, 8080, namespace="istio-ingress", pod={"istio": "front-door"})
    assert not allowed("ingress", MODEL, 8080, namespace="default", pod=gateway)
    assert not allowed("ingress", MODEL, 8080, namespace="models", pod=MODEL)


def test_metrics_are_read_from_the_monitoring_namespaces() -> None:
    assert allowed("ingress", MODEL, 8080, namespace="monitoring")
    assert not allowed("ingress", {}, 8080, namespace="monitoring")


def test_only_pods_that_fetch_weights_reach_a_store_and_none_reaches_metadata() -> None:
    assert allowed("egress", FETCHING, 443, address="203.0.113.7")
    assert allowed("egress", FETCHING, 443, address="2001:db8::1")
    assert allowed("egress", FETCHING, 53, namespace="kube-system")
    assert not allowed("egress", MODEL, 443, address="203.0.113.7")
    assert not allowed("egress", MODEL, 53, namespace="kube-system")
    assert not allowed("egress", FETCHING, 80, address="203.0.113.7")
    for metadata in ("169.254.169.254", "169.254.170.23", "fd00:ec2::254"):
        assert not allowed("egress", FETCHING, 443, address=metadata)


def test_a_store_of_ones_own_is_named_by_network_and_port() -> None:
    spec = NetworkPoliciesSpec.model_validate_json('{"modelStores": [{"cidr": "10.20.0.0/16", "port": 9000}, {"cidr": "169.254.170.23/32", "port": 80}]}')
    _, store, identity = network_policies.fetching(spec)["spec"]["egress"]
    assert store == {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}
    # Asked for by itself, such as Amazon's agent for the identity of pods, it is open.
    assert identity["to"] == [{"ipBlock": {"cidr": "169.254.170.23/32"}}]


@pytest.mark.parametrize("cidr", ["10.20.0.1/16", "models.example.com", "10.20.0.0/33"])
def test_what_is_no_network_is_told(cidr: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_fleet({**fleets.small(), "networkPolicies": {"modelStores": [{"cidr": cidr}]}})
    assert "networkPolicies.modelStores[0].cidr: must be a network such as `10.20.0.0/16`" in str(caught.value)


def test_what_is_allowed_comes_before_all_else_is_denied_and_both_before_models() -> None:
    recorded, _ = declare(fleets.small())
    names = [each.name for each in recorded.declared]
    models = [place for place, each in enumerate(recorded.declared) if each.inputs.get("kind") == "InferenceService"]
    assert names.index("network-serving") < names.index("network-default-deny") < min(models)


@pytest.mark.parametrize(("source", "fetches"), [("hf://o/m", True), ("s3://bucket/m", True), ("oci://r.example.com/m:1", False), ("pvc://store/m", False)])
def test_models_whose_pods_fetch_weights_say_so(source: str, fetches: bool) -> None:
    raw = fleets.small()
    raw["models"][0]["source"] = source
    recorded, _ = declare(raw)
    service = next(each.inputs for each in recorded.declared if each.inputs.get("kind") == "InferenceService")
    assert (service["metadata"]["labels"].get(labels.LABEL_FETCHES) == "true") is fetches
