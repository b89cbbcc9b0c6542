"""Every namespace that serves models denies traffic that nobody allowed, in and out.

Why: a pod that was taken over should reach neither other models nor the metadata service of its cloud; vLLM answers more on its
port than callers may ask.

Fix: the program denies by default in the namespace of its models. For pods that serve elsewhere, declare a NetworkPolicy with an
empty podSelector and both policyTypes there and let it go to every member; allow what is needed in policies of their own.
"""

from collections.abc import Iterator

from policies.declared import Placed, Resource, Stack, at, items, mapping, text
from policies.karmada import without
from policies.pods import pods
from policies.rule import Finding


def _denies(each: Placed) -> bool:
    spec = mapping(each.body.get("spec"))
    empty = not spec.get("podSelector") and not spec.get("ingress") and not spec.get("egress")
    return empty and {"Ingress", "Egress"} <= {text(way) for way in items(spec.get("policyTypes"))}


def check(stack: Stack) -> Iterator[Finding]:
    serving: dict[str, Resource | None] = {}
    for pod in pods(stack):
        if pod.serves:
            serving.setdefault(pod.owner.namespace or "default", pod.owner.resource)
    for namespace, serves in serving.items():
        open_in = without(stack, lambda each, namespace=namespace: each.namespace == namespace and _denies(each), "NetworkPolicy")
        if open_in:
            declared = next((each for each in stack.of_kind("Namespace") if at(each.body, "metadata", "name") == namespace), None)
            says = f"namespace `{namespace}` serves models, and no NetworkPolicy denies by default there in {', '.join(open_in)}"
            yield Finding(says=says, made_by=declared.resource if declared else serves, about=namespace)
