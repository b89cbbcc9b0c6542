"""What the verification of a control plane that somebody else installed is given. It runs in federation/verification.py."""

from collections.abc import Mapping
from typing import Any

import pulumi

from specs.callers import ExternalAuthenticationSpec
from specs.control_planes import karmada
from specs.fleet import FleetSpec
from specs.propagation import required_kinds


def karmada_settings(spec: FleetSpec) -> dict[str, Any]:
    """Settings of the control plane `karmada`, for our own processes and for the checks of others."""
    return {"flags": karmada.flags(spec.failover.capacity)}


def _kinds(spec: FleetSpec) -> list[str]:
    return [str(each) for each in required_kinds(spec)]


def of_hub(spec: FleetSpec, host_kubeconfig: pulumi.Input[str] | None) -> Mapping[str, Any]:
    """The hub holds a template of every kind that it sends."""
    host = spec.hub.driver.karmada_host
    if host is None or host_kubeconfig is None:
        return {"kinds": _kinds(spec)}
    return {
        "kinds": _kinds(spec),
        "hostKubeconfig": host_kubeconfig,
        "hostContext": host.kubeconfig_source.context or "",
        "hostNamespace": host.namespace or "",
    }


def of_member(spec: FleetSpec) -> Mapping[str, Any]:
    authentication = spec.front_doors.authentication
    provider = authentication.provider if isinstance(authentication, ExternalAuthenticationSpec) else ""
    return {"kinds": _kinds(spec), "provider": provider}
