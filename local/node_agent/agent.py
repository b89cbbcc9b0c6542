"""The node agent as a whole: registers the node, watches its pods, gives each a thread, ends them when it is told to."""

import base64
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube.client import Kube, KubeError
from local import processes as host
from local.down import CELL
from local.node_agent import mesh, node, processes, server
from local.node_agent.addresses import Addresses
from local.node_agent.pods import Node, Pod
from local.node_agent.reporter import Reporter

Object = dict[str, Any]

_RENEW_S = 10.0
_RETRY_S = 1.0
_WATCH_S = 120
# How long the pods may take to end when the agent is told to stop; install.py gives the unit more.
HALT_S = 10.0


@dataclass(frozen=True)
class Settings:
    """What `python -m local.node_agent` is told. folder: the cluster's. index: its number, for the pod network."""

    cluster: str
    folder: Path
    index: int
    region: str
    zone: str
    port: int
    cert: Path
    key: Path
    client_ca: Path


class Agent:
    """Pods by uid. Changed by the watching thread and by the reporter's, under one lock."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api = Kube.from_kubeconfig(settings.folder / "kubeconfig")
        self._name = node.name_of(settings.cluster)
        self._pods: dict[str, Pod] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        (settings.folder / "pods").mkdir(exist_ok=True, mode=0o700)
        self._addresses = Addresses(settings.folder / "addresses.json", settings.index)
        self._reporter = Reporter(self._api, self._name, self._ended)
        self._node = Node(
            name=self._name,
            folder=settings.folder,
            capacity=node.capacity(),
            lookup=self._lookup,
            claims=self._claims,
            tokens=self._token,
            report=self._reporter.report,
            drain=self._reporter.drain,
        )
        self._swept = False

    def run(self) -> None:
        """Returns when the agent was told to stop and its pods' processes have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        for job in (self._keep_registered, self._keep_watching):
            threading.Thread(target=job, name=job.__name__, daemon=True).start()
        self._reporter.start()
        self._stopping.wait()
        self._say("stopping")
        with self._lock:
            pods = list(self._pods.values())
        for pod in pods:
            pod.halt()
        deadline = time.monotonic() + HALT_S
        for pod in pods:
            while not (pod.halted.is_set() or pod.gone.is_set()) and time.monotonic() < deadline:
                time.sleep(0.05)
        for pod in pods:
            processes.kill_rest(pod.uid)

    def _say(self, message: str) -> None:
        print(f"node {self._name}: {message}", flush=True)

    # The node

    def _keep_registered(self) -> None:
        settings, complained, serving = self._settings, "", False
        while not self._stopping.is_set():
            try:
                node.renew(self._api, self._name, settings.region, settings.zone, settings.port, time.time())
                # Its door opens with the Node: the unit counts as ready from then on.
                if not serving:
                    server.serve(settings.port, settings.cert, settings.key, settings.client_ca, self._find)
                    serving = True
                complained = ""
                self._stopping.wait(_RENEW_S)
            except (KubeError, OSError) as error:
                if str(error) != complained:
                    complained = str(error)
                    self._say(f"cannot register, is tried again: {error}")
                self._stopping.wait(_RETRY_S)

    # Pods

    def _keep_watching(self) -> None:
        complained = ""
        while not self._stopping.is_set():
            try:
                version = self._list()
                complained = ""
                for kind, manifest in self._api.watch("v1", "Pod", field_selector=self._selector, resource_version=version, timeout_seconds=_WATCH_S):
                    if kind in ("ADDED", "MODIFIED"):
                        self._take(manifest)
                    elif kind == "DELETED":
                        self._forget(manifest["metadata"]["uid"])
            except (KubeError, OSError) as error:
                if str(error) != complained:
                    complained = str(error)
                    self._say(f"cannot watch pods, is tried again: {error}")
                self._stopping.wait(_RETRY_S)

    @property
    def _selector(self) -> str:
        return f"spec.nodeName={self._name}"

    def _list(self) -> str:
        """Takes the pods as they are; returns the version to watch from."""
        body = self._api.request("GET", "/api/v1/pods", params={"fieldSelector": self._selector}).json()
        manifests: list[Object] = body.get("items") or []
        present = {each["metadata"]["uid"] for each in manifests}
        if not self._swept:
            self._sweep(present, {f"{each['metadata']['namespace']}_{each['metadata']['name']}_{each['metadata']['uid']}" for each in manifests})
            self._swept = True
        for manifest in manifests:
            self._take(manifest)
        with self._lock:
            missing = [uid for uid in self._pods if uid not in present]
        for uid in missing:
            self._forget(uid)
        return str(body["metadata"]["resourceVersion"])

    def _sweep(self, present: set[str], folders: set[str]) -> None:
        """Once, at the start: ends and removes what is left of pods that went while no agent ran."""
        cell = os.environ.get(CELL)
        for uid, pids in (processes.pods_of(cell) if cell else {}).items():
            if uid not in present:
                self._say(f"pod {uid} is gone, its processes are ended: {' '.join(map(str, pids))}")
                host.signal_all(pids, signal.SIGTERM)
                threading.Timer(2.0, processes.kill_rest, [uid]).start()
        for folder in (self._settings.folder / "pods").iterdir():
            if folder.name not in folders:
                shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._addresses.keep_only(present)
        for entry in mesh.published(self._api, self._name):
            owners = {owner["uid"] for owner in entry["metadata"].get("ownerReferences") or []}
            if not owners & present:
                mesh.withdraw(self._api, entry["metadata"]["namespace"], entry["metadata"]["name"])

    def _take(self, manifest: Object) -> None:
        uid = manifest["metadata"]["uid"]
        with self._lock:
            pod = self._pods.get(uid)
            if pod is None:
                if self._stopping.is_set():
                    return
                pod = self._pods[uid] = Pod(manifest, self._node, self._addresses.of(uid))
                pod.update(manifest)
                pod.start()
                return
        pod.update(manifest)

    def _forget(self, uid: str) -> None:
        with self._lock:
            pod = self._pods.get(uid)
        if pod is not None:
            pod.forget()

    def _ended(self, pod: Pod) -> None:
        with self._lock:
            self._pods.pop(pod.uid, None)
            self._addresses.release(pod.uid)

    def _find(self, namespace: str, name: str) -> Pod | None:
        with self._lock:
            return next((pod for pod in self._pods.values() if (pod.namespace, pod.pod_name) == (namespace, name)), None)

    # What pods refer to

    def _lookup(self, namespace: str, kind: str, name: str) -> Mapping[str, str] | None:
        found = self._api.find("v1", kind, name, namespace)
        if found is None:
            return None
        data: dict[str, str] = found.get("data") or {}
        if kind == "Secret":
            return {key: _decoded(value) for key, value in data.items()}
        return {**data, **{key: _decoded(value) for key, value in (found.get("binaryData") or {}).items()}}

    def _claims(self, namespace: str, name: str) -> Object | None:
        claim = self._api.find("v1", "PersistentVolumeClaim", name, namespace)
        if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
            return None
        return self._api.find("v1", "PersistentVolume", claim["spec"]["volumeName"])

    def _token(self, namespace: str, account: str, pod: Object, audience: str, seconds: int) -> str:
        metadata = pod["metadata"]
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": max(seconds, 600),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
            },
        }
        path = self._api.resource("v1", "ServiceAccount").path(account, namespace, "token")
        return str(self._api.request("POST", path, json=body).json()["status"]["token"])


def _decoded(value: str) -> str:
    # Bytes that are no text keep their value through this escape, in files and in the environment.
    return base64.b64decode(value).decode("utf-8", "surrogateescape")
