"""The status of a pod as a kubelet writes it, computed from its containers' records. Pure.

podIP and hostIP stay empty: Kubernetes refuses loopback addresses in EndpointSlices, and its controllers would retry
for ever. The mesh learns the address from mesh.py.
"""

from collections.abc import Sequence
from typing import Any

from local.node_agent.containers import Record

Object = dict[str, Any]


def pod_status(pod: Object, previous: Object, inits: Sequence[Record], mains: Sequence[Record], *, prepared: bool, now: str) -> Object:
    """`previous`: the status before, whose times stay where nothing changed. `now` is an RFC 3339 time.

    `prepared`: the pod's volumes and address are there.
    """
    status: Object = pod.get("status") or {}
    initialized = all(_exit_code(record) == 0 for record in inits)
    unready = [record.name for record in mains if not record.ready]
    phase = _phase(inits, mains, str(pod["spec"].get("restartPolicy", "Always")))
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase)
    not_ready: Object = {"reason": ended} if ended else {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    pending = [record.name for record in inits if _exit_code(record) != 0]
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    shut = [gate for gate in gates if not _is_true(status, gate)]
    closed: Object = {"reason": "ReadinessGatesNotReady", "message": f"readiness gates not open: {' '.join(shut)}"}
    conditions = [
        _condition("PodReadyToStartContainers", prepared, {}),
        _condition("Initialized", initialized, {"reason": "ContainersNotInitialized", "message": f"containers with incomplete status: [{' '.join(pending)}]"}),
        _condition("Ready", not unready and not shut, not_ready if unready else closed),
        _condition("ContainersReady", not unready, not_ready),
        _condition("PodScheduled", True, {}),
    ]
    before = {each["type"]: each for each in previous.get("conditions") or []}
    for condition in conditions:
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"] and old.get("lastTransitionTime")
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else now
    specs = {each["name"]: each for each in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]}
    return {
        "phase": phase,
        "startTime": previous.get("startTime") or now,
        "conditions": conditions,
        "containerStatuses": [_container(record, specs[record.name]) for record in mains],
        # An init container counts as ready once it has succeeded.
        **({"initContainerStatuses": [{**_container(each, specs[each.name]), "ready": _exit_code(each) == 0} for each in inits]} if inits else {}),
    }


def is_ready(status: Object) -> bool:
    return _is_true(status, "Ready")


def _is_true(status: Object, kind: str) -> bool:
    return any(each["type"] == kind and each["status"] == "True" for each in status.get("conditions") or [])


def _exit_code(record: Record) -> int | None:
    ended = record.state.get("terminated")
    return ended["exitCode"] if ended else None


def _phase(inits: Sequence[Record], mains: Sequence[Record], policy: str) -> str:
    if policy == "Never" and any(_exit_code(record) not in (0, None) for record in inits):
        return "Failed"
    codes = [_exit_code(record) for record in mains]
    if codes and all(code is not None for code in codes):
        return "Succeeded" if not any(codes) else "Failed"
    # A container that waits for its restart has run: the pod stays Running, as `kubectl get pods` knows it.
    return "Running" if any("running" in record.state or record.last_state or "terminated" in record.state for record in mains) else "Pending"


def _condition(kind: str, true: bool, why_not: Object) -> Object:
    return {"type": kind, "status": "True" if true else "False", **({} if true else why_not)}


def _container(record: Record, spec: Object) -> Object:
    pid = record.pid
    return {
        "name": record.name,
        "image": spec["image"],
        # Nothing was pulled, so there is no digest to tell.
        "imageID": "",
        "restartCount": record.restarts,
        "started": record.started,
        "ready": record.ready,
        "state": record.state,
        **({"lastState": record.last_state} if record.last_state else {}),
        **({"containerID": f"process://{pid}"} if pid else {}),
    }
