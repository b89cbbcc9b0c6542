"""The hub in a stack's outputs: its name is the team's choice."""

from collections.abc import Mapping
from typing import Any

from core.errors import FleetError

# Of a stack that was last updated before its outputs named the hub.
_UNNAMED = "hub"


def name(outputs: Mapping[str, Any]) -> str:
    return str(outputs.get("hub", {}).get("name", _UNNAMED))


def kubeconfig(outputs: Mapping[str, Any]) -> str:
    """Raises FleetError where the outputs hold none."""
    found = outputs.get("kubeconfigs", {}).get(name(outputs))
    if found is None:
        raise FleetError(f"stack outputs: kubeconfigs.{name(outputs)}: missing", hint="`fleet up` writes the outputs again")
    return str(found)


def member_kubeconfigs(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Kubeconfig of each member by its name."""
    return {cluster: str(text) for cluster, text in outputs.get("kubeconfigs", {}).items() if cluster != name(outputs)}
