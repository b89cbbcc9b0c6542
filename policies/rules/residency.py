"""What a jurisdiction governs stays in it: replicas, requests and weights.

Why: a placement within the law is worth nothing when the mesh sends requests out of it, or weights come from outside. Front doors
are not judged: which one a caller uses is the caller's choice.

Fix: keep placement and routes of the model to clusters of its `placement.jurisdictions`; name the law of its store under
`storage` of the environment in policies/environments.yaml, or move the weights.
"""

from collections.abc import Iterator

from components.mesh.regions import FLEET_HOST
from policies.declared import Placed, Stack, at, items, mappings, text
from policies.istio import covers
from policies.karmada import clusters
from policies.rule import Finding
from specs import labels
from specs.models import ModelSpec


def check(stack: Stack) -> Iterator[Finding]:
    if stack.spec is None:
        return
    services = {each.name: each for each in stack.of_kind("InferenceService") if each.namespace == labels.NAMESPACE_MODELS}
    for model in stack.spec.models:
        if model.placement.jurisdictions and model.name in services:
            yield from _model(stack, model, services[model.name])


def _model(stack: Stack, model: ModelSpec, service: Placed) -> Iterator[Finding]:
    allowed = model.placement.jurisdictions
    told = ", ".join(allowed)
    members = stack.spec.clusters if stack.spec else ()
    outside = {each.name for each in members if each.jurisdiction not in allowed}
    for name in sorted(clusters(stack, service) & outside):
        yield Finding(says=f"is placed in cluster `{name}`, which is outside of {told}", on=service)
    inside = {each.region for each in members if each.jurisdiction in allowed}
    for entry in stack.placed("ServiceEntry"):
        if any(covers(text(host), FLEET_HOST.format(model=model.name)) for host in items(at(entry.body, "spec", "hosts"))):
            regions = dict.fromkeys(text(each.get("locality")).split("/")[0] for each in mappings(at(entry.body, "spec", "endpoints")))
            for region in regions:
                if region not in inside:
                    where = f"region `{region}`, which is outside of {told}" if region else "an endpoint that tells no locality"
                    yield Finding(says=f"sends requests of model `{model.name}` to {where}", on=entry)
    # A claim lies in the cluster that mounts it.
    if model.source.startswith("pvc://"):
        return
    law = _law_of(stack, model.source)
    if law is None:
        yield Finding(says=f"nobody has said which law governs its store, got: `{model.source}`", on=service)
    elif law not in allowed:
        yield Finding(says=f"its store is in {law}, outside of {told}, got: `{model.source}`", on=service)


def _law_of(stack: Stack, source: str) -> str | None:
    known = sorted((prefix for prefix in stack.settings.storage if source.startswith(prefix)), key=len)
    return stack.settings.storage[known[-1]] if known else None
