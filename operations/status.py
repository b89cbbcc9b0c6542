"""`fleet status`: what is declared and what is there, asked of the API servers themselves.

Every API server is asked at the same time and each has two seconds: a dead region costs one line, not a wait.
"""

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from core.errors import FleetError
from kube.client import ApiError, Kube, Unreachable, condition
from kube.kubeconfig import KubeconfigError
from local.host_cluster import HostCluster
from operations import hub
from specs.labels import LABEL_ACCELERATOR, LABEL_MODEL, NAMESPACE_MODELS

_TIMEOUT_S = 2.0
# Between two looks at all of them.
_POLL_S = 1.0


@dataclass(frozen=True)
class ModelState:
    """One model in one cluster: replicas that its Deployment wants and replicas that are ready.

    accelerator: what its pods run on, a GPU type or `cpu`.
    """

    desired: int
    ready: int
    accelerator: str = ""


@dataclass(frozen=True)
class ClusterState:
    """What one API server answered. `error` is empty where it did."""

    name: str
    version: str = ""
    gpus: int = 0
    models: dict[str, ModelState] = field(default_factory=dict[str, ModelState])
    error: str = ""


@dataclass(frozen=True)
class HubState:
    """What Karmada knows: which members are Ready, and how many replicas of a model it gave to each."""

    version: str = ""
    members: dict[str, bool] = field(default_factory=dict[str, bool])
    scheduled: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    ready: dict[str, bool] = field(default_factory=dict[str, bool])
    error: str = ""


def cluster_state(name: str, kubeconfig: str) -> ClusterState:
    try:
        with Kube.from_kubeconfig(kubeconfig, timeout=_TIMEOUT_S) as api:
            version = api.request("GET", "/version").json()["gitVersion"]
            nodes = api.list("v1", "Node")
            gpus = sum(int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for node in nodes)
            models: dict[str, ModelState] = {}
            for deployment in api.list("apps/v1", "Deployment", NAMESPACE_MODELS, label_selector=LABEL_MODEL):
                model = deployment["metadata"]["labels"][LABEL_MODEL]
                ready = int(deployment.get("status", {}).get("readyReplicas", 0))
                selector = deployment["spec"]["template"]["spec"].get("nodeSelector") or {}
                models[model] = ModelState(int(deployment["spec"].get("replicas", 0)), ready, selector.get(LABEL_ACCELERATOR, ""))
            return ClusterState(name, version, gpus, models=models)
    except (Unreachable, ApiError, KubeconfigError) as error:
        return ClusterState(name, error=str(error))


def hub_state(kubeconfig: str) -> HubState:
    try:
        with Kube.from_kubeconfig(kubeconfig, timeout=_TIMEOUT_S) as api:
            version = api.request("GET", "/version").json()["gitVersion"]
            members = api.list("cluster.karmada.io/v1alpha1", "Cluster")
            bindings = api.list("work.karmada.io/v1alpha2", "ResourceBinding", NAMESPACE_MODELS)
            services = api.list("serving.kserve.io/v1beta1", "InferenceService", NAMESPACE_MODELS)
    except (Unreachable, ApiError, KubeconfigError) as error:
        return HubState(error=str(error))
    scheduled = {
        binding["spec"]["resource"]["name"]: {target["name"]: int(target.get("replicas", 0)) for target in binding["spec"].get("clusters") or []}
        for binding in bindings
        if binding["spec"]["resource"]["kind"] == "InferenceService"
    }
    return HubState(
        version,
        {member["metadata"]["name"]: condition(member, "Ready").get("status") == "True" for member in members},
        scheduled,
        {service["metadata"]["name"]: condition(service, "Ready").get("status") == "True" for service in services},
    )


# Units of a local cluster that belong to a control plane, by the beginning of their name.
_CONTROL_PLANES = {
    "karmada": "karmada",
    "kserve": "kserve",
    "istiod": "istio",
    "regional-gateway": "gateways",
    "front-door": "gateways",
    "stream-relay": "gateways",
}


def control_planes(name: str) -> str:
    """`karmada 4/4` or `istio 1/1, kserve 0/1`: processes ready of processes declared. Empty for a cluster that is not local."""
    cluster = HostCluster(name)
    if not cluster.exists():
        return ""
    ready: dict[str, list[bool]] = {}
    running = cluster.alive()
    for unit in cluster.status():
        for prefix, plane in _CONTROL_PLANES.items():
            if unit.name.startswith(prefix):
                ready.setdefault(plane, []).append(running and unit.ready)
    return ", ".join(f"{plane} {sum(each)}/{len(each)}" for plane, each in sorted(ready.items()))


@dataclass(frozen=True)
class FleetState:
    """The whole fleet as asked, beside the stack outputs that say what was declared."""

    outputs: dict[str, Any]
    hub: HubState
    clusters: dict[str, ClusterState]

    def answering(self) -> list[str]:
        """Models that a server stands behind. Where GPUs are simulated, their models answer 503."""

        def real(cluster: str, model: str) -> bool:
            state = self.clusters[cluster].models.get(model)
            return state is not None and (state.accelerator == "cpu" or not self.outputs["clusters"][cluster]["simulatedGpus"])

        return [model for model, placement in self.outputs.get("placements", {}).items() if any(real(cluster, model) for cluster in placement)]

    def away(self) -> set[str]:
        """Clusters of somebody else that answer neither us nor Karmada: nothing that we do brings them back."""
        return {name for name, state in self.clusters.items() if state.error and self.hub.members.get(name) is False and not HostCluster(name).exists()}

    def missing(self, without: Collection[str] = ()) -> list[str]:
        """What is declared and not ready, one line each; empty when the fleet serves as declared. `without`: clusters to pass over."""
        lines: list[str] = []
        for model, placement in self.outputs.get("placements", {}).items():
            for name, wanted in placement.items():
                if name in without:
                    continue
                cluster = self.clusters[name]
                state = cluster.models.get(model, ModelState(0, 0))
                if cluster.error:
                    # Also a cluster that answers and does not let us look.
                    lines.append(f"{model} in {name}: {cluster.error}")
                elif state.ready < int(wanted["replicas"]):
                    lines.append(f"{model} in {name}: {state.ready} of {int(wanted['replicas'])} replicas ready")
        return lines


def gather(outputs: dict[str, Any]) -> FleetState:
    hub_kubeconfig, of_members = hub.kubeconfig(outputs), hub.member_kubeconfigs(outputs)
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = pool.submit(hub_state, hub_kubeconfig)
        members = [pool.submit(cluster_state, name, text) for name, text in of_members.items()]
        return FleetState(outputs, asked.result(), {state.name: state for state in (member.result() for member in members)})


def await_models(outputs: dict[str, Any], say: Callable[[str], None], within: float, hint: str) -> None:
    """Waits until every model is ready as declared. Raises FleetError.

    A cluster of somebody else that is away is not waited for: the models serve elsewhere until it is back.
    """
    deadline = time.monotonic() + within
    told: list[str] = []
    passed: set[str] = set()
    while True:
        state = gather(outputs)
        away = state.away()
        for name in sorted(away - passed):
            say(f"warning: {name} is away, its models are not waited for: {state.clusters[name].error}")
        passed |= away
        missing = state.missing(without=away)
        if not missing:
            return
        if missing != told:
            say(f"waiting for {'; '.join(missing)}")
            told = missing
        if time.monotonic() > deadline:
            raise FleetError(f"not ready after {within:.0f} s: {'; '.join(missing)}", hint=hint)
        time.sleep(_POLL_S)


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def render(state: FleetState) -> str:
    """The tables that `fleet status` prints."""
    declared: dict[str, Any] = state.outputs.get("clusters", {})
    clusters: list[tuple[str, ...]] = [("CLUSTER", "REGION", "DRIVER", "KUBERNETES", "JOINED", "GPUS", "CONTROL PLANES", "NOTE")]
    control = hub.name(state.outputs)
    clusters.append((control, "-", "-", state.hub.version or "-", "-", "-", control_planes(control) or "-", state.hub.error))
    for name, facts in declared.items():
        cluster = state.clusters.get(name, ClusterState(name, error="no kubeconfig in the outputs"))
        joined = {True: "Ready", False: "NotReady", None: "-"}[state.hub.members.get(name)]
        gpus = "-" if cluster.error else str(cluster.gpus)
        clusters.append((name, facts["region"], facts["driver"], cluster.version or "-", joined, gpus, control_planes(name) or "-", cluster.error))
    models: list[tuple[str, ...]] = [("MODEL", "CLUSTER", "WEIGHT", "DECLARED", "SCHEDULED", "READY")]
    for model, placement in state.outputs.get("placements", {}).items():
        scheduled = state.hub.scheduled.get(model, {})
        for name in sorted(set(placement) | set(scheduled)):
            wanted: dict[str, Any] = placement.get(name, {"weight": 0, "replicas": 0})
            cluster = state.clusters.get(name)
            ready = "?" if cluster is None or cluster.error else str(cluster.models.get(model, ModelState(0, 0)).ready)
            row = (model, name, str(int(wanted["weight"])), str(int(wanted["replicas"])), str(scheduled.get(name, 0)), ready)
            models.append(row)
    endpoints: dict[str, Any] = state.outputs.get("endpoints", {})
    doors: list[tuple[str, ...]] = [("ENDPOINT", "URL")]
    doors += [(f"front door {name}", url) for name, url in endpoints.get("frontDoors", {}).items()]
    doors += [(f"model {name}", facts["openaiBaseUrl"]) for name, facts in endpoints.get("models", {}).items()]
    return "\n\n".join(table(rows) for rows in (clusters, models, doors))
