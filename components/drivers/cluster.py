"""A cluster that a driver makes or takes."""

import pulumi

from components.drivers.driver import ClusterArgs, Driver


class Cluster(pulumi.ComponentResource):
    """A cluster that can be reached. `kubeconfig` is a secret; `owner` is what makes and removes the cluster, see commands.inside."""

    kubeconfig: pulumi.Output[str]

    def __init__(self, name: str, driver: Driver, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:clusters:Cluster", name, None, opts)
        made = driver.cluster(name, args, self)
        self.owner = made.owner
        self.kubeconfig = pulumi.Output.secret(made.kubeconfig)
        self.register_outputs({"kubeconfig": self.kubeconfig})
