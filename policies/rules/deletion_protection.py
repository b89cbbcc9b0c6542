"""Clusters that the stack makes are protected from deletion.

Why: a name changed in a stack file deletes the old cluster with all that runs on it; with protection the engine refuses until
someone says that it is meant.

Fix: set `protect: true` on the hub and on the cluster in the stack file; to delete one, take it out again and apply, or
`pulumi state unprotect` it.
"""

import re
from collections.abc import Iterator

from components.drivers.commands import DRIVER
from policies.declared import Stack, text
from policies.rule import Finding

LOCAL = False
# Types of Pulumi's providers that make a cluster.
_CLUSTERS = re.compile(
    r"aws:eks/cluster:Cluster|aws-native:eks:Cluster|eks:index:Cluster|gcp:container/cluster:Cluster|google-native:container/v\w+:Cluster"
    r"|azure:containerservice/kubernetesCluster:KubernetesCluster|azure-native:containerservice(/v\w+)?:ManagedCluster"
)


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.resources:
        makes = each.type.startswith("command:") and text(each.props.get("create")).startswith(f"{DRIVER} cluster ")
        if (makes or _CLUSTERS.fullmatch(each.type)) and not each.protected:
            yield Finding(says=f"`{each.name}` makes a cluster and is not protected from deletion", made_by=each)
