"""Where a placement waits for a taint to move replicas, a policy sets that taint and takes it off again.

Why: Karmada itself only keeps new work away from a lost cluster. Without a ClusterTaintPolicy nothing is ever moved; without its
second condition a cluster that came back stays excluded. The feature gate Failover, which both need, is opened by this program's
installer of Karmada; where Karmada is installed otherwise it cannot be seen from here.

Fix: declare a ClusterTaintPolicy with the key of the toleration, effect NoExecute, that is added when Ready is not True and
removed when it is; tolerate the taint for a time in every PropagationPolicy with `failover.cluster`.
"""

from collections.abc import Iterator

from policies.declared import Object, Placed, Stack, at, items, mappings, text
from policies.karmada import affected
from policies.rule import Finding

_EVICTS = "NoExecute"
_LOST, _WELL = {"False", "Unknown"}, {"True"}


def _statuses(conditions: list[Object]) -> set[str]:
    """What Ready has to be for all of the conditions to hold; nothing where they ask for more than Ready."""
    met = _LOST | _WELL
    for each in conditions:
        values = {text(value) for value in items(each.get("statusValues"))}
        met &= values if each.get("operator") == "In" else met - values
    return met if conditions and all(each.get("conditionType") == "Ready" for each in conditions) else set()


def _tainted(stack: Stack) -> Iterator[tuple[Object, set[str]]]:
    """Taints that a policy sets on every lost cluster and takes off every other, each with the clusters that the policy is for."""
    for each in stack.of_kind("ClusterTaintPolicy"):
        sets, removes = (_statuses(mappings(at(each.body, "spec", field))) for field in ("addOnConditions", "removeOnConditions"))
        if sets == _LOST and removes == _WELL:
            reached = set(stack.reached(at(each.body, "spec", "targetClusters")))
            yield from ((taint, reached) for taint in mappings(at(each.body, "spec", "taints")) if taint.get("effect") == _EVICTS)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return (toleration.get("key"), toleration.get("value") or "") == (taint.get("key"), taint.get("value") or "")


def check(stack: Stack) -> Iterator[Finding]:
    taints = list(_tainted(stack))
    for each in stack.of_kind("PropagationPolicy", "ClusterPropagationPolicy"):
        tolerations = mappings(at(each.body, "spec", "placement", "clusterTolerations"))
        timed = [item for item in tolerations if item.get("tolerationSeconds") is not None and item.get("effect") in (None, "", _EVICTS)]
        for toleration in timed:
            reached = [name for taint, names in taints if _tolerates(toleration, taint) for name in names]
            if not reached or affected(stack, each) - set(reached):
                key = text(toleration.get("key")) or "any"
                says = f"waits for the taint `{key}`, and no ClusterTaintPolicy sets it when Ready is not True and removes it when it is"
                yield Finding(says=says + _where(stack, each, reached), on=each)
        if at(each.body, "spec", "failover", "cluster") is not None and not timed:
            yield Finding(says="has `failover.cluster`, and tolerates no taint for a time: replicas move at once, or never", on=each)


def _where(stack: Stack, policy: Placed, reached: list[str]) -> str:
    return f" in `{'`, `'.join(sorted(affected(stack, policy) - set(reached)))}`" if reached else ""
