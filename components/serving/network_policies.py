"""Network policies: what the pods of models may reach, and who may reach them.

Everything is denied first. Who wants more adds NetworkPolicies of their own in the namespace: they only ever allow. They need a
network plugin that heeds them, as Calico, Cilium and the clouds' own do.
"""

import ipaddress
from dataclasses import dataclass
from typing import Any

import pulumi

from components.federation.hub_objects import hub_object
from components.mesh.gateways import REGIONAL_GATEWAY
from components.serving.serving_runtimes import PORT
from specs import labels
from specs.network_policies import NetworkPoliciesSpec

_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_DNS_PORT = 53
# Where the node's own DNS cache listens, outside of every namespace.
_NODE_LOCAL_DNS = "169.254.20.10/32"
# There a cloud tells a machine its credentials; the last is Amazon's.
_METADATA = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")


def _block(cidr: str) -> dict[str, Any]:
    network = ipaddress.ip_network(cidr)
    metadata = [ipaddress.ip_network(each) for each in _METADATA]
    closed = [str(each) for each in metadata if each.version == network.version and each.prefixlen > network.prefixlen and each[0] in network]
    return {"ipBlock": {"cidr": str(network), **({"except": closed} if closed else {})}}


def _policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": labels.metadata(name, labels.NAMESPACE_MODELS, component="serving", propagate=True),
        "spec": spec,
    }


def default_deny() -> dict[str, Any]:
    """Nothing in, nothing out, for every pod."""
    return _policy("default-deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def serving(spec: NetworkPoliciesSpec) -> dict[str, Any]:
    """Requests come from regional gateways alone: vLLM serves more on its port than callers may ask. Metrics are on it too."""
    gateway = {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: labels.NAMESPACE_INGRESS}}, "podSelector": {"matchLabels": {"istio": REGIONAL_GATEWAY}}}
    monitoring = [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: each}}} for each in spec.monitoring_namespaces]
    return _policy(
        "serving",
        {
            "podSelector": {"matchExpressions": [{"key": labels.LABEL_PODS_OF_MODEL, "operator": "Exists"}]},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [gateway, *monitoring], "ports": [{"port": PORT, "protocol": "TCP"}]}],
        },
    )


def fetching(spec: NetworkPoliciesSpec) -> dict[str, Any]:
    """Weights, and the names of where they are."""
    dns = [{"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: "kube-system"}}}, {"ipBlock": {"cidr": _NODE_LOCAL_DNS}}]
    stores = [{"to": [_block(each.cidr)], "ports": [{"port": each.port, "protocol": "TCP"}]} for each in spec.model_stores]
    return _policy(
        "fetching",
        {
            "podSelector": {"matchLabels": {labels.LABEL_FETCHES: "true"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": dns, "ports": [{"port": _DNS_PORT, "protocol": each} for each in ("UDP", "TCP")]}, *stores],
        },
    )


@dataclass(frozen=True, kw_only=True)
class NetworkPoliciesArgs:
    spec: NetworkPoliciesSpec
    # What carries them to the members.
    requires: list[pulumi.Resource]


class NetworkPolicies(pulumi.ComponentResource):
    """The network policies of models, on the hub for every member. Models depend on `objects`."""

    def __init__(self, name: str, args: NetworkPoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:network_policies:NetworkPolicies", name, None, opts)
        self.objects: list[pulumi.Resource] = []
        # What is allowed comes before all else is denied, or models that run would be cut off for a moment.
        for body in (serving(args.spec), fetching(args.spec), default_deny()):
            after = pulumi.ResourceOptions(parent=self, depends_on=[*args.requires, *self.objects])
            self.objects.append(hub_object(f"{name}-{body['metadata']['name']}", body, after))
        self.register_outputs({})
