"""Callers reach every front door by TLS.

Why: prompts and API keys travel in what they send, often across the internet.

Mend: end TLS at the front door or at the load balancer before it, and give `driver.frontDoor.url` as `https://…`.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.rule import Finding
from specs.drivers.existing import ExistingDriver

LOCAL = False


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.spec.clusters if stack.spec else ():
        if not isinstance(each.driver, ExistingDriver):
            yield Finding(says=f"cluster `{each.name}`: a front door of driver `{each.driver.kind}` speaks HTTP without TLS", about=each.name)
        elif not each.driver.front_door.url.startswith("https://"):
            yield Finding(says=f"cluster `{each.name}`: the front door is reached without TLS, got: `{each.driver.front_door.url}`", about=each.name)
