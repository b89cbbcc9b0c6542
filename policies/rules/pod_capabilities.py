"""Pods drop all capabilities and run under the default seccomp profile.

Why: serving a model needs none of the kernel's special rights, and most escapes from a container need one.

Fix: set `capabilities: {drop: [ALL]}` and `seccompProfile: {type: RuntimeDefault}` in the securityContext.
"""

from collections.abc import Iterator

from policies.declared import Stack, items, mapping, text
from policies.pods import name_of, pods
from policies.rule import Finding

# The one that Kubernetes' restricted profile lets a pod add.
_MAY_ADD = ("NET_BIND_SERVICE",)


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.every:
            where = f"container `{name_of(container)}`"
            capabilities = mapping(pod.security(container, "capabilities"))
            if "ALL" not in items(capabilities.get("drop")):
                yield Finding(says=f"{where}: keeps capabilities, `capabilities.drop` lacks ALL", on=pod.owner)
            if added := [each for each in items(capabilities.get("add")) if each not in _MAY_ADD]:
                yield Finding(says=f"{where}: adds capabilities, got: `{', '.join(map(str, added))}`", on=pod.owner)
            profile = text(mapping(pod.security(container, "seccompProfile")).get("type"))
            if profile not in ("RuntimeDefault", "Localhost"):
                yield Finding(says=f"{where}: seccomp filters nothing, got: `{profile or 'no seccompProfile'}`", on=pod.owner)
