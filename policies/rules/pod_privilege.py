"""No pod has the rights of its node.

Why: a privileged container, a namespace of the host or a path of it is the node, with the GPUs and the secrets of every model
on it.

Fix: take the field out; what needs the driver asks for `nvidia.com/gpu`, what needs a folder mounts a volume of its own.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, mappings
from policies.pods import name_of, pods
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield Finding(says=f"pod has the node's own namespace, got: `{field}: true`", on=pod.owner)
        for volume in mappings(pod.spec.get("volumes")):
            if "hostPath" in volume:
                path = at(volume, "hostPath", "path")
                yield Finding(says=f"volume `{volume.get('name')}` is a path of the node, got: `{path}`", on=pod.owner)
        for container in pod.every:
            where = f"container `{name_of(container)}`"
            if pod.security(container, "privileged"):
                yield Finding(says=f"{where} is privileged", on=pod.owner)
            if pod.security(container, "procMount") == "Unmasked":
                yield Finding(says=f"{where} sees what the kernel hides, got: `procMount: Unmasked`", on=pod.owner)
            if ports := [each["hostPort"] for each in mappings(container.get("ports")) if each.get("hostPort")]:
                yield Finding(says=f"{where} takes a port of the node, got: `hostPort: {ports[0]}`", on=pod.owner)
    for each in stack.placed("PersistentVolume"):
        if path := at(each.body, "spec", "hostPath", "path"):
            yield Finding(says=f"volume is a path of the node, got: `{path}`", on=each)
