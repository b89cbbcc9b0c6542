"""A cluster that a driver makes or takes."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import pulumi
import yaml

from components.drivers.commands import driver_command, result
from specs.drivers.existing import ExistingDriver
from specs.drivers.local import LocalDriver


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
