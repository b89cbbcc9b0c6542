"""One pod on the node: volumes, init containers in order, containers, and its end. A thread per pod drives it.

Talking to the API server is reporter.py's, so that an API server that hangs does not keep a pod from being probed.
"""

import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube.client import KubeError
from local import registry
from local.node_agent import processes, status, volumes
from local.node_agent.containers import Container, Record, Surroundings, timestamp
from local.node_agent.environment import ConfigError, Facts, Lookup

Object = dict[str, Any]

_TICK_S = 0.25
# How long the end of a pod waits for the mesh to be told. It is told again later; an API server that is away must not
# keep a pod from ending.
_DRAIN_S = 3.0
# A pod that was forgotten by the API server, or whose deletion came while the agent was away.
_ORPHAN_GRACE_S = 2.0
# When the agent itself is told to stop, the doors of its cluster stop too: there is nothing to drain for.
_HALT_GRACE_S = 5.0


@dataclass(frozen=True)
class Node:
    """What all pods of the node share.

    lookup: (namespace, kind, name) → data of a ConfigMap or Secret. claims: (namespace, claim) → PersistentVolume.
    tokens: (namespace, service account, pod, audience, seconds) → token. These raise KubeError.
    report: a pod changed. drain: wants the pod out of the mesh, waits that many seconds at most.
    """

    name: str
    folder: Path
    capacity: Mapping[str, str]
    lookup: Callable[[str, str, str], Mapping[str, str] | None]
    claims: Callable[[str, str], Object | None]
    tokens: Callable[[str, str, Object, str, int], str]
    report: Callable[["Pod"], None]
    drain: Callable[["Pod", float], None]


def uncovered(pod: Object) -> list[str]:
    """What the pod asks for that this agent does not do."""
    spec = pod["spec"]
    found = [f"initContainer {each['name']} with restartPolicy" for each in spec.get("initContainers") or [] if each.get("restartPolicy")]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        lifecycle = container.get("lifecycle") or {}
        found += [f"lifecycle.postStart of {container['name']}"] if "postStart" in lifecycle else []
        found += [f"lifecycle.preStop.tcpSocket of {container['name']}"] if "tcpSocket" in (lifecycle.get("preStop") or {}) else []
        found += [
            f"{kind} grpc of {container['name']}" for kind in ("startupProbe", "readinessProbe", "livenessProbe") if "grpc" in (container.get(kind) or {})
        ]
    served = {"name", "emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim", "image"}
    found += [f"volume {each['name']} of kind {kind}" for each in spec.get("volumes") or [] for kind in each if kind not in served]
    found += [key for key in ("activeDeadlineSeconds",) if spec.get(key)]
    return found


class Pod(threading.Thread):
    """`gone` is set once nothing of the pod runs and its files are removed."""

    def __init__(self, manifest: Object, node: Node, address: str) -> None:
        super().__init__(name=f"pod {manifest['metadata']['name']}", daemon=True)
        metadata = manifest["metadata"]
        self.manifest = manifest
        self.uid: str = metadata["uid"]
        self.namespace: str = metadata["namespace"]
        self.pod_name: str = metadata["name"]
        self.address = address
        self.folder = node.folder / "pods" / f"{self.namespace}_{self.pod_name}_{self.uid}"
        self.gone = threading.Event()
        self.halted = threading.Event()
        # Set when the API server no longer has the pod: nobody is left to report to.
        self.forgotten = False
        self._node = node
        self._wake = threading.Event()
        self._halt = False
        self._deadline: float | None = None
        self._prepared = False
        self._folders: Mapping[str, Path] = {}
        self._reported: Object = {}
        self._lock = threading.Lock()
        self._inits: list[Container] = []
        self._mains: list[Container] = []

    # From outside

    def update(self, manifest: Object) -> None:
        """A newer version of the object; a deletion begins here, or gets a nearer deadline."""
        with self._lock:
            self.manifest = manifest
            if manifest["metadata"].get("deletionTimestamp"):
                grace = float(manifest["metadata"].get("deletionGracePeriodSeconds") or 0)
                self._end_in(grace)
        self._wake.set()

    def forget(self) -> None:
        """The API server does not have it any more."""
        with self._lock:
            self.forgotten = True
            self._end_in(_ORPHAN_GRACE_S)
        self._wake.set()

    def halt(self) -> None:
        """Stops the processes since the agent itself stops; the pod stays, the next agent starts them again."""
        self._halt = True
        self._wake.set()

    def _end_in(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    @property
    def ending(self) -> bool:
        return self._deadline is not None or self._halt

    @property
    def reported(self) -> Object:
        """The status as of the last step; {} before the first."""
        return self._reported

    def _status(self) -> Object:
        inits, mains = [each.record for each in self._inits], [each.record for each in self._mains]
        previous = self._reported or self.manifest.get("status") or {}
        return status.pod_status(self.manifest, previous, inits, mains, prepared=self._prepared, now=timestamp(time.time()))

    def in_mesh(self) -> bool:
        """Whether callers may be sent here now."""
        return not self.ending and status.is_ready(self._reported)

    def log_of(self, container: str) -> Container | None:
        return next((each for each in [*self._mains, *self._inits] if each.name == container), None)

    # The thread

    def run(self) -> None:
        self.say(f"address {self.address}")
        while not self.gone.is_set() and not self.halted.is_set():
            try:
                self._step()
                if self.gone.is_set():
                    return
            except Exception:  # noqa: BLE001 - a fault of ours in one pod must not leave its processes without an agent
                traceback.print_exc()
                self._wake.wait(5)
            self._wake.wait(_TICK_S)
            self._wake.clear()

    def _step(self) -> None:
        if not self._mains:
            self._make_containers()
        if self.ending:
            self._finish()
            return
        if status_phase(self.manifest) in ("Succeeded", "Failed") and not any(each.running for each in self._mains):
            return
        now = time.time()
        waiting = next((each for each in self._inits if not each.done or each.failed), None)
        if waiting is not None:
            waiting.tick(now)
        else:
            for each in self._mains:
                each.tick(now)
        self._report()

    def _report(self) -> None:
        fresh = self._status()
        if fresh != self._reported:
            self._reported = fresh
            self._node.report(self)

    def say(self, message: str) -> None:
        print(f"{timestamp(time.time())} {self.namespace}/{self.pod_name}: {message}", flush=True)

    # Beginning

    def _facts(self) -> Facts:
        return Facts(self.manifest, self._node.name, self.address, self._node.capacity)

    def _lookup(self) -> Lookup:
        def look(kind: str, name: str) -> Mapping[str, str] | None:
            try:
                return self._node.lookup(self.namespace, kind, name)
            except KubeError as error:
                raise ConfigError(f"{kind} `{name}` cannot be read: {error}") from None

        return look

    def _prepare(self) -> Mapping[str, Path]:
        """The pod's volumes, made before its first container. Raises ConfigError, and is tried again then."""
        if not self._prepared:
            if missing := uncovered(self.manifest):
                raise ConfigError(f"the node agent does not do: {', '.join(missing)}")
            account = self.manifest["spec"].get("serviceAccountName", "default")

            def token(audience: str, seconds: int) -> str:
                return self._node.tokens(self.namespace, account, self.manifest, audience, seconds)

            def claim(name: str) -> Object | None:
                return self._node.claims(self.namespace, name)

            def image(name: str) -> Path:
                return registry.pulled(self._node.folder, name)

            try:
                self._folders = volumes.prepare(self.manifest, self.folder / "volumes", self._facts(), self._lookup(), claim, token, image)
            except KubeError as error:
                raise ConfigError(f"volumes cannot be made: {error}") from None
            self._prepared = True
        return self._folders

    def _make_containers(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        records = self._load()
        spec = self.manifest["spec"]
        around = Surroundings(self.uid, self.folder, self._node.folder, self._facts(), self._lookup(), self._prepare, self._save, self.say)
        policy = spec.get("restartPolicy", "Always")
        # What succeeded is not run again, what failed is, unless the pod says Never.
        init_policy = "Never" if policy == "Never" else "OnFailure"
        self._sweep(records)

        def make(each: Object, policy: str) -> Container:
            return Container(each, records.get(each["name"]) or Record(each["name"]), around, policy)

        self._inits = [make(each, init_policy) for each in spec.get("initContainers") or []]
        self._mains = [make(each, policy) for each in spec["containers"]]

    def _sweep(self, records: Mapping[str, Record]) -> None:
        """Ends processes of this pod that no record knows: their agent died between starting them and noting it."""
        for name in [each["name"] for each in [*(self.manifest["spec"].get("initContainers") or []), *self.manifest["spec"]["containers"]]]:
            record = records.get(name)
            if record is None or record.pid is None or processes.adopt(record.pid, record.start_ticks) is None:
                processes.kill_rest(self.uid, name)

    def _load(self) -> dict[str, Record]:
        try:
            saved = json.loads((self.folder / "records.json").read_text())
            return {each["name"]: Record(**each) for each in saved}
        except (OSError, ValueError, TypeError):
            # No file, or one of a former version: what the API server was told last is the best there is.
            last = self.manifest.get("status") or {}
            reported = [*(last.get("containerStatuses") or []), *(last.get("initContainerStatuses") or [])]
            return {each["name"]: _from_status(each) for each in reported}

    def _save(self) -> None:
        temporary = self.folder / f".records.json.{os.getpid()}"
        temporary.write_text(json.dumps([each.record.to_json() for each in [*self._inits, *self._mains]]))
        temporary.replace(self.folder / "records.json")

    # End

    def _finish(self) -> None:
        """Out of the mesh first, then preStop, SIGTERM, SIGKILL; then the files, then the object."""
        begun = time.monotonic()
        self._node.drain(self, _DRAIN_S)
        everything = [*self._inits, *self._mains]
        if self._halt and self._deadline is None:
            self._end_in(_HALT_GRACE_S)

        def deadline() -> float:
            with self._lock:
                return self._deadline if self._deadline is not None else begun

        for each in everything:
            each.end(deadline)
        while any(each.running for each in everything):
            for each in everything:
                each.tick(time.time())
            # Told as ended, a pod that the next agent shall run again would count as completed for ever.
            if not self._halt:
                self._report()
            time.sleep(0.05)
        processes.kill_rest(self.uid)
        if self._halt and not self.manifest["metadata"].get("deletionTimestamp") and not self.forgotten:
            self._resume_later()
            self.halted.set()
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.say("ended")
        self.gone.set()
        self._node.report(self)

    def _resume_later(self) -> None:
        """Notes that the containers ended with the node, not by themselves, so that the next agent starts them."""
        for each in self._mains:
            record = each.record
            if "terminated" in record.state and self.manifest["spec"].get("restartPolicy", "Always") == "Always":
                record.last_state, record.state = record.state, {"waiting": {"reason": "NodeShutdown"}}
        self._save()


def status_phase(manifest: Object) -> str:
    return str((manifest.get("status") or {}).get("phase", "Pending"))


def _from_status(reported: Object) -> Record:
    ran = "waiting" not in reported["state"] or bool(reported.get("lastState"))
    ended = "terminated" in reported["state"]
    state = reported["state"] if ended else {"waiting": {"reason": "ContainerCreating"}}
    return Record(reported["name"], int(reported.get("restartCount", 0)), state, reported.get("lastState") or {}, ever_ran=ran)
