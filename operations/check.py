"""`fleet check`: what the clusters that somebody else set up lack, all of it at once. Reads and dry runs only."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pulumi.automation.errors import CommandError

from components.control_planes.verification import karmada_settings, of_hub, of_member
from core.errors import FleetError
from federation import membership, verification
from kube.client import KubeError
from kube.kubeconfig import KubeconfigError, portable
from operations import stack_file
from operations.stack import select
from specs.drivers.driver import KubeconfigFile, KubeconfigSecret
from specs.fleet import FleetSpec

Object = dict[str, Any]

Source = KubeconfigFile | KubeconfigSecret

Kubeconfigs = Callable[[Source], str]


def check(stack: str) -> None:
    """Verifies every cluster whose control planes are provided. Raises FleetError with what each of them lacks."""
    spec = stack_file.read_fleet(stack)
    checks = list(_checks(spec, lambda source: _kubeconfig(stack, source)))
    if not checks:
        print(f"nothing to check: every control plane of stack `{stack}` is installed by this program")
        return
    lacking: list[str] = []
    for name, verify in checks:
        try:
            verify()
            print(f"{name}: ready")
        except (FleetError, KubeError, KubeconfigError) as error:
            text = str(error) + (f"\n  hint: {error.hint}" if isinstance(error, FleetError) and error.hint else "")
            lacking.append(text if text.startswith(f"{name}: ") else f"{name}: {text}")
    if lacking:
        raise FleetError("\n".join(lacking), hint="docs/existing-clusters.md lists every setting")


def _checks(spec: FleetSpec, kubeconfig: Kubeconfigs) -> Iterator[tuple[str, Callable[[], Object]]]:
    """Each cluster with provided control planes, and what verifies it. Kubeconfigs are read only then."""
    hub = spec.hub.driver
    if hub.capabilities.installers["karmada"] == "provided" and hub.kubeconfig_source:
        yield spec.hub.name, partial(_hub, spec, hub.kubeconfig_source, kubeconfig)
    for each in spec.clusters:
        if each.driver.capabilities.installers["kserve"] == "provided" and each.driver.kubeconfig_source:
            yield each.name, partial(_member, spec, each.name, each.driver.kubeconfig_source, kubeconfig)


def _hub(spec: FleetSpec, source: Source, kubeconfig: Kubeconfigs) -> Object:
    host = spec.hub.driver.karmada_host
    return verification.verify(
        {
            "cluster": spec.hub.name,
            "controlPlane": "karmada",
            "settings": karmada_settings(spec),
            "kubeconfig": kubeconfig(source),
            "context": source.context,
            **of_hub(spec, kubeconfig(host.kubeconfig_source) if host else None),
        }
    )


def _member(spec: FleetSpec, name: str, source: Source, kubeconfig: Kubeconfigs) -> Object:
    return membership.check({"cluster": name, "memberKubeconfig": kubeconfig(source), "context": source.context, **of_member(spec)})


def _kubeconfig(stack: str, source: Source) -> str:
    """The kubeconfig itself. Raises FleetError."""
    if isinstance(source, KubeconfigFile):
        file = stack_file.path(stack).parent / Path(source.path).expanduser()
        try:
            return portable(file)
        except (OSError, UnicodeDecodeError) as error:
            raise FleetError(
                f"driver.{source.field}: cannot be read: {error}, got: `{source.path}`", hint="it is relative to the folder of the stack file"
            ) from None
    try:
        return select(stack).get_config(f"fleet:{source.key}").value
    except CommandError:
        hint = f"pulumi config set --secret fleet:{source.key} < kubeconfig"
        raise FleetError(f"driver.{source.field}: no such secret in the configuration of stack `{stack}`, got: `{source.key}`", hint=hint) from None
