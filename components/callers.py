"""Who may call: what front doors ask of a request before it goes anywhere.

Asked once, at the listener that callers reach. Behind it a request carries no token: not to the stream relay, not to another
region, not to vLLM.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

import pulumi
from pydantic import AfterValidator, Field, model_validator

from components import labels
from components.clusters import Url
from components.doors import EGRESS_PORT, FRONT_DOOR
from components.overrides import override_policy
from components.spec import Spec, refuse

# Of the RequestAuthentication and the AuthorizationPolicy. Envoy names the latter in what it says of a refusal.
CALLERS = "callers"

_SECURITY = "security.istio.io/v1"
_SELECTOR = {"matchLabels": {"istio": FRONT_DOOR}}
# Members of a JSON Web Key that are private (RFC 7518, section 6).
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def _public_keys(text: str) -> str:
    try:
        keys = json.loads(text)["keys"]
        named = [set(cast(dict[str, Any], each)) for each in keys]
    except (ValueError, TypeError, KeyError):
        raise refuse('must be a JSON Web Key Set: `{"keys": [...]}`') from None
    if not named or not all("kty" in each for each in named):
        raise refuse("must hold a key at least, each with `kty`")
    if any(each & _PRIVATE for each in named):
        raise refuse("must hold public keys only", "a private or a symmetric key would let everyone who reads this file make tokens")
    return text


class JwtIssuerSpec(Spec):
    """One issuer of tokens. Its public keys come from `jwksUri` or `jwks`."""

    issuer: Annotated[str, Field(min_length=1)]
    """To the letter as `iss` of its tokens has it."""
    audiences: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """One of them must be in `aud` of a token: without it a token that was made for another service would do."""
    jwks_uri: Url | None = None
    """Where istiod of each cluster fetches the keys, again every 20 minutes. It keeps them while the issuer is away; one that
    starts meanwhile has none, and its front door refuses everyone."""
    jwks: Annotated[str, AfterValidator(_public_keys)] | None = None
    """The keys themselves, as JSON. They do not depend on the issuer, and a new one of it must be written here."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks_uri is None) == (self.jwks is None):
            raise refuse("needs exactly one of `jwksUri` and `jwks`")
        return self


class JwtAuthenticationSpec(Spec):
    """Callers bring a JSON Web Token: `Authorization: Bearer …`, as the API key of an OpenAI client."""

    kind: Literal["jwt"]
    issuers: Annotated[tuple[JwtIssuerSpec, ...], Field(min_length=1)]


class ExternalAuthenticationSpec(Spec):
    """A service of one's own decides, by Envoy's ext_authz; for API keys, for example. Where it is away, nobody gets in."""

    kind: Literal["external"]
    provider: Annotated[str, Field(min_length=1)]
    """Name of an extension provider in the mesh configuration of every cluster (`meshConfig.extensionProviders`). Each cluster
    should have the service itself, or it fails with one region."""


AuthenticationSpec = Annotated[JwtAuthenticationSpec | ExternalAuthenticationSpec, Field(discriminator="kind")]


class FrontDoorsSpec(Spec):
    """What holds for the front doors of all clusters."""

    authentication: AuthenticationSpec | None = None
    """Without it everyone who reaches a front door may call. Production wants it: docs/policies.md."""


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
