"""Clusters: the hub and the members, and the drivers that give them.

A driver gives a kubeconfig and says where the doors of the cluster are. GPU pools, control planes and the join stand in
modules of their own. `local` makes a cluster of host processes, `existing` takes one by its kubeconfig.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, cast, get_args

import pulumi
import yaml
from pydantic import Field, model_validator

from components import naming
from components.driver_commands import driver_command, result
from components.gpu_pools import GpuPoolSpec
from components.spec import Spec, checked, dns_name, refuse

ClusterName = Annotated[str, *dns_name(naming.CLUSTER_LIMIT, "Karmada's limit for a cluster")]
Locality = Annotated[str, *checked(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, "must hold only a-z, 0-9 and `-`", "it becomes a label")]
# Codes are the team's own (EU, US, DE, …); they are compared, never interpreted.
Jurisdiction = Annotated[str, *checked(r"[A-Z][A-Z0-9-]*", 16, "must be a code in capitals such as `EU`", "it is a code, not a name")]
LatencyClass = Literal["interactive", "standard", "batch"]
# The nearest first.
LATENCY_CLASSES: tuple[LatencyClass, ...] = get_args(LatencyClass)
Port = Annotated[int, Field(ge=1, le=65535)]
Url = Annotated[str, *checked(r"https?://[^\s/]+(/[^\s]*)?", 2048, "must be a URL such as `https://llm.example.com`", "it is a URL")]
_ConfigKey = Annotated[str, *checked(r"[A-Za-z][-_A-Za-z0-9]*", 100, "must be the name of a key in the stack's configuration", "it is a key")]


class LocalDriver(Spec):
    """A cluster of host processes on this machine, with simulated GPU nodes. Everything listens on loopback."""

    kind: Literal["local"]


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


ClusterDriver = Annotated[LocalDriver | ExistingDriver, Field(discriminator="kind")]


class HubSpec(Spec):
    """The cluster that holds Karmada. It runs no model and stands in no request's way."""

    name: ClusterName = "hub"
    driver: LocalDriver
    protect: bool = False
    """Refuse to delete it, until this is taken out and applied."""


class ClusterSpec(Spec):
    """A member cluster: where models run."""

    name: ClusterName
    driver: ClusterDriver
    region: Locality
    """Region as callers know it. Clusters of one region fail together, and share its load."""
    zone: Locality | None = None
    provider: Locality | None = None
    """Cloud or site, e.g. `aws`. Karmada can choose clusters by it."""
    jurisdiction: Jurisdiction | None = None
    """Law that governs data in this cluster. A model with `jurisdictions` goes only where this is among them."""
    latency_class: LatencyClass = "standard"
    """How near it is to callers, by the team's own measure: someone waits for every token, for an answer, or for nothing. A model
    with a `latencyClass` goes only where this is as near, or nearer."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels of Karmada's Cluster object."""
    gpu_pools: tuple[GpuPoolSpec, ...] = ()
    protect: bool = False
    """Refuse to delete a cluster that this program makes, until this is taken out and applied."""

    @property
    def owned(self) -> bool:
        """Whether the cluster goes when it leaves the stack file."""
        return isinstance(self.driver, LocalDriver)


def cluster_payload(name: str, role: Literal["hub", "member"], region: str = "", zone: str = "") -> dict[str, Any]:
    """What `fleet-driver cluster` reads."""
    return {"name": name, "role": role, "region": region, "zone": zone}


def with_context(kubeconfig: str, context: str | None) -> str:
    """The same kubeconfig with `context` as the current one. Raises RunError where it has no such context."""
    if context is None:
        return kubeconfig
    document = cast(dict[str, Any], yaml.safe_load(kubeconfig))
    names = [str(each["name"]) for each in document.get("contexts", [])]
    if context not in names:
        raise pulumi.RunError(f"kubeconfig has no context `{context}`\n  hint: it has: {', '.join(names)}")
    return yaml.safe_dump({**document, "current-context": context})


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    name: str
    role: Literal["hub", "member"]
    driver: LocalDriver | ExistingDriver
    region: str = ""
    zone: str = ""
    # Only for `existing`: what the driver's kubeconfigPath or kubeconfigSecret leads to.
    kubeconfig: pulumi.Input[str] | None = None
    protect: bool = False


class Cluster(pulumi.ComponentResource):
    """A cluster that can be reached. `kubeconfig` is a secret."""

    kubeconfig: pulumi.Output[str]

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:clusters:Cluster", name, None, opts)
        # What holds the cluster; None for a cluster that is not ours to remove. See driver_commands.inside.
        self.owner: pulumi.Resource | None = None
        if isinstance(args.driver, LocalDriver):
            payload = cluster_payload(args.name, args.role, args.region, args.zone)
            child = pulumi.ResourceOptions(parent=self, additional_secret_outputs=["stdout"], protect=args.protect)
            self.owner = driver_command(f"{name}-cluster", "cluster", payload, child)
            kubeconfig = result(self.owner, "kubeconfig")
        else:
            context = args.driver.context
            if args.kubeconfig is None:
                raise ValueError(f"cluster `{args.name}` with driver `existing` was given no kubeconfig")
            kubeconfig = pulumi.Output.from_input(args.kubeconfig).apply(lambda text: with_context(text, context))
        self.kubeconfig = pulumi.Output.secret(kubeconfig)
        self.register_outputs({"kubeconfig": self.kubeconfig})
