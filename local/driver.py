"""`fleet-driver`: what the Pulumi program calls to change a local cluster, or to join any cluster to the hub.

JSON on stdin, JSON as the only stdout, progress and errors on stderr. Every call can be repeated. What is wanted of a
cluster that is down is written to its wishes/ folder and done when the cluster starts again.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from core.errors import FleetError
from core.files import write_atomically
from kube.client import KubeError
from kube.kubeconfig import KubeconfigError
from local import rebalance
from local.host_cluster import HostCluster, PortError, UnitError
from toolchain.tools import ToolError

Object = dict[str, Any]
Handler = Callable[[Object], Object]

# Noun on the command line → module with apply(spec) and delete(spec). Imported when called: a short command should not
# pay for what it does not use.
_MODULES = {
    "cluster": "local.kubernetes",
    "gpu-pools": "local.gpu_nodes",
    "gateways": "local.gateways",
    "model-store": "local.model_store",
    "member": "local.membership",
}
_CONTROL_PLANES = {"karmada": "local.karmada", "kserve": "local.kserve", "istio": "local.istio"}
# `member` talks to any cluster by its kubeconfig; it knows by itself what to do about a dead one.
_WAITING = ("gpu-pools", "gateways", "model-store", "control-plane")
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_SWITCHES = ("kill", "start", "freeze", "thaw", "stop")

USAGE = f"""usage: fleet-driver NOUN apply|delete < SPEC.json     NOUN: {", ".join([*_MODULES, "control-plane"])}
       fleet-driver member join|unjoin < SPEC.json
       fleet-driver cluster {"|".join(_SWITCHES)} NAME
       fleet-driver gpu-pools unavailable|available CLUSTER POOL CAPACITY_TYPE"""


def _module(noun: str, spec: Object) -> Any:
    return importlib.import_module(_CONTROL_PLANES[spec["controlPlane"]] if noun == "control-plane" else _MODULES[noun])


def _wish(noun: str, spec: Object) -> str:
    return f"{noun}-{spec['controlPlane']}" if noun == "control-plane" else noun


def apply(noun: str, spec: Object) -> Object:
    """Does it now, or notes it for the cluster's return."""
    if noun == "cluster":
        return _apply_cluster(spec)
    if noun not in _WAITING:
        return _module(noun, spec).apply(spec)
    cluster = HostCluster(spec["cluster"])
    if not cluster.exists():
        raise ValueError(f"{noun}: no such cluster on this machine, got: `{cluster.name}`")
    wish = cluster.dir / "wishes" / f"{_wish(noun, spec)}.json"
    wish.parent.mkdir(exist_ok=True)
    known: Object = json.loads(wish.read_text()) if wish.exists() else {}
    if not cluster.alive():
        write_atomically(wish, json.dumps({"noun": noun, "spec": spec, "result": known.get("result", {})}))
        print(f"skipped: cluster {cluster.name} is not running; it is applied on its return", file=sys.stderr)
        return known.get("result", {})
    with cluster.locked():
        result = _module(noun, spec).apply(spec)
    write_atomically(wish, json.dumps({"noun": noun, "spec": spec, "result": result}))
    return result


def _apply_cluster(spec: Object) -> Object:
    """Makes the cluster. One that was down runs again by it, so what was wanted of it meanwhile is done too."""
    cluster = HostCluster(spec["name"])
    returns = cluster.exists() and not cluster.alive()
    result = _module("cluster", spec).apply(spec)
    if returns:
        _catch_up(cluster)
    return result


def delete(noun: str, spec: Object) -> Object:
    if noun not in _WAITING:
        return _module(noun, spec).delete(spec)
    cluster = HostCluster(spec["cluster"])
    if not cluster.exists():
        return {}
    (cluster.dir / "wishes" / f"{_wish(noun, spec)}.json").unlink(missing_ok=True)
    if not cluster.alive():
        print(f"skipped: cluster {cluster.name} is not running; nothing of it can be removed now", file=sys.stderr)
        return {}
    with cluster.locked():
        return _module(noun, spec).delete(spec)


def start(cluster: HostCluster) -> None:
    """Runs the cluster again, does what was wanted of it meanwhile, and gives it its share of the replicas."""
    cluster.start()
    _catch_up(cluster)
    if cluster.describe()["role"] == "member":
        for model in rebalance.refill(cluster.name):
            print(f"{model}: divided afresh, {cluster.name} is back", file=sys.stderr)


def _catch_up(cluster: HostCluster) -> None:
    for path in sorted((cluster.dir / "wishes").glob("*.json")):
        wish = json.loads(path.read_text())
        apply(wish["noun"], wish["spec"])


def switch(verb: str, name: str) -> None:
    cluster = HostCluster(name)
    if not cluster.exists():
        raise ValueError(f"cluster {verb}: no such cluster on this machine, got: `{name}`")
    if verb == "start":
        start(cluster)
    else:
        getattr(cluster, verb)()


def set_capacity(name: str, pool: str, capacity: str, *, available: bool) -> None:
    """Simulates that a capacity type of a pool is unavailable, or available again. Its nodes follow."""
    cluster = HostCluster(name)
    wish = cluster.dir / "wishes" / "gpu-pools.json"
    if not wish.exists():
        raise ValueError(f"gpu-pools: no such cluster with GPU pools on this machine, got: `{name}`")
    spec: Object = json.loads(wish.read_text())["spec"]
    types = {each["name"]: each["capacityTypes"] for each in spec["pools"]}
    if capacity not in types.get(pool, ()):
        known = "; ".join(f"{each}: {', '.join(kinds)}" for each, kinds in types.items())
        raise ValueError(f"gpu-pools: no such pool and capacity type in {name}, got: `{pool} {capacity}`; it has: {known}")
    _module("gpu-pools", {}).set_available(cluster, pool, capacity, available=available)
    print(json.dumps(apply("gpu-pools", spec)))


def _run(arguments: list[str]) -> None:
    match arguments:
        case ["cluster", verb, name] if verb in _SWITCHES:
            switch(verb, name)
        case ["gpu-pools", "available" | "unavailable" as verb, name, pool, capacity]:
            set_capacity(name, pool, capacity, available=verb == "available")
        case ["member", "join" | "unjoin" as verb]:
            done: Handler = getattr(_module("member", {}), verb)
            print(json.dumps(done(json.load(sys.stdin))))
        case [noun, "apply" | "delete" as verb] if noun in (*_MODULES, "control-plane"):
            done = (lambda spec: apply(noun, spec)) if verb == "apply" else (lambda spec: delete(noun, spec))
            print(json.dumps(done(json.load(sys.stdin))))
        case _:
            sys.exit(USAGE)


def _stop(number: int, _: object) -> NoReturn:
    """Ends the call with one line. Raising, not dying, takes commands that run for us along."""
    # The engine may send its own after the terminal's.
    for each in _STOPPING:
        signal.signal(each, signal.SIG_IGN)
    # Not print: the signal may come in the middle of one.
    os.write(2, b"interrupted: called again, it goes on from here\n")
    sys.exit(128 + number)


def main() -> None:
    for each in _STOPPING:
        # A shell makes its background jobs ignore Ctrl-C, and that holds for what they start.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _stop)
    try:
        _run(sys.argv[1:])
    except (KubeError, KubeconfigError, UnitError, PortError, ToolError, FleetError, TimeoutError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(f"hint: {hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
