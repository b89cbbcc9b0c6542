"""Karmada's propagation as rules see it: which objects go to which clusters."""

from collections.abc import Callable

from policies.declared import Placed, Stack, at, closeness, mappings, number

_POLICIES = ("PropagationPolicy", "ClusterPropagationPolicy")


def policy_of(stack: Stack, target: Placed) -> Placed | None:
    """The propagation policy that an object follows. Of several that select it Karmada takes one: a namespace's own before a
    cluster's, then by `priority`, then the one that selects more closely, then by name."""
    found = [each for each in stack.of_kind(*_POLICIES) if closeness(each, target)]
    return min(
        found,
        key=lambda each: (_POLICIES.index(each.kind), -number(at(each.body, "spec", "priority")), -closeness(each, target), each.name),
        default=None,
    )


def clusters(stack: Stack, target: Placed) -> set[str]:
    """The members that get `target`, or may get it."""
    policy = policy_of(stack, target)
    return affected(stack, policy) if policy else set()


def affected(stack: Stack, policy: Placed) -> set[str]:
    """The members to which a propagation policy may send what it selects."""
    placement = at(policy.body, "spec", "placement")
    affinities = mappings(at(placement, "clusterAffinities")) or [at(placement, "clusterAffinity")]
    return {name for each in affinities for name in stack.reached(each)}


def members(stack: Stack) -> set[str]:
    return {each.name for each in stack.spec.clusters} if stack.spec else set()


def without(stack: Stack, holds: Callable[[Placed], bool], *kinds: str) -> list[str]:
    """The members that get no object of these kinds for which `holds` is true, each object as the member gets it."""
    having = {cluster for each in stack.of_kind(*kinds) for cluster in clusters(stack, each) & members(stack) if holds(stack.in_cluster(each, cluster))}
    return sorted(members(stack) - having)
