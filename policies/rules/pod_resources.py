"""Containers say what they need of CPU, memory and GPUs, and GPUs are the same in requests and limits.

Why: a pod without requests is placed anywhere and killed first; memory without a limit takes the node along. KServe puts 1 CPU and
2 GiB where nothing is said, which no model fits in. Kubernetes refuses GPUs that differ, but only when the pod is made.

Fix: set `resources.requests` and `resources.limits` with cpu and memory; GPUs in both, equal.
"""

from collections.abc import Iterator

from policies.declared import Stack, at
from policies.pods import devices, name_of, pods
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.containers:
            where = f"container `{name_of(container)}`"
            needed = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
            if missing := [f"resources.{field}.{what}" for field, what in needed if at(container, "resources", field, what) is None]:
                yield Finding(says=f"{where}: lacks {', '.join(f'`{each}`' for each in missing)}", on=pod.owner)
        for container in pod.every:
            asked, limits = devices(container, "requests"), devices(container, "limits")
            for name in sorted(asked.keys() | limits.keys()):
                if asked.get(name) != limits.get(name):
                    got = f"`{asked.get(name)}` and `{limits.get(name)}`"
                    yield Finding(says=f"container `{name_of(container)}`: `{name}` must be equal in requests and limits, got: {got}", on=pod.owner)
