"""Karmada's plaintext overrides: what differs between clusters in an object that is declared once on the hub.

An override is given as {cluster: {JSON pointer: value}}. The pointer must lead to a field that the object has: Karmada
fails a copy whose pointer leads nowhere.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

Changes = Mapping[str, Mapping[str, Any]]


def override_policy(metadata: Mapping[str, Any], selector: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Changes what `selector` selects: an OverridePolicy where `metadata` has a namespace, else a ClusterOverridePolicy."""
    rules = [
        {
            "targetCluster": {"clusterNames": [cluster]},
            "overriders": {"plaintext": [{"path": path, "operator": "replace", "value": value} for path, value in fields.items()]},
        }
        for cluster, fields in sorted(changes.items())
    ]
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "OverridePolicy" if "namespace" in metadata else "ClusterOverridePolicy",
        "metadata": metadata,
        "spec": {"resourceSelectors": [selector], "overrideRules": rules},
    }


def overridden(target: Mapping[str, Any], policies: Sequence[Mapping[str, Any]], cluster: str) -> dict[str, Any]:
    """The object as `cluster` gets it: every rule of `policies` that names the cluster is applied, as Karmada does it.

    Raises KeyError or IndexError where a pointer leads nowhere.
    """
    changed = copy.deepcopy(dict(target))
    for policy in policies:
        if any(_selects(each, target) for each in policy["spec"]["resourceSelectors"]):
            for rule in policy["spec"]["overrideRules"]:
                if cluster in rule["targetCluster"]["clusterNames"]:
                    for each in rule["overriders"]["plaintext"]:
                        _replace(changed, each["path"], each["value"])
    return changed


def _selects(selector: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    metadata = target["metadata"]
    if (selector["apiVersion"], selector["kind"]) != (target["apiVersion"], target["kind"]):
        return False
    if any(selector.get(key, metadata.get(key)) != metadata.get(key) for key in ("name", "namespace")):
        return False
    wanted: Mapping[str, str] = selector.get("labelSelector", {}).get("matchLabels", {})
    return wanted.items() <= metadata["labels"].items()


def _replace(holder: Any, pointer: str, value: Any) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/")]
    for part in way:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    if isinstance(holder, list):
        holder[int(last)] = value
    elif last in holder:
        holder[last] = value
    else:
        raise KeyError(pointer)
