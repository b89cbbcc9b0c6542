"""Containers say what they need of CPU, memory and GPUs, and GPUs are the same in requests and limits.

Why: a pod without requests is placed anywhere and killed first; memory without a limit takes the node along. KServe puts 1 CPU and
2 GiB where nothing is said, which no model fits in. Kubernetes refuses GPUs that differ, but only when the pod is made.

Mend: set `resources.requests` and `resources.limits` with cpu and memory; GPUs in both, equal.
"""

from collections.abc import Iterator

from policies.declared import Stack, at
from policies.pods import GPU, gpus, name_of, pods
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.containers:
            where = f"container `{name_of(container)}`"
            needed = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
            if missing := [f"resources.{field}.{what}" for field, what in needed if at(container, "resources", field, what) is None]:
                yield Finding(says=f"{where}: lacks {', '.join(f'`{each}`' for each in missing)}", on=pod.owner)
            asked, limit = gpus(container, "requests"), gpus(container, "limits")
            if (asked is not None or limit is not None) and str(asked) != str(limit):
                says = f"{where}: `{GPU}` must be equal in requests and limits, got: `{asked}` and `{limit}`"
                yield Finding(says=says, on=pod.owner)
