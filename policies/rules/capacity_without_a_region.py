"""With any one region lost, the GPUs of the others hold every replica that can move.

Why: requests leave a dead region at once and meet the replicas that are left; without GPUs for the lost ones they queue until
callers give up, and the next region goes down under the load.

Mend: add nodes to the pool, shift weights so that regions share what one loses, or lower `replicas`.
"""

from collections.abc import Iterator

from components.gpu_pools import nodes_of
from components.rules import overfull
from planning import capacity
from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    if stack.spec is None:
        return
    for region in dict.fromkeys(each.region for each in stack.spec.clusters):
        for cluster, kind, asked in overfull(stack.spec, region):
            has = capacity.total(nodes_of(cluster.gpu_pools, kind))
            why = f"{asked} are needed" if asked > has else f"the {asked} that are needed lie too scattered"
            yield Finding(says=f"cluster `{cluster.name}`: has {has} GPUs of type {kind}, and {why} when region `{region}` is lost", about=cluster.name)
