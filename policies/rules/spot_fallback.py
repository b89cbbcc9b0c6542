"""A pool of spot nodes has another capacity type.

Why: a cloud takes spot nodes back within minutes, and all of one type at once; a pool without another type stays empty for as
long as that lasts.

Fix: add `on-demand` or `reserved` after `spot` in `capacityTypes` of the pool, or give the cluster another pool of the type.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for cluster in stack.spec.clusters if stack.spec else ():
        lasting = {pool.accelerator for pool in cluster.gpu_pools if set(pool.capacity_types) - {"spot"} and pool.most_nodes}
        for pool in cluster.gpu_pools:
            if "spot" in pool.capacity_types and pool.accelerator not in lasting:
                says = f"cluster `{cluster.name}`: pool `{pool.name}` has spot nodes only, and the cluster no other {pool.accelerator}"
                yield Finding(says=says, about=cluster.name)
