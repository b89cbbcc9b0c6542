"""The driver `existing`: a cluster that somebody else runs. Nothing is declared; it is known by what the stack file says."""

from typing import Any, cast

import pulumi
import yaml

from components.drivers.driver import ClusterArgs, Door, Made, MemberArgs
from specs.drivers.existing import ExistingDriver


def with_context(kubeconfig: str, context: str | None) -> str:
    """The same kubeconfig with `context` as the current one. Raises RunError where it has no such context."""
    if context is None:
        return kubeconfig
    try:
        read: Any = yaml.safe_load(kubeconfig)
    except yaml.YAMLError:
        # Its text quotes the line, which may hold a token.
        read = None
    if not isinstance(read, dict):
        raise pulumi.RunError("kubeconfig: must be a YAML mapping with clusters, users and contexts")
    document = cast(dict[str, Any], read)
    names = [str(each["name"]) for each in document.get("contexts") or []]
    if context not in names:
        raise pulumi.RunError(f"kubeconfig has no context `{context}`\n  hint: it has: {', '.join(names)}")
    return yaml.safe_dump({**document, "current-context": context})


class Existing:
    """A cluster that is neither made nor removed."""

    def __init__(self, spec: ExistingDriver) -> None:
        self._spec = spec

    def cluster(self, name: str, args: ClusterArgs, parent: pulumi.Resource) -> Made:  # noqa: ARG002  the shape of Driver
        if args.kubeconfig is None:
            raise ValueError(f"cluster `{args.name}` with driver `existing` was given no kubeconfig")
        kubeconfig = pulumi.Output.from_input(args.kubeconfig).apply(lambda text: with_context(text, self._spec.context))
        return Made(kubeconfig=kubeconfig, owner=None)

    def gpu_pools(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> None:
        """The stack file says which nodes there are."""

    def gateways(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> Door:  # noqa: ARG002  the shape of Driver
        door, gateway = self._spec.front_door, self._spec.regional_gateway
        # ExistingDriver.problems refuses a member without them.
        if door is None or gateway is None:
            raise ValueError(f"member `{args.spec.name}` with driver `existing` has no gateways")
        return Door(front_door_url=door.url, address=gateway.address, port=gateway.port)

    def supplies(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:  # noqa: ARG002  the shape of Driver
        return []
