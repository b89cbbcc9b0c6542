"""What a local cluster should hold, kept beside it, so that a cluster that is down catches up when it starts again.

A change of a running cluster is applied at once; of one that is down it stays pending. Every change that was applied is kept
too: a start applies them all again, in the order in which they came first. The console script that Pulumi calls is
operations/driver.py.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from core.files import write_atomically
from local.host_cluster import HostCluster

Object = dict[str, Any]

# Noun on the command line → module with apply(spec) and delete(spec). Imported when called: a short command should not
# pay for what it does not use.
MODULES = {
    "cluster": "local.kubernetes",
    "gpu-pools": "local.gpu_nodes",
    "gateways": "local.gateways",
    "model-store": "local.model_store",
}
_CONTROL_PLANES = {"karmada": "local.karmada", "kserve": "local.kserve", "istio": "local.istio"}
CONTROL_PLANE = "control-plane"

SWITCHES = ("kill", "start", "freeze", "thaw", "stop")

_FOLDER = "desired"


def module_of(noun: str, spec: Object) -> Any:
    return importlib.import_module(_CONTROL_PLANES[spec["controlPlane"]] if noun == CONTROL_PLANE else MODULES[noun])


def _file(cluster: HostCluster, noun: str, spec: Object) -> Path:
    name = f"{noun}-{spec['controlPlane']}" if noun == CONTROL_PLANE else noun
    return cluster.dir / _FOLDER / f"{name}.json"


def _changes(cluster: HostCluster) -> list[Object]:
    """In the order in which they are applied: control planes first, gateways need istiod; then as they first came."""
    kept = [json.loads(path.read_text()) for path in sorted((cluster.dir / _FOLDER).glob("*.json"))]
    return sorted(kept, key=lambda change: (change["noun"] != CONTROL_PLANE, change["order"]))


def apply(noun: str, spec: Object) -> Object:
    """Applies it now, or keeps it for the cluster's return and answers with the last known result."""
    if noun == "cluster":
        return _apply_cluster(spec)
    cluster = HostCluster(spec["cluster"])
    if not cluster.exists():
        raise ValueError(f"{noun}: no such cluster on this machine, got: `{cluster.name}`")
    file = _file(cluster, noun, spec)
    file.parent.mkdir(exist_ok=True)
    known: Object = json.loads(file.read_text()) if file.exists() else {}
    # Two that come at the same time may get the same number: neither needs the other.
    order = known.get("order", 1 + max((change["order"] for change in _changes(cluster)), default=0))
    if not cluster.alive():
        result = known.get("result", {})
        print(f"skipped: cluster {cluster.name} is not running; it is applied on its return", file=sys.stderr)
    else:
        with cluster.locked():
            result = module_of(noun, spec).apply(spec)
    write_atomically(file, json.dumps({"noun": noun, "spec": spec, "result": result, "order": order}))
    return result


def _apply_cluster(spec: Object) -> Object:
    """Makes the cluster. One that was down runs again by it, so its pending changes are applied too."""
    cluster = HostCluster(spec["name"])
    returns = cluster.exists() and not cluster.alive()
    result = module_of("cluster", spec).apply(spec)
    if returns:
        _catch_up(cluster)
    return result


def delete(noun: str, spec: Object) -> Object:
    if noun == "cluster":
        return module_of(noun, spec).delete(spec)
    cluster = HostCluster(spec["cluster"])
    if not cluster.exists():
        return {}
    _file(cluster, noun, spec).unlink(missing_ok=True)
    if not cluster.alive():
        print(f"skipped: cluster {cluster.name} is not running; nothing of it can be removed now", file=sys.stderr)
        return {}
    with cluster.locked():
        return module_of(noun, spec).delete(spec)


def start(cluster: HostCluster) -> None:
    """Runs the cluster again and applies its pending changes. Its share of the replicas comes by the failback controller."""
    cluster.start()
    _catch_up(cluster)


def set_capacity(name: str, pool: str, capacity: str, *, available: bool) -> Object:
    """Simulates that a capacity type of a pool is unavailable, or available again. Its nodes follow."""
    cluster = HostCluster(name)
    file = cluster.dir / _FOLDER / "gpu-pools.json"
    if not file.exists():
        raise ValueError(f"gpu-pools: no such cluster with GPU pools on this machine, got: `{name}`")
    spec: Object = json.loads(file.read_text())["spec"]
    types = {each["name"]: each["capacityTypes"] for each in spec["pools"]}
    if capacity not in types.get(pool, ()):
        known = "; ".join(f"{each}: {', '.join(kinds)}" for each, kinds in types.items())
        raise ValueError(f"gpu-pools: no such pool and capacity type in {name}, got: `{pool} {capacity}`; it has: {known}")
    module_of("gpu-pools", spec).set_available(cluster, pool, capacity, available=available)
    return apply("gpu-pools", spec)


def _catch_up(cluster: HostCluster) -> None:
    for change in _changes(cluster):
        apply(change["noun"], change["spec"])


def switch(verb: str, name: str) -> None:
    """One of SWITCHES on the cluster as a whole. Raises ValueError for a cluster that is not on this machine."""
    cluster = HostCluster(name)
    if not cluster.exists():
        raise ValueError(f"cluster {verb}: no such cluster on this machine, got: `{name}`")
    if verb == "start":
        start(cluster)
    else:
        getattr(cluster, verb)()
