"""Label keys, namespaces and fixed names that more than one module uses. Each says who writes and who reads it."""

from collections.abc import Mapping
from typing import Any

PREFIX = "inference-fleet.dev/"

# Which model an object belongs to. Written here, read by status and dashboards.
LABEL_MODEL = PREFIX + "model"
# Team that answers for a model. Written on its PropagationPolicy, read by policies and people.
LABEL_OWNER = PREFIX + "owner"
# GPU type of a node, or `cpu`. Written on nodes by the cluster driver, read by the nodeSelector of every model.
LABEL_ACCELERATOR = PREFIX + "accelerator"
# GPU pool of a node. Written on nodes by the cluster driver, read by people.
LABEL_POOL = PREFIX + "pool"
# reserved, spot or on-demand. Written on nodes by the cluster driver, read by people.
LABEL_CAPACITY_TYPE = PREFIX + "capacity-type"
# `all`: placement.py propagates the object from the hub to every member.
LABEL_PROPAGATE = PREFIX + "propagate"
PROPAGATE_ALL = "all"
# Read by Karmada's namespace controller: placement.py sends these namespaces to the members, and keeps them there.
SKIP_AUTO_PROPAGATION = "namespace.karmada.io/skip-auto-propagation"
# Which door a route belongs to. Written by mesh.py, read by its override policy, which names the cluster in answers.
LABEL_DOOR = PREFIX + "door"
# `true` on an InferenceService whose pods fetch their weights themselves; KServe copies it to them. Written by serving.py, read
# by network_policies.py, which lets them reach the store.
LABEL_FETCHES = PREFIX + "fetches"
# What the object does for the fleet: serving, placement, mesh. For people.
LABEL_COMPONENT = "app.kubernetes.io/component"
# For people and dashboards: everything this program declares.
LABEL_PART_OF = "app.kubernetes.io/part-of"
PART_OF = "inference-fleet"

# The taint that evicts models from a lost cluster. Written by Karmada through our ClusterTaintPolicy, read by tolerations.
TAINT_LOST = PREFIX + "cluster-lost"
# Karmada's own name for it: no new replicas. Written by `fleet drain` and `karmadactl cordon`, read by Karmada's scheduler and the
# failback controller.
TAINT_CORDONED = "cluster.karmada.io/unschedulable"

# InferenceServices, the model store and the routes of models.
NAMESPACE_MODELS = "models"
# KServe puts it on the pods of a model; network policies and drills select by it.
LABEL_PODS_OF_MODEL = "serving.kserve.io/inferenceservice"
# Gateway objects and, where they run in pods, the gateways.
NAMESPACE_INGRESS = "istio-ingress"

# The runtimes that serving.py declares, by which KServe starts vLLM.
RUNTIME_GPU = "vllm"
RUNTIME_CPU = "vllm-cpu"

# PVC of the models on a member, seeded by the cluster driver; `pvc://model-store/<directory>` names a model in it.
MODEL_STORE = "model-store"


def metadata(
    name: str,
    namespace: str | None = None,
    *,
    component: str,
    model: str | None = None,
    propagate: bool = False,
    extra: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`metadata` of an object on the hub. `propagate`: every member shall hold it too."""
    labels = {
        LABEL_PART_OF: PART_OF,
        LABEL_COMPONENT: component,
        **({LABEL_MODEL: model} if model else {}),
        **({LABEL_PROPAGATE: PROPAGATE_ALL} if propagate else {}),
        **(extra or {}),
    }
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": labels,
        **({"annotations": dict(annotations)} if annotations else {}),
    }
