"""Mock engines of a drill: small servers in place of a model's pods, so that a small machine can serve high rates.

Processes of the clusters, which die and freeze with their region, and Istio objects put straight into the members: a model of
a drill is in no stack file and not on the hub. The objects are those of components/mesh/mesh.py.
"""

import contextlib
import json
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kube.client import ApiError, Kube
from local.host_cluster import HostCluster
from local.units import HttpReady, Unit
from specs import labels
from toolchain import tools

# The model with the settings of the stack, and one with those to compare with. Both are names of units and of ports too.
DECLARED, PUBLISHED = "drill", "drill-published"
UNITS = (f"mock-engine-{DECLARED}", f"mock-engine-{PUBLISHED}")
# Marks what has to go after a drill.
LABEL = labels.PREFIX + "drill"
REVISION = "stand-in"

_KINDS = (
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
)
_READY_S = 30.0
_ASK_S = 5.0

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a mock engine computes. capacity: requests at once, 0 for no limit. Milliseconds per token."""

    token_milliseconds: float = 5.0
    tokens: int = 8
    capacity: int = 0
    stall_seconds: float = 8.0


def unit_name(model: str) -> str:
    return f"mock-engine-{model}"


def address(cluster: HostCluster, model: str) -> tuple[str, int]:
    return "127.0.0.1", cluster.port(unit_name(model))


def unit(cluster: HostCluster, model: str, engine: Engine) -> Unit:
    host, port = address(cluster, model)
    return Unit(
        name=unit_name(model),
        argv=[
            str(tools.path("fleet-stand-in")),
            f"--listen={host}:{port}",
            f"--model={model}",
            f"--revision={REVISION}",
            f"--token-milliseconds={engine.token_milliseconds:g}",
            f"--tokens={engine.tokens}",
            f"--capacity={engine.capacity}",
            f"--stall-seconds={engine.stall_seconds:g}",
        ],
        ready=HttpReady(url=f"http://{host}:{port}/health"),
    )


def start(clusters: Iterable[HostCluster], models: Sequence[str], engine: Engine) -> None:
    """Raises UnitError that names the unit and its log."""
    started = [(cluster, unit(cluster, model, engine)) for cluster in clusters for model in models]
    for cluster, each in started:
        cluster.put_unit(each)
    for cluster, each in started:
        cluster.wait_ready(each.name, _READY_S)


def publish(cluster: HostCluster, objects: Iterable[Mapping[str, Any]]) -> None:
    """Puts the objects of a drill's model into a member. Raises KubeError."""
    with Kube.from_kubeconfig(cluster.kubeconfig) as api:
        for each in objects:
            metadata: Object = dict(each["metadata"])
            api.apply({**each, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), LABEL: "true"}}})


def remove(clusters: Iterable[HostCluster]) -> None:
    """Takes all of it away again, also what an interrupted drill left. A cluster that is gone needs nothing. Raises KubeError."""
    for cluster in clusters:
        if not cluster.exists():
            continue
        with Kube.from_kubeconfig(cluster.kubeconfig) as api:
            for version, kind in _KINDS:
                # A member that Istio never came to has none of the kinds.
                with contextlib.suppress(ApiError):
                    for each in api.list(version, kind, label_selector=LABEL):
                        api.delete(version, kind, each["metadata"]["name"], each["metadata"]["namespace"])
        for name in UNITS:
            cluster.remove_unit(name)


def freeze(cluster: HostCluster) -> None:
    """All mock engines there compute nothing from now on; their /health goes on saying 200. Raises OSError."""
    _switch(cluster, "freeze")


def thaw(cluster: HostCluster) -> None:
    _switch(cluster, "thaw")


def _switch(cluster: HostCluster, verb: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for model in (DECLARED, PUBLISHED):
        if not (cluster.dir / "units" / f"{unit_name(model)}.json").exists():
            continue
        host, port = address(cluster, model)
        request = urllib.request.Request(f"http://{host}:{port}/stand-in/{verb}", method="POST")
        with opener.open(request, timeout=_ASK_S) as answer:
            json.load(answer)
