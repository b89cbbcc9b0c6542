"""What a driver answers about its cluster from the stack file alone.

The other half of a driver declares resources: components/drivers. Everything else asks these two and never compares kinds.
docs/drivers.md says how to write one.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from specs.base import Problem, Spec
from specs.gpu_pools import GpuPoolSpec, TaintSpec
from specs.types import ControlPlaneName, InstallerName

# The hub holds Karmada; members run models.
Role = Literal["hub", "member"]

# How a drill breaks a cluster: one module each in operations/drills/faults says which faults it makes.
FaultMaker = Literal["host-processes"]


@dataclass(frozen=True, kw_only=True)
class KubeconfigFile:
    """A kubeconfig in a file; a relative path starts at the folder of the stack file."""

    path: str
    field: str
    """Field of the driver that names it, for errors."""
    context: str | None = None
    """Context to use; without it the kubeconfig's current one."""


@dataclass(frozen=True, kw_only=True)
class KubeconfigSecret:
    """A kubeconfig in a secret of the stack's configuration."""

    key: str
    field: str
    context: str | None = None


@dataclass(frozen=True, kw_only=True)
class KarmadaHost:
    """A cluster in which Karmada's processes run as Deployments."""

    kubeconfig_source: KubeconfigFile | KubeconfigSecret
    namespace: str | None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Facts of one cluster that the rest of the program decides by. No field of a driver's nature has a default."""

    owned: bool
    """The program makes the cluster, and removes it when it leaves the stack file."""
    on_this_machine: bool
    """The processes of the cluster run on this machine, and commands may look at them."""
    simulated_gpus: bool
    """Pods on GPU nodes turn Ready and answer nothing."""
    faults: FaultMaker | None
    """How a drill breaks it; None where it is out of reach."""
    external_authentication: bool
    """The mesh configuration can name extension providers."""
    failback: bool
    """The failback controller runs beside Karmada without anybody's doing. Of no meaning for a member."""
    front_door_tls: bool
    """Callers reach the front door by TLS. Of no meaning for a hub."""
    installers: Mapping[ControlPlaneName, InstallerName]
    """How each control plane gets into the cluster."""
    versions: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """Versions of what runs in the cluster, by the names of policies/compatibility.toml, as far as they are known."""


class DriverSpec(Spec):
    """Base of every driver's entry in a stack file. A subclass adds `kind: Literal[...]` and its own fields."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @property
    def kubeconfig_source(self) -> KubeconfigFile | KubeconfigSecret | None:
        """Where the kubeconfig is found; None where the driver makes it."""
        return None

    @property
    def karmada_host(self) -> KarmadaHost | None:
        """The cluster in which the processes of a hub run, where it is another one and known."""
        return None

    def problems(self, role: Role, pools: tuple[GpuPoolSpec, ...]) -> Iterable[Problem]:  # noqa: ARG002  a driver that takes everything
        """What the driver cannot do as declared. Paths start at the entry of the cluster."""
        return ()

    def taints(self, pool: GpuPoolSpec) -> tuple[TaintSpec, ...]:
        """Taints on the nodes of a pool: those declared, and any that the driver adds."""
        return pool.taints
