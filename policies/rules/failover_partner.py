"""Every served model runs in two regions or more.

Why: while its only region is away, every request for the model fails; nothing can be moved to a place that was never made.

Fix: add a cluster of another region to `placement.clusters` of the model. Where law allows one region only, waive the rule.
"""

from collections.abc import Iterator

from planning.division import division
from policies.declared import Placed, Stack
from policies.karmada import clusters
from policies.rule import Finding
from specs import labels


def check(stack: Stack) -> Iterator[Finding]:
    regions = {each.name: each.region for each in stack.spec.clusters} if stack.spec else {}
    for each in stack.of_kind("InferenceService", "LLMInferenceService"):
        held = sorted({regions[name] for name in _holding(stack, each) if name in regions})
        if len(held) == 1:
            yield Finding(says=f"runs in one region only, got: `{held[0]}`", on=each)
        elif regions and not held:
            yield Finding(says="runs nowhere, no propagation policy sends it to a cluster", on=each)


def _holding(stack: Stack, service: Placed) -> set[str]:
    """Clusters that get the service; of a model of the stack file those where replicas run while all is well."""
    found = clusters(stack, service)
    model = next((each for each in stack.spec.models if each.name == service.name), None) if stack.spec else None
    if model is None or service.namespace != labels.NAMESPACE_MODELS:
        return found
    return found & {name for name, replicas in division(model.placement, model.replicas).items() if replicas}
