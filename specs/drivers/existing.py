"""The driver `existing`: a cluster that somebody else runs, known by its kubeconfig."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from specs.base import Spec, checked, refuse
from specs.types import Port, Url

_ConfigKey = Annotated[str, *checked(r"[A-Za-z][-_A-Za-z0-9]*", 100, "must be the name of a key in the stack's configuration", "it is a key")]


class RegionalGatewayAddress(Spec):
    """Where other regions reach the regional gateway of a cluster. HTTP/2 without TLS is spoken there."""

    address: Annotated[str, Field(min_length=1)]
    """An IP address. Not a name: a name would be resolved by DNS in the moment of a failover."""
    port: Port


class FrontDoorAddress(Spec):
    """Where callers reach the front door of a cluster."""

    url: Url


class VersionsSpec(Spec):
    """What a cluster runs that someone else installed, as far as it is known. Policies compare it with what was tested together."""

    kubernetes: str | None = None
    kserve: str | None = None
    istio: str | None = None
    gateway_api: str | None = None
    inference_extension: str | None = None
    gpu_operator: str | None = None


class ExistingDriver(Spec):
    """A cluster that stands already, known by its kubeconfig. It is neither made nor removed."""

    kind: Literal["existing"]
    kubeconfig_path: str | None = None
    """A kubeconfig file; relative to the folder of the stack file. Either this or kubeconfigSecret."""
    kubeconfig_secret: _ConfigKey | None = None
    """Key of a Pulumi secret that holds the kubeconfig: `pulumi config set --secret fleet:<key>`."""
    context: str | None = None
    """Context to use; without it the kubeconfig's current one."""
    front_door: FrontDoorAddress
    regional_gateway: RegionalGatewayAddress
    control_planes: Literal["provided"] = "provided"
    """Who installs KServe and Istio. `provided`: they are there already; it is verified that they are."""
    versions: VersionsSpec | None = None

    @model_validator(mode="after")
    def _one_kubeconfig(self) -> Self:
        if (self.kubeconfig_path is None) == (self.kubeconfig_secret is None):
            raise refuse("needs exactly one of `kubeconfigPath` and `kubeconfigSecret`")
        return self
