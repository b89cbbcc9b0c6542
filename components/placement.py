"""Placement: in which clusters a model runs, with which share, and what happens to its replicas when a cluster is lost.

Karmada does it, by policies on the hub. Routes of requests are mesh.py; what a replica looks like is serving.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pulumi
from pydantic import Field

from components import labels, overrides
from components.clusters import ClusterName, Jurisdiction, LatencyClass
from components.failover import CapacityFailoverSpec
from components.gpu_pools import AcceleratorSpec, GpuType
from components.hub_objects import hub_object
from components.spec import Spec
from planning.division import divide, tie_free

INFERENCE_SERVICE = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}

# What every member holds alike, found by LABEL_PROPAGATE.
SHARED_KINDS = (
    ("v1", "ConfigMap"),
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"),
    ("networking.istio.io/v1", "Gateway"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)

# Annotations by which Pulumi waits for an InferenceService on the hub. See `strip_pulumi_annotations`.
WAIT_FOR = "pulumi.com/waitFor"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"

# Karmada's own taints on a cluster that does not answer. They keep new work away and move nothing.
KARMADA_TAINTS = ("cluster.karmada.io/not-ready", "cluster.karmada.io/unreachable")

# Which script answers which question of Karmada about an InferenceService.
_INTERPRETER = {
    "replicaResource": "get_replicas",
    "replicaRevision": "revise_replica",
    "retention": "retain",
    "statusReflection": "reflect_status",
    "statusAggregation": "aggregate_status",
    "healthInterpretation": "interpret_health",
    "dependencyInterpretation": "get_dependencies",
}


class PlacementClusterSpec(Spec):
    """One cluster that serves a model."""

    name: ClusterName
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Share of the replicas, relative to the other clusters of the model."""
    accelerator: AcceleratorSpec | None = None
    """GPU type and count here, where they differ from the model's own."""


class PlacementBase(Spec):
    """Where a model may run, and what of it must be left after a loss."""

    jurisdictions: tuple[Jurisdiction, ...] = ()
    """Where the model may run at all; empty for anywhere. A cluster outside is an error, not a silent omission."""
    latency_class: LatencyClass | None = None
    """The farthest from callers that its clusters may be: `interactive` admits interactive clusters alone, `standard` those and
    standard ones. Left out, or `batch`: any."""
    accelerators: tuple[GpuType, ...] = ()
    """GPU types that it may run on; empty for any."""
    gpu_memory_gib: Annotated[Annotated[float, Field(gt=0)] | None, Field(alias="gpuMemoryGiB")] = None
    """The least memory of a GPU that it may run on."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that its clusters must have, e.g. `compliance: hipaa`."""
    dollars_per_gpu_hour: Annotated[float, Field(gt=0)] | None = None
    """The most that a GPU of it may cost, by the prices of the plan."""
    minimum_clusters: Annotated[int, Field(ge=1)] = 2
    """Clusters that must hold a replica, in two regions or more if it is above 1: the partner for a failover.
    1 accepts that the model is away while its region is."""
    standby: Literal["hot", "warm", "cold"] | None = None
    """What is ready for the loss of a region. `hot`: replicas that run elsewhere answer the whole load. `warm`: nodes that run
    have room for the lost replicas. `cold`: an autoscaler may add nodes until they have. Only the planner's choice follows it."""
    failover_order: tuple[ClusterName, ...] = ()
    """Where requests go when the region of a front door cannot serve them, one after another. Clusters left out follow in the
    order of `clusters`."""
    evict_after_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a lost cluster keeps the replicas of this model, instead of `failover.capacity.evictAfterSeconds`. A model that
    takes minutes to load should wait longer than a small one."""

    def evict_after(self, failover: CapacityFailoverSpec) -> int:
        """How long a lost cluster keeps the replicas, in seconds."""
        return failover.evict_after_seconds if self.evict_after_seconds is None else self.evict_after_seconds


class PlacementEntry(PlacementBase):
    """Which clusters may and do serve a model, as a stack file has it."""

    clusters: tuple[PlacementClusterSpec, ...] = ()
    """Left out: the cheapest of those where it may run, with the weights that divide its replicas best."""


class PlacementSpec(PlacementBase):
    """Which clusters may and do serve a model."""

    clusters: tuple[PlacementClusterSpec, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """Every cluster of the placement, in failover order."""
        weights = self.weights
        return tuple(dict.fromkeys(name for name in (*self.failover_order, *weights) if name in weights))

    @property
    def weights(self) -> dict[str, int]:
        return {each.name: each.weight for each in self.clusters}


def policy_weights(spec: PlacementSpec) -> dict[str, int]:
    """The weights that Karmada gets: those of the stack file, stretched so that they never tie. Karmada breaks ties by a hash."""
    weights = spec.weights
    return tie_free({name: weights[name] for name in spec.order})


def division(spec: PlacementSpec, replicas: int) -> dict[str, int]:
    """Replicas of each cluster while all are well, in the order of the stack file."""
    divided = divide(replicas, policy_weights(spec))
    return {each.name: divided[each.name] for each in spec.clusters}


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
            "resourceSelectors": [{**INFERENCE_SERVICE, "namespace": labels.NAMESPACE_MODELS, "name": model}],
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
            "failover": {"cluster": {"purgeMode": failover.purge}},
        },
    }


def override_policy(model: str, changes: overrides.Changes) -> dict[str, Any]:
    """Replaces fields of one model's InferenceService in some clusters."""
    metadata = labels.metadata(model, labels.NAMESPACE_MODELS, component="placement", model=model)
    return overrides.override_policy(metadata, {**INFERENCE_SERVICE, "namespace": labels.NAMESPACE_MODELS, "name": model}, changes)


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
            "resourceSelectors": [INFERENCE_SERVICE],
            # Karmada's API wants a value even for a removal, and ignores it.
            "overrideRules": [{"overriders": {"annotationsOverrider": [{"operator": "remove", "value": {WAIT_FOR: "", TIMEOUT_SECONDS: ""}}]}}],
        },
    }


def namespaces_policy(clusters: Sequence[str], namespaces: Sequence[str]) -> dict[str, Any]:
    """Sends the fleet's namespaces to every member, and leaves them there when a member goes.

    Karmada's own copying of namespaces is off for these (labels.SKIP_AUTO_PROPAGATION): it refuses a namespace that the
    member already has, and deletes one that it made, with all that is in it, when the member is unjoined.
    """
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterPropagationPolicy",
        "metadata": labels.metadata("namespaces", component="placement"),
        "spec": {
            "resourceSelectors": [{"apiVersion": "v1", "kind": "Namespace", "name": name} for name in namespaces],
            "conflictResolution": "Overwrite",
            "preserveResourcesOnDeletion": True,
            "placement": _everywhere(clusters),
        },
    }


def _everywhere(clusters: Sequence[str]) -> dict[str, Any]:
    # What every member holds stays on a lost one: it may be cut off from the hub only, and serve.
    tolerations = [{"key": key, "operator": "Exists"} for key in (*KARMADA_TAINTS, labels.TAINT_LOST)]
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
            "resourceSelectors": [{"apiVersion": api, "kind": kind, "labelSelector": selector} for api, kind in SHARED_KINDS],
            "conflictResolution": "Overwrite",
            "placement": _everywhere(clusters),
        },
    }


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def resource_interpreter() -> dict[str, Any]:
    """Teaches Karmada what an InferenceService is.

    Without it weights are ignored (every cluster gets the whole object), the hub shows no status, and a graceful eviction
    removes the old copy before the new one has loaded its model.
    """
    return {
        "apiVersion": "config.karmada.io/v1alpha1",
        "kind": "ResourceInterpreterCustomization",
        "metadata": labels.metadata("inference-service", component="placement"),
        "spec": {
            "target": INFERENCE_SERVICE,
            "customizations": {rule: {"luaScript": _script(script)} for rule, script in _INTERPRETER.items()},
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
        namespaces = (labels.NAMESPACE_MODELS, labels.NAMESPACE_INGRESS)
        self.namespaces = hub_object(f"{name}-namespaces", namespaces_policy(args.clusters, namespaces), joined)
        self.shared = hub_object(f"{name}-shared", shared_policy(args.clusters), joined)
        self.rules: list[pulumi.Resource] = [self.interpreter, self.annotations, self.taints, self.namespaces, self.shared]
        self.register_outputs({})


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
