"""Every namespace that serves models denies traffic that nobody allowed, in and out.

Why: a pod that was taken over should reach neither other models nor the metadata service of its cloud; vLLM answers more on its
port than callers may ask.

Mend: the program denies by default in the namespace of its models. For pods that serve elsewhere, declare a NetworkPolicy with an
empty podSelector and both policyTypes there and let it go to every member; allow what is needed in policies of their own.
"""

from collections.abc import Iterator

from policies.declared import Placed, Resource, Stack, at, items
from policies.karmada import goes_everywhere
from policies.pods import pods
from policies.rule import Finding


def _denies(each: Placed) -> bool:
    spec = each.body.get("spec") or {}
    empty = not spec.get("podSelector") and not spec.get("ingress") and not spec.get("egress")
    return empty and {"Ingress", "Egress"} <= set(items(spec.get("policyTypes")))


def check(stack: Stack) -> Iterator[Finding]:
    denied = {each.namespace for each in stack.of_kind("NetworkPolicy") if _denies(each) and goes_everywhere(stack, each)}
    serving: dict[str, Resource | None] = {}
    for pod in pods(stack):
        if pod.serves:
            serving.setdefault(pod.owner.namespace or "default", pod.owner.resource)
    for namespace, serves in serving.items():
        if namespace not in denied:
            declared = next((each for each in stack.of_kind("Namespace") if at(each.body, "metadata", "name") == namespace), None)
            says = f"namespace `{namespace}` serves models, and no NetworkPolicy that denies by default goes to every member"
            yield Finding(says=says, made_by=declared.resource if declared else serves, about=namespace)
