"""The model store of a local cluster: a folder of this machine as PersistentVolume and claim, seeded with tiny-chat.

All clusters share the folder STATE/models, read-only by habit: it stands for what a region's own storage would be.
`pvc://model-store/<directory>` in a stack file names a model in it. The same model is in the region's registry, as an artifact that
`oci://registry.fleet.internal/models/tiny-chat@<digest>` names (registry.py).
"""

from typing import Any

from kube.client import ApiError, Kube
from local import registry, tiny_model
from local.host_cluster import HostCluster
from specs.labels import MODEL_STORE, NAMESPACE_MODELS, metadata
from toolchain import paths

Object = dict[str, Any]

_SIZE = "100Gi"
_BOUND_S = 60.0


def volume(path: str) -> Object:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": MODEL_STORE, "namespace": NAMESPACE_MODELS}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata(MODEL_STORE, component="models"),
        "spec": {
            "capacity": {"storage": _SIZE},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            # No class: it is bound by name on both sides and never provisioned.
            "storageClassName": "",
            "hostPath": {"path": path, "type": "Directory"},
            "claimRef": claim,
        },
    }


def claim() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(MODEL_STORE, NAMESPACE_MODELS, component="models"),
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": _SIZE}},
            "storageClassName": "",
            "volumeName": MODEL_STORE,
        },
    }


def apply(spec: Object) -> Object:
    """Store and registry are there; result {models}: the folders in the store."""
    cluster = HostCluster(spec["cluster"])
    folder = paths.STATE.resolve() / "models"
    tiny_model.write(folder / tiny_model.NAME)
    registry.apply(cluster)
    registry.put(cluster, folder / tiny_model.NAME)
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        if api.find("v1", "Namespace", NAMESPACE_MODELS) is None:
            _make_namespace(api)
        _release(api)
        api.apply(volume(str(folder)))
        api.apply(claim())
        api.wait(
            lambda: _bound(api),
            _BOUND_S,
            f"claim {NAMESPACE_MODELS}/{MODEL_STORE} on {cluster.name} to be bound (log: {cluster.dir / 'logs' / 'kube-controller-manager.log'})",
        )
    return {"models": sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))}


def _make_namespace(api: Kube) -> None:
    try:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE_MODELS}})
    except ApiError as error:
        # Karmada, which sends the namespace from the hub, was first.
        if error.status != 409:
            raise


def _bound(api: Kube) -> bool:
    found = api.get("v1", "PersistentVolumeClaim", MODEL_STORE, NAMESPACE_MODELS)
    return (found.get("status") or {}).get("phase") == "Bound"


def _release(api: Kube) -> None:
    """A volume whose claim was deleted still names that claim's uid, and would take no other."""
    found = api.find("v1", "PersistentVolume", MODEL_STORE)
    if found is not None and (found.get("status") or {}).get("phase") == "Released":
        api.patch("v1", "PersistentVolume", MODEL_STORE, {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}})


def delete(spec: Object) -> Object:
    """Removes claim, volume and registry; the folder stays, other clusters use it."""
    cluster = HostCluster(spec["cluster"])
    if cluster.exists():
        registry.delete(cluster)
        with Kube.from_kubeconfig(cluster.kubeconfig) as api:
            api.delete("v1", "PersistentVolumeClaim", MODEL_STORE, NAMESPACE_MODELS)
            api.delete("v1", "PersistentVolume", MODEL_STORE)
    return {}
