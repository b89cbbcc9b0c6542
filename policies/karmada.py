"""Karmada's propagation as rules see it: which objects go to which clusters."""

from policies.declared import Object, Placed, Stack, at, items, mapping, mappings, text

_POLICIES = ("PropagationPolicy", "ClusterPropagationPolicy")


def policies_of(stack: Stack, target: Placed) -> list[Placed]:
    """The propagation policies that select `target`."""
    return [
        each for each in stack.of_kind(*_POLICIES) if any(_selects(each, selector, target) for selector in mappings(at(each.body, "spec", "resourceSelectors")))
    ]


def _selects(policy: Placed, selector: Object, target: Placed) -> bool:
    if (selector.get("apiVersion"), selector.get("kind")) != (target.body.get("apiVersion"), target.kind):
        return False
    namespace = policy.namespace if policy.kind == "PropagationPolicy" else selector.get("namespace")
    if namespace and namespace != target.namespace:
        return False
    if selector.get("name"):
        return selector["name"] == target.name
    labels = mapping(at(target.body, "metadata", "labels"))
    return mapping(at(selector, "labelSelector", "matchLabels")).items() <= labels.items()


def clusters(stack: Stack, target: Placed) -> set[str]:
    """The members that get `target`."""
    return {text(name) for policy in policies_of(stack, target) for name in items(at(policy.body, "spec", "placement", "clusterAffinity", "clusterNames"))}


def members(stack: Stack) -> set[str]:
    return {each.name for each in stack.spec.clusters} if stack.spec else set()


def goes_everywhere(stack: Stack, target: Placed) -> bool:
    """Whether every member gets `target`. A policy without names of clusters is taken to mean all."""
    found = policies_of(stack, target)
    everywhere = any(not items(at(each.body, "spec", "placement", "clusterAffinity", "clusterNames")) for each in found)
    return everywhere or (bool(found) and members(stack) <= clusters(stack, target))
