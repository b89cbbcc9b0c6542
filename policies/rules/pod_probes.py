"""What serves a model has a readiness probe and a startup probe.

Why: without readiness a replica gets requests while it loads; without a startup probe the kubelet takes a slow load for a
failure, and restarts it for ever.

Fix: declare readinessProbe and startupProbe on the container that answers.
"""

from collections.abc import Iterator

from policies.declared import Stack, mapping
from policies.pods import name_of, pods
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        if not pod.serves:
            continue
        container = pod.answering
        for probe in ("readinessProbe", "startupProbe"):
            if not mapping(container.get(probe)):
                yield Finding(says=f"container `{name_of(container)}`: has no `{probe}`", on=pod.owner)
