"""Every object says what it is part of, and every model who answers for it.

Why: an alert at night needs someone to call, a bill someone to pay; objects without the labels are in no dashboard and in nobody's
clean-up.

Fix: set `owner` of the model in the stack file; give objects beside the fleet the labels `app.kubernetes.io/part-of` and
`app.kubernetes.io/component`, and a PropagationPolicy of a model `inference-fleet.dev/owner`.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, mapping
from policies.karmada import policy_of
from policies.rule import Finding
from specs import labels


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.objects:
        held = mapping(at(each.body, "metadata", "labels"))
        if missing := [key for key in (labels.LABEL_PART_OF, labels.LABEL_COMPONENT) if not held.get(key)]:
            yield Finding(says=f"lacks the labels {', '.join(f'`{key}`' for key in missing)}", on=each)
    for service in stack.of_kind("InferenceService", "LLMInferenceService"):
        policy = policy_of(stack, service)
        if policy and not at(policy.body, "metadata", "labels", labels.LABEL_OWNER):
            yield Finding(says=f"nobody answers for it, its PropagationPolicy has no label `{labels.LABEL_OWNER}`", on=service)
