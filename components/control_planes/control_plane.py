"""Control planes: Karmada on the hub, KServe and Istio on every member, and how they get there.

An installer gives: the control plane is ready, and its version. Host processes are one way, `provided` another; a Helm
installer needs one class here and one line in `installer_for`. Settings come from the Specs of their concern.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pulumi

from components.drivers.commands import driver_command, inside, result
from specs.drivers.existing import ExistingDriver
from specs.drivers.local import LocalDriver
from toolchain.pins import PINS

ControlPlaneName = Literal["karmada", "kserve", "istio"]


@dataclass(frozen=True, kw_only=True)
class ControlPlaneArgs:
    cluster: str
    control_plane: ControlPlaneName
    owner: pulumi.Resource | None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


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
    """Installs nothing: someone else did. The join verifies it, as it waits until the member serves the kinds we send."""

    def install(self, name: str, args: ControlPlaneArgs, parent: pulumi.Resource) -> Installed:  # noqa: ARG002  the shape of Installer
        return Installed(ready=parent, version=pulumi.Output.from_input("provided"))


def installer_for(driver: LocalDriver | ExistingDriver) -> Installer:
    """The installer that fits a cluster's driver."""
    return HostProcessInstaller() if isinstance(driver, LocalDriver) else ProvidedInstaller()


class ControlPlane(pulumi.ComponentResource):
    """One control plane in one cluster. Depend on `ready` before using its kinds."""

    version: pulumi.Output[str]

    def __init__(self, name: str, args: ControlPlaneArgs, installer: Installer, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:control_planes:ControlPlane", name, None, opts)
        installed = installer.install(name, args, self)
        self.ready = installed.ready
        self.version = installed.version
        self.register_outputs({"version": self.version})
