"""Tells the API server about the pods: status, mesh entry, end. One thread for all pods of the node.

Pods say only that they changed; what is sent is what holds when their turn comes, so an API server that was away gets
the present and no history.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from kube.client import ApiError, Kube, KubeError
from local.node_agent import mesh
from local.node_agent.pods import Pod

Object = dict[str, Any]

_RETRY_S = (0.5, 5.0)
# While Istio's CRDs are not there: how often a ready pod is tried again.
_NO_MESH_RETRY_S = 2.0


class Reporter(threading.Thread):
    """`ended` is called with a pod that is gone here and from the API server."""

    def __init__(self, api: Kube, node: str, ended: Callable[[Pod], None]) -> None:
        super().__init__(name="reporter", daemon=True)
        self._api, self._node, self._ended = api, node, ended
        self._dirty: dict[str, tuple[Pod, float]] = {}
        self._changed = threading.Condition()
        # What was sent last, by uid. A pod that is not in `_published` may be in the mesh from an agent before us.
        self._sent: dict[str, Object] = {}
        self._published: dict[str, bool] = {}
        self._complained = ""

    def report(self, pod: Pod, not_before: float = 0.0) -> None:
        with self._changed:
            self._dirty[pod.uid] = (pod, not_before)
            self._changed.notify_all()

    def drain(self, pod: Pod, timeout_s: float) -> None:
        """Waits until the pod, which counts as ending by now, is out of the mesh, or the time is over."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._dirty[pod.uid] = (pod, 0.0)
            self._changed.notify_all()
            while self._published.get(pod.uid, True) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def run(self) -> None:
        pause = _RETRY_S[0]
        while True:
            pod = self._next()
            try:
                self._sync(pod)
                pause = _RETRY_S[0]
                self._complained = ""
            except KubeError as error:
                if str(error) != self._complained:
                    self._complained = str(error)
                    pod.say(f"cannot be reported, is tried again: {error}")
                with self._changed:
                    self._dirty.setdefault(pod.uid, (pod, 0.0))
                time.sleep(pause)
                pause = min(pause * 2, _RETRY_S[1])

    def _next(self) -> Pod:
        with self._changed:
            while True:
                now = time.monotonic()
                due = next((uid for uid, (_, moment) in self._dirty.items() if moment <= now), None)
                if due is not None:
                    return self._dirty.pop(due)[0]
                pending = [moment - now for _, moment in self._dirty.values()]
                self._changed.wait(min(pending) if pending else None)

    def _sync(self, pod: Pod) -> None:
        self._sync_mesh(pod)
        if pod.gone.is_set():
            if not pod.forgotten:
                self._delete(pod)
            self._sent.pop(pod.uid, None)
            self._published.pop(pod.uid, None)
            self._ended(pod)
        elif not pod.forgotten:
            self._send(pod)

    def _sync_mesh(self, pod: Pod) -> None:
        wanted, known = pod.in_mesh(), self._published.get(pod.uid)
        if wanted == known:
            return
        if wanted:
            if not mesh.publish(self._api, mesh.workload_entry(pod.manifest, pod.address, self._node)):
                # Quietly: Istio comes later in the life of a region.
                self.report(pod, time.monotonic() + _NO_MESH_RETRY_S)
                return
        else:
            mesh.withdraw(self._api, pod.namespace, pod.pod_name)
        pod.say("in the mesh" if wanted else "not in the mesh")
        with self._changed:
            self._published[pod.uid] = wanted
            self._changed.notify_all()

    def _send(self, pod: Pod) -> None:
        status = pod.reported
        if not status or status == self._sent.get(pod.uid):
            return
        # The uid makes it a precondition: a new pod of the same name must not get the status of an old one.
        body = {"metadata": {"uid": pod.uid}, "status": status}
        try:
            self._api.patch("v1", "Pod", pod.pod_name, body, pod.namespace, "status", "application/strategic-merge-patch+json")
        except ApiError as error:
            if error.status in (404, 409):
                pod.forget()
                return
            if error.status < 500:
                pod.say(f"status refused: {error}")
                return
            raise
        self._sent[pod.uid] = status

    def _delete(self, pod: Pod) -> None:
        path = self._api.resource("v1", "Pod").path(pod.pod_name, pod.namespace)
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        try:
            self._api.request("DELETE", path, json=body)
        except ApiError as error:
            # Not there any more, or already another pod of that name.
            if error.status not in (404, 409):
                raise
