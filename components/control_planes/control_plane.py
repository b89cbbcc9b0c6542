"""Control planes: Karmada on the hub, KServe and Istio on every member, and how they get there.

An installer gives: the control plane is ready, and its version. Host processes are one way, `provided` another; a Helm
installer needs one class and one line in INSTALLERS. Which one a cluster gets is its driver's answer
(`capabilities.installers`). Settings come from the Specs of their concern.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pulumi

from components.drivers.commands import driver_command, inside, result
from specs.drivers import ClusterDriver
from specs.types import ControlPlaneName, InstallerName
from toolchain.pins import PINS


@dataclass(frozen=True, kw_only=True)
class ControlPlaneArgs:
    cluster: str
    control_plane: ControlPlaneName
    # Of the cluster that gets the control plane; a secret. For Karmada that is provided, of Karmada's own API server.
    kubeconfig: pulumi.Output[str]
    # What makes and removes the cluster; None where it stays.
    owner: pulumi.Resource | None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    # What the verification of a provided one reads beside the settings. Its leaves may be Outputs.
    verification: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A control plane that answers. Who needs it depends on `ready`."""

    ready: pulumi.Resource
    version: pulumi.Output[str]


class Installer(Protocol):
    """One way to bring a control plane into a cluster. `parent` becomes the parent of whatever it declares."""

    def install(self, name: str, args: ControlPlaneArgs, parent: pulumi.Resource) -> Installed: ...


class HostProcessInstaller:
    """Runs the control plane as processes of this machine, next to the processes of its cluster."""

    def install(self, name: str, args: ControlPlaneArgs, parent: pulumi.Resource) -> Installed:
        # The driver installs its pinned version whatever stands here; naming it makes a new pin a change that Pulumi sees.
        version = getattr(PINS, args.control_plane)
        payload = {"cluster": args.cluster, "controlPlane": args.control_plane, "version": version, "settings": dict(args.settings)}
        command = driver_command(f"{name}-processes", "control-plane", payload, inside(parent, args.owner))
        return Installed(ready=command, version=result(command, "version", default=""))


class ProvidedInstaller:
    """Installs nothing: someone else did. It is verified on creation, and when its settings or the kubeconfig change."""

    def install(self, name: str, args: ControlPlaneArgs, parent: pulumi.Resource) -> Installed:
        payload = {
            "cluster": args.cluster,
            "controlPlane": args.control_plane,
            "kubeconfig": args.kubeconfig,
            "settings": dict(args.settings),
            **args.verification,
        }
        # Nothing to delete: nothing was changed.
        command = driver_command(f"{name}-verified", "control-plane", payload, inside(parent, args.owner), apply="verify", delete=None)
        return Installed(ready=command, version=pulumi.Output.from_input("provided"))


INSTALLERS: Mapping[InstallerName, Installer] = {"host-processes": HostProcessInstaller(), "provided": ProvidedInstaller()}


def installer_for(driver: ClusterDriver, control_plane: ControlPlaneName) -> Installer:
    """The installer that brings `control_plane` into a cluster of this driver."""
    return INSTALLERS[driver.capabilities.installers[control_plane]]


class ControlPlane(pulumi.ComponentResource):
    """One control plane in one cluster. Depend on `ready` before using its kinds."""

    version: pulumi.Output[str]

    def __init__(self, name: str, args: ControlPlaneArgs, installer: Installer, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:control_planes:ControlPlane", name, None, opts)
        installed = installer.install(name, args, self)
        self.ready = installed.ready
        self.version = installed.version
        self.register_outputs({"version": self.version})
