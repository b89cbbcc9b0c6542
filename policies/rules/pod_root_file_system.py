"""The root file system of a pod without GPUs is read-only.

Why: what breaks in cannot change the software that is started next. Pods with GPUs are excepted: NVIDIA's hook writes the links to
the driver's libraries into their root before they start.

Fix: set `readOnlyRootFilesystem: true` and mount an emptyDir where files are written.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.pods import devices, name_of, pods
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.every:
            driven = any(name.startswith("nvidia.com/") for name in devices(container, "limits"))
            if not driven and pod.security(container, "readOnlyRootFilesystem") is not True:
                says = f"container `{name_of(container)}`: `readOnlyRootFilesystem` is not true"
                yield Finding(says=says, on=pod.owner)
