"""Turning a manifest into a Pulumi resource on the hub.

There is one Kubernetes provider, the hub's: members get their objects from Karmada. Components inherit it.
"""

from typing import Any

import pulumi
from pulumi_kubernetes.apiextensions import CustomResource


def hub_object(name: str, manifest: dict[str, Any], opts: pulumi.ResourceOptions) -> CustomResource:
    """Declares a custom resource as `manifest` has it: apiVersion, kind, metadata, spec."""
    return CustomResource(name, api_version=manifest["apiVersion"], kind=manifest["kind"], metadata=manifest["metadata"], spec=manifest["spec"], opts=opts)
