"""Every served model runs in two regions or more.

Why: while its only region is away, every request for the model fails; nothing can be moved to a place that was never made.

Mend: add a cluster of another region to `placement.clusters` of the model. Where law allows one region only, waive the rule.
"""

from collections.abc import Iterator

from policies.declared import Stack
from policies.karmada import clusters
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    regions = {each.name: each.region for each in stack.spec.clusters} if stack.spec else {}
    for each in stack.of_kind("InferenceService", "LLMInferenceService"):
        held = sorted({regions[name] for name in clusters(stack, each) if name in regions})
        if len(held) == 1:
            yield Finding(says=f"runs in one region only, got: `{held[0]}`", on=each)
