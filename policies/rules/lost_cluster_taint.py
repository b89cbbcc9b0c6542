"""Where a placement waits for a taint to move replicas, a policy sets that taint and takes it off again.

Why: Karmada itself only keeps new work away from a lost cluster. Without a ClusterTaintPolicy nothing is ever moved; without its
second condition a cluster that came back stays excluded. The feature gate Failover, which both need, is opened by this program's
installer of Karmada; where Karmada is installed otherwise it cannot be seen from here.

Mend: declare a ClusterTaintPolicy with the key of the toleration, effect NoExecute, that is added when Ready is not True and
removed when it is; tolerate the taint for a time in every PropagationPolicy with `failover.cluster`.
"""

from collections.abc import Iterator

from policies.declared import Placed, Stack, at, items, mapping, mappings
from policies.rule import Finding

_EVICTS = "NoExecute"


def _on_ready(conditions: list[dict[str, object]], operator: str) -> bool:
    return any(each.get("conditionType") == "Ready" and each.get("operator") == operator and "True" in items(each.get("statusValues")) for each in conditions)


def _tainted(each: Placed) -> set[str]:
    """Keys that this policy both sets and removes."""
    spec = mapping(each.body.get("spec"))
    sets = _on_ready(mappings(spec.get("addOnConditions")), "NotIn")
    removes = _on_ready(mappings(spec.get("removeOnConditions")), "In")
    return {str(taint.get("key")) for taint in mappings(spec.get("taints")) if taint.get("effect") == _EVICTS} if sets and removes else set()


def check(stack: Stack) -> Iterator[Finding]:
    tainted = {key for each in stack.of_kind("ClusterTaintPolicy") for key in _tainted(each)}
    for each in stack.of_kind("PropagationPolicy", "ClusterPropagationPolicy"):
        tolerations = mappings(at(each.body, "spec", "placement", "clusterTolerations"))
        timed = [str(item.get("key")) for item in tolerations if item.get("tolerationSeconds") is not None and item.get("effect") in (None, _EVICTS)]
        for key in timed:
            if key not in tainted:
                says = f"waits for the taint `{key}`, and no ClusterTaintPolicy sets it when Ready is not True and removes it when it is"
                yield Finding(says=says, on=each)
        if at(each.body, "spec", "failover", "cluster") is not None and not timed:
            yield Finding(says="has `failover.cluster`, and tolerates no taint for a time: replicas move at once, or never", on=each)
