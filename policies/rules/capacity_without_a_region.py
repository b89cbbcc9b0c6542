"""With any one region lost, the GPUs of the others hold every replica that can move.

Why: requests leave a dead region at once and meet the replicas that are left; without GPUs for the lost ones they queue until
callers give up, and the next region goes down under the load.

Fix: add nodes to the pool, shift weights so that regions share what one loses, or lower `replicas`.
"""

from collections.abc import Iterator

from planning.rules import overfull
from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    if stack.spec is None:
        return
    for region in dict.fromkeys(each.region for each in stack.spec.clusters):
        for cluster, _, why in overfull(stack.spec, region):
            yield Finding(says=f"cluster `{cluster.name}`: {why} when region `{region}` is lost", about=cluster.name)
