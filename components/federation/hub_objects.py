"""Turning a manifest into a Pulumi resource on the hub.

There is one Kubernetes provider, the hub's: members get their objects from Karmada. Components inherit it.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pulumi

# Values of a Secret, in each of its two forms.
_SECRET_VALUES = ("data", "stringData")


def hub_object(name: str, manifest: Mapping[str, Any], opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """Declares the object of `manifest`, of any kind, with everything that it says. Its leaves may be Outputs.

    The SDK's class for custom resources takes `metadata` and `spec` alone; what lies beside them (`data`, `rules`,
    `webhooks`) would be lost without an error. Types and inputs are those of the SDK's classes, so a resource of one of
    these is the same resource. Values of a Secret are encrypted in the state, whether they come as Outputs or not.
    """
    secret = (manifest["apiVersion"], manifest["kind"]) == ("v1", "Secret")
    inputs = {key: pulumi.Output.secret(value) if secret and key in _SECRET_VALUES else value for key, value in manifest.items()}
    more = pulumi.ResourceOptions(version=version("pulumi-kubernetes"), additional_secret_outputs=list(_SECRET_VALUES) if secret else None)
    return pulumi.CustomResource(type_token(manifest), name, inputs, pulumi.ResourceOptions.merge(opts, more))


def type_token(manifest: Mapping[str, Any]) -> str:
    """The type in a resource's URN. The core group has a name there, and none in manifests."""
    api_version = manifest["apiVersion"]
    return f"kubernetes:{'core/v1' if api_version == 'v1' else api_version}:{manifest['kind']}"
