"""Pods run as a user without rights, and can gain none.

Why: a hole in what parses prompts and weights should end in a user that owns nothing.

Fix: set `runAsNonRoot: true`, a numeric `runAsUser` above 0 and `allowPrivilegeEscalation: false` in the container's
securityContext.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.pods import name_of, pods
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.every:
            where = f"container `{name_of(container)}`"
            if pod.security(container, "runAsNonRoot") is not True:
                yield Finding(says=f"{where}: may run as root, `runAsNonRoot` is not true", on=pod.owner)
            if pod.security(container, "runAsUser") == 0:
                yield Finding(says=f"{where}: runs as root, got: `runAsUser: 0`", on=pod.owner)
            if pod.security(container, "allowPrivilegeEscalation") is not False:
                yield Finding(says=f"{where}: may gain rights, `allowPrivilegeEscalation` is not false", on=pod.owner)
