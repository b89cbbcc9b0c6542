"""Placement: in which clusters a model runs, with which share, and what happens to its replicas when a cluster is lost.

Karmada does it, by policies on the hub. Routes of requests are mesh.py; what a replica looks like is serving.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.federation import overrides
from components.federation.hub_objects import hub_object
from planning.division import policy_weights
from specs import labels
from specs.failover import CapacityFailoverSpec
from specs.placement import PlacementSpec
from specs.propagation import INFERENCE_SERVICE

# Annotations by which Pulumi waits for an InferenceService on the hub. See `strip_pulumi_annotations`.
WAIT_FOR = "pulumi.com/waitFor"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"


def propagation_policy(model: str, spec: PlacementSpec, failover: CapacityFailoverSpec, owner: str | None = None) -> dict[str, Any]:
    """Divides the replicas of one model over its clusters, and moves them when a cluster is lost."""
    weights = [{"targetCluster": {"clusterNames": [name]}, "weight": weight} for name, weight in sorted(policy_weights(spec).items())]
    # Without this toleration Karmada evicts in the moment of the taint; without its seconds it never does.
    lost = {"key": labels.TAINT_LOST, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": spec.evict_after(failover)}
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "PropagationPolicy",
        # The owner here and not on the InferenceService: KServe copies its labels to the pods, and a new one would restart them.
        "metadata": labels.metadata(model, labels.NAMESPACE_MODELS, component="placement", model=model, extra={labels.LABEL_OWNER: owner} if owner else None),
        "spec": {
            "resourceSelectors": [{**INFERENCE_SERVICE.selector, "namespace": labels.NAMESPACE_MODELS, "name": model}],
            "propagateDeps": True,
            # A cluster that was unjoined while it was dead still holds its copy; on its return that copy is ours.
            "conflictResolution": "Overwrite",
            "placement": {
                "clusterAffinity": {"clusterNames": sorted(spec.weights)},
                "clusterTolerations": [lost],
                "replicaScheduling": {
                    "replicaSchedulingType": "Divided",
                    "replicaDivisionPreference": "Weighted",
                    "weightPreference": {"staticWeightList": weights},
                },
            },
            # Not `Directly`: Karmada 1.18 then waits until the lost cluster's Works are gone, and they stay while it is away.
            "failover": {"cluster": {"purgeMode": "Gracefully"}},
        },
    }


def override_policy(model: str, changes: overrides.Changes) -> dict[str, Any]:
    """Replaces fields of one model's InferenceService in some clusters."""
    metadata = labels.metadata(model, labels.NAMESPACE_MODELS, component="placement", model=model)
    return overrides.override_policy(metadata, {**INFERENCE_SERVICE.selector, "namespace": labels.NAMESPACE_MODELS, "name": model}, changes)


@dataclass(frozen=True, kw_only=True)
class PlacementArgs:
    model: str
    owner: str | None = None
    spec: PlacementSpec
    failover: CapacityFailoverSpec
    # Fields that differ by cluster; serving.py knows which.
    overrides: Mapping[str, Mapping[str, Any]]
    # The members above all. Karmada divides once for each version of a policy: a cluster that is named before it has
    # joined would get no replica of a model that runs already, not even later.
    requires: list[pulumi.Resource]


class Placement(pulumi.ComponentResource):
    """The places of one model. Its InferenceService must depend on `policies`.

    An object that comes before its override would start with the wrong GPUs and then roll every pod.
    """

    def __init__(self, name: str, args: PlacementArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:placement:Placement", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, depends_on=args.requires)
        self.policies: list[pulumi.Resource] = [hub_object(f"{name}-propagation", propagation_policy(args.model, args.spec, args.failover, args.owner), child)]
        if args.overrides:
            self.policies.append(hub_object(f"{name}-overrides", override_policy(args.model, args.overrides), child))
        self.register_outputs({})
