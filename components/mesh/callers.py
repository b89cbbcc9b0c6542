"""Who may call: what front doors ask of a request before it goes anywhere.

Asked once, at the listener that callers reach. Behind it a request carries no token: not to the stream relay, not to another
region, not to vLLM.
"""

from collections.abc import Mapping
from typing import Any

import pulumi

from components.federation.overrides import override_policy
from components.mesh.gateways import EGRESS_PORT, FRONT_DOOR
from specs import labels
from specs.callers import AuthenticationSpec, JwtAuthenticationSpec

# Of the RequestAuthentication and the AuthorizationPolicy. Envoy names the latter in what it says of a refusal.
CALLERS = "callers"

_SECURITY = "security.istio.io/v1"
_SELECTOR = {"matchLabels": {"istio": FRONT_DOOR}}


def request_authentication(spec: JwtAuthenticationSpec) -> dict[str, Any]:
    """Whose tokens are good. Alone it lets a request without any token pass."""
    rules = [
        {
            "issuer": each.issuer,
            "audiences": list(each.audiences),
            **({"jwksUri": each.jwks_uri} if each.jwks_uri else {"jwks": each.jwks}),
            # Envoy would take a token from the query too, where logs keep it.
            "fromHeaders": [{"name": "Authorization", "prefix": "Bearer "}],
            "forwardOriginalToken": False,
        }
        for each in spec.issuers
    ]
    return _object("RequestAuthentication", {"jwtRules": rules})


def authorization_policy(spec: AuthenticationSpec) -> dict[str, Any]:
    """Refuses who is not known, at every listener but the egress: it is on loopback, and what comes there was let in before."""
    not_egress = {"to": [{"operation": {"notPorts": [str(EGRESS_PORT)]}}]}
    if isinstance(spec, JwtAuthenticationSpec):
        nobody = {"from": [{"source": {"notRequestPrincipals": ["*"]}}]}
        return _object("AuthorizationPolicy", {"action": "DENY", "rules": [{**nobody, **not_egress}]})
    return _object("AuthorizationPolicy", {"action": "CUSTOM", "provider": {"name": spec.provider}, "rules": [not_egress]})


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": _SECURITY,
        "kind": kind,
        "metadata": labels.metadata(CALLERS, labels.NAMESPACE_INGRESS, component="mesh", propagate=True),
        "spec": {"selector": _SELECTOR, **spec},
    }


def objects(spec: AuthenticationSpec) -> dict[str, dict[str, Any]]:
    """By what they are for, in the order in which they must come: tokens are read before anyone is refused for want of one."""
    tokens = {"tokens": request_authentication(spec)} if isinstance(spec, JwtAuthenticationSpec) else {}
    return {**tokens, "authorization": authorization_policy(spec)}


def egress_overrides(ports: Mapping[str, pulumi.Input[str]]) -> dict[str, Any]:
    """The egress listener of each local front door, {cluster: port}: on one machine the ports would clash."""
    changes = {cluster: {"/spec/rules/0/to/0/operation/notPorts/0": port} for cluster, port in ports.items()}
    selector = {"apiVersion": _SECURITY, "kind": "AuthorizationPolicy", "namespace": labels.NAMESPACE_INGRESS, "name": CALLERS}
    return override_policy(labels.metadata(f"{CALLERS}-egress", component="mesh"), selector, changes)


def output(spec: AuthenticationSpec | None) -> dict[str, Any]:
    """What callers must know of it; part of the stack's output `endpoints`."""
    if spec is None:
        return {"kind": "none"}
    if isinstance(spec, JwtAuthenticationSpec):
        return {"kind": spec.kind, "issuers": [{"issuer": each.issuer, "audiences": list(each.audiences)} for each in spec.issuers]}
    return {"kind": spec.kind, "provider": spec.provider}
