"""A lost cluster keeps its replicas for longer than the model takes to load.

Why: moving a model costs a load elsewhere, and the GPUs for it. A cluster that is back before the load would have ended was left
for nothing, and with several models the loads slow each other down.

Mend: raise `placement.evictAfterSeconds` of the model above its `runtime.loadSeconds`; requests do not wait for it, they leave a
dead region in milliseconds.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, mappings
from policies.karmada import policies_of
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    models = {each.name: each for each in stack.spec.models} if stack.spec else {}
    for service in stack.of_kind("InferenceService"):
        model = models.get(service.name)
        load = model.runtime.load_seconds if model else None
        if load is None:
            continue
        for policy in policies_of(stack, service):
            times = [each.get("tolerationSeconds") for each in mappings(at(policy.body, "spec", "placement", "clusterTolerations"))]
            told = [each for each in times if isinstance(each, (int, float))]
            if told and min(told) < load:
                says = f"replicas are moved after {min(told):g} s, and the model takes {load} s to load"
                yield Finding(says=says, on=policy)
