"""A lost cluster keeps its replicas for longer than the model takes to load.

Why: moving a model costs a load elsewhere, and the GPUs for it. A cluster that is back before the load would have ended was left
for nothing, and with several models the loads slow each other down.

Fix: raise `placement.evictAfterSeconds` of the model above its `runtime.loadSeconds`; requests do not wait for it, they leave a
dead region in milliseconds.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, mappings, number
from policies.karmada import policy_of
from policies.rule import Finding
from specs import labels


def check(stack: Stack) -> Iterator[Finding]:
    models = {each.name: each for each in stack.spec.models} if stack.spec else {}
    for service in stack.of_kind("InferenceService"):
        model = models.get(service.name) if service.namespace == labels.NAMESPACE_MODELS else None
        load = model.runtime.load_seconds if model else None
        policy = policy_of(stack, service)
        if load is None or policy is None:
            continue
        tolerations = mappings(at(policy.body, "spec", "placement", "clusterTolerations"))
        times = [number(each["tolerationSeconds"]) for each in tolerations if each.get("tolerationSeconds") is not None]
        if times and min(times) < load:
            yield Finding(says=f"replicas are moved after {min(times):g} s, and the model takes {load} s to load", on=policy)
