"""The driver `existing`: a cluster that somebody else runs, known by its kubeconfig."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from specs.base import NOTHING, Problem, Spec, checked, refuse
from specs.drivers.driver import Capabilities, DriverSpec, KarmadaHost, KubeconfigFile, KubeconfigSecret, Role
from specs.gpu_pools import GpuPoolSpec
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


class HostSpec(Spec):
    """The cluster in which Karmada's own processes run, so that their flags can be verified. Nothing is changed there."""

    kubeconfig_path: str | None = None
    """A kubeconfig file; relative to the folder of the stack file. Either this or kubeconfigSecret."""
    kubeconfig_secret: _ConfigKey | None = None
    """Key of a Pulumi secret that holds the kubeconfig. It need only allow to list Deployments."""
    context: str | None = None
    """Context to use; without it the kubeconfig's current one."""
    namespace: str | None = None
    """Where Karmada's Deployments are; without it they are looked for everywhere."""

    @model_validator(mode="after")
    def _one_kubeconfig(self) -> Self:
        return _with_one_kubeconfig(self)


class ExistingDriver(DriverSpec):
    """A cluster that stands already, known by its kubeconfig. It is neither made nor removed.

    As a member it needs `frontDoor` and `regionalGateway`. As the hub it has neither, and the kubeconfig leads to the API server
    of Karmada, not to that of the cluster in which Karmada runs.
    """

    kind: Literal["existing"]
    kubeconfig_path: str | None = None
    """A kubeconfig file; relative to the folder of the stack file. Either this or kubeconfigSecret."""
    kubeconfig_secret: _ConfigKey | None = None
    """Key of a Pulumi secret that holds the kubeconfig: `pulumi config set --secret fleet:<key>`."""
    context: str | None = None
    """Context to use; without it the kubeconfig's current one."""
    front_door: FrontDoorAddress | None = None
    """Required for a member; a hub has none."""
    regional_gateway: RegionalGatewayAddress | None = None
    """Required for a member; a hub has none."""
    control_planes: Literal["provided"] = "provided"
    """Who installs KServe and Istio, or Karmada on a hub. `provided`: they are there already; it is verified that they are."""
    host: HostSpec | None = None
    """Only for the hub: where Karmada's own processes run. Without it only a part of Karmada's settings is verified."""
    versions: VersionsSpec | None = None

    @model_validator(mode="after")
    def _one_kubeconfig(self) -> Self:
        return _with_one_kubeconfig(self)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            owned=False,
            on_this_machine=False,
            simulated_gpus=False,
            faults=None,
            external_authentication=True,
            failback=False,
            front_door_tls=self.front_door is not None and self.front_door.url.startswith("https://"),
            installers={"karmada": self.control_planes, "kserve": self.control_planes, "istio": self.control_planes},
            versions=self.versions.model_dump(by_alias=True) if self.versions else {},
        )

    @property
    def kubeconfig_source(self) -> KubeconfigFile | KubeconfigSecret:
        return _source(self)

    @property
    def karmada_host(self) -> KarmadaHost | None:
        if self.host is None:
            return None
        return KarmadaHost(kubeconfig_source=_source(self.host, "host."), namespace=self.host.namespace)

    def problems(self, role: Role, pools: tuple[GpuPoolSpec, ...]) -> Iterator[Problem]:  # noqa: ARG002  its pools are a statement, nothing is made
        for name, value in (("frontDoor", self.front_door), ("regionalGateway", self.regional_gateway)):
            if role == "member" and value is None:
                yield Problem(("driver", name), "is required for a member", NOTHING, "its gateways are made by somebody else: say where they are reached")
            if role == "hub" and value is not None:
                yield Problem(("driver", name), "must not be set for the hub", value.model_dump(by_alias=True), "no request goes through the hub: leave it out")
        if role == "member" and self.host is not None:
            yield Problem(("driver", "host"), "must not be set for a member", NOTHING, "it says where Karmada runs: only a hub has it")


_Kubeconfig = TypeVar("_Kubeconfig", HostSpec, ExistingDriver)


def _with_one_kubeconfig(spec: _Kubeconfig) -> _Kubeconfig:
    if (spec.kubeconfig_path is None) == (spec.kubeconfig_secret is None):
        raise refuse("needs exactly one of `kubeconfigPath` and `kubeconfigSecret`")
    return spec


def _source(spec: HostSpec | ExistingDriver, where: str = "") -> KubeconfigFile | KubeconfigSecret:
    if spec.kubeconfig_secret is not None:
        return KubeconfigSecret(key=spec.kubeconfig_secret, field=f"{where}kubeconfigSecret", context=spec.context)
    return KubeconfigFile(path=spec.kubeconfig_path or "", field=f"{where}kubeconfigPath", context=spec.context)
