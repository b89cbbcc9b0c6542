"""Override policies change objects in a way that rules can follow.

Why: an override is applied after every check, in the cluster. One that cannot be worked out here could put in anything: an image
without a digest, a privileged container.

Fix: use `plaintext` with paths of fields, in place of the overriders for images, commands, arguments and parts of texts.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for policy, what in stack.opaque_overrides:
        yield Finding(says=f"cannot be followed because of {what}", on=policy)
