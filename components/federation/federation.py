"""Federation-wide policies on the hub: what every member holds, and what happens to a lost cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components.federation.hub_objects import hub_object
from components.federation.interpreter import resource_interpreter
from components.federation.placement import TIMEOUT_SECONDS, WAIT_FOR
from specs import labels, propagation
from specs.propagation import INFERENCE_SERVICE, NAMESPACE, NAMESPACES

# Karmada's own taints on a cluster that does not answer. They keep new work away and move nothing.
KARMADA_TAINTS = ("cluster.karmada.io/not-ready", "cluster.karmada.io/unreachable")


def strip_pulumi_annotations() -> dict[str, Any]:
    """Keeps Pulumi's annotations on the hub.

    KServe copies every annotation of an InferenceService to its pods: without this, a longer timeout would restart the
    GPU pods of a model in all regions at once.
    """
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterOverridePolicy",
        "metadata": labels.metadata("pulumi-annotations", component="placement"),
        "spec": {
            "resourceSelectors": [INFERENCE_SERVICE.selector],
            # Karmada's API wants a value even for a removal, and ignores it.
            "overrideRules": [{"overriders": {"annotationsOverrider": [{"operator": "remove", "value": {WAIT_FOR: "", TIMEOUT_SECONDS: ""}}]}}],
        },
    }


def namespaces_policy(clusters: Sequence[str]) -> dict[str, Any]:
    """Sends the fleet's namespaces to every member, and leaves them there when a member goes.

    Karmada's own copying of namespaces is off for these (labels.SKIP_AUTO_PROPAGATION): it refuses a namespace that the
    member already has, and deletes one that it made, with all that is in it, when the member is unjoined.
    """
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterPropagationPolicy",
        "metadata": labels.metadata("namespaces", component="placement"),
        "spec": {
            "resourceSelectors": [{**NAMESPACE.selector, "name": name} for name in NAMESPACES],
            "conflictResolution": "Overwrite",
            "preserveResourcesOnDeletion": True,
            "placement": _everywhere(clusters),
        },
    }


def _everywhere(clusters: Sequence[str]) -> dict[str, Any]:
    # What every member holds stays on a lost one: it may be cut off from the hub only, and serve. A drained one gets what is new,
    # or it would lack the routes of a model that was added meanwhile.
    tolerations = [{"key": key, "operator": "Exists"} for key in (*KARMADA_TAINTS, labels.TAINT_LOST, labels.TAINT_CORDONED)]
    return {
        "clusterAffinity": {"clusterNames": sorted(clusters)},
        "clusterTolerations": tolerations,
        "replicaScheduling": {"replicaSchedulingType": "Duplicated"},
    }


def cluster_taint_policy() -> dict[str, Any]:
    """Taints a cluster that is lost, so that its models are evicted; takes the taint off when it is back.

    Karmada by itself only keeps new work away from such a cluster. Without the second condition a healed cluster would
    stay excluded for ever.
    """
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterTaintPolicy",
        "metadata": labels.metadata("cluster-lost", component="placement"),
        "spec": {
            "addOnConditions": [{"conditionType": "Ready", "operator": "NotIn", "statusValues": ["True"]}],
            "removeOnConditions": [{"conditionType": "Ready", "operator": "In", "statusValues": ["True"]}],
            "taints": [{"key": labels.TAINT_LOST, "effect": "NoExecute"}],
        },
    }


def shared_policy(clusters: Sequence[str]) -> dict[str, Any]:
    """Copies what is labelled LABEL_PROPAGATE to every member, one that is away included: it catches up on its return."""
    selector = {"matchLabels": {labels.LABEL_PROPAGATE: labels.PROPAGATE_ALL}}
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterPropagationPolicy",
        "metadata": labels.metadata("shared", component="placement"),
        "spec": {
            "resourceSelectors": [{**each.selector, "labelSelector": selector} for each in propagation.sent("shared")],
            "conflictResolution": "Overwrite",
            "placement": _everywhere(clusters),
        },
    }


@dataclass(frozen=True, kw_only=True)
class FederationArgs:
    # Members, sorted: the policies must not change with the order of the stack file.
    clusters: Sequence[str]
    # What must stand before a model can run in them.
    members: list[pulumi.Resource]


class Federation(pulumi.ComponentResource):
    """What Karmada must know before the first model comes: one set of policies for the whole fleet.

    Models depend on `rules`, and through them on every member: one edge for each model and each member would make the
    graph grow with their product.
    """

    def __init__(self, name: str, args: FederationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:placement:Federation", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.interpreter = hub_object(f"{name}-interpreter", resource_interpreter(), child)
        self.annotations = hub_object(f"{name}-annotations", strip_pulumi_annotations(), child)
        self.taints = hub_object(f"{name}-taints", cluster_taint_policy(), child)
        joined = pulumi.ResourceOptions(parent=self, depends_on=args.members)
        self.namespaces = hub_object(f"{name}-namespaces", namespaces_policy(args.clusters), joined)
        self.shared = hub_object(f"{name}-shared", shared_policy(args.clusters), joined)
        self.rules: list[pulumi.Resource] = [self.interpreter, self.annotations, self.taints, self.namespaces, self.shared]
        self.register_outputs({})
