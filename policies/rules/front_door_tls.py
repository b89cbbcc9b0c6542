"""Callers reach every front door by TLS.

Why: prompts and API keys travel in what they send, often across the internet.

Fix: end TLS at the front door or at the load balancer before it, and give `driver.frontDoor.url` as `https://…`.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.rule import Finding

LOCAL = False


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.spec.clusters if stack.spec else ():
        if not each.driver.capabilities.front_door_tls:
            yield Finding(says=f"cluster `{each.name}`: its front door, made by driver `{each.driver.kind}`, is reached without TLS", about=each.name)
