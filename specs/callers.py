"""Who may call the front doors."""

import json
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from specs.base import Spec, refuse
from specs.types import Url

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
    """A service of one's own decides, by Envoy's ext_authz; for API keys, for example. While it is unavailable, every request is refused."""

    kind: Literal["external"]
    provider: Annotated[str, Field(min_length=1)]
    """Name of an extension provider in the mesh configuration of every cluster (`meshConfig.extensionProviders`). Each cluster
    should have the service itself, or it fails with one region."""


AuthenticationSpec = Annotated[JwtAuthenticationSpec | ExternalAuthenticationSpec, Field(discriminator="kind")]


class FrontDoorsSpec(Spec):
    """What holds for the front doors of all clusters."""

    authentication: AuthenticationSpec | None = None
    """Without it everyone who reaches a front door may call. Production wants it: docs/policies.md."""
