"""Images and model artifacts are named by digest.

Why: a tag can be pushed again; then clusters that pull on different days run different software under one name, and a rollback
brings back something else.

Fix: add the digest to the reference, `repository:tag@sha256:…`; `runtimes.*.image` and `models[].source` of the stack file
take it. `crane digest` and `fleet model push` print it.
"""

import re
from collections.abc import Iterator

from policies.declared import Stack
from policies.pods import artifacts, pods
from policies.rule import Finding

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for where, image in pod.images:
            if image and not _DIGEST.search(image):
                yield Finding(says=f"{where}: image has no digest, got: `{image}`", on=pod.owner)
    for each, source in artifacts(stack):
        if source.startswith("oci") and not _DIGEST.search(source):
            yield Finding(says=f"model artifact has no digest, got: `{source}`", on=each)
