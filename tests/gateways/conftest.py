"""Real gateways: the Envoys and istiods of three clusters, with the units and the objects that a fleet has.

One API server stands for all three: the objects lie in a folder for each cluster, with the overrides of the hub applied. Two
clusters serve models; the third has a front door only. Pods are threads of the test.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import yaml

from components.federation.overrides import overridden
from components.mesh import callers, routes, stream_relay
from components.mesh import gateways as gateway_objects
from components.mesh.envoy_filters import front_door_filter, regional_filter
from components.mesh.regions import MOST_REQUESTS, Endpoint
from components.mesh.routes import ModelRoutes, pods_entry
from local import gateways, istio
from local.host_cluster import HostCluster
from local.units import Unit
from specs.callers import AuthenticationSpec, ExternalAuthenticationSpec, JwtAuthenticationSpec, JwtIssuerSpec
from specs.control_planes.istio import HOST_PROCESS_MESH
from specs.failover import RequestFailoverSpec, StreamsSpec
from tests.conftest import process, run_api_server, wait_until
from tests.gateways.pods import Pod
from tests.gateways.tokens import AUDIENCE, ISSUER, Authorizer, Issuer
from toolchain import paths

Object = dict[str, Any]

# As declared by default, but for checks that come more often: tests wait for them.
NUMBERS = RequestFailoverSpec.model_validate({"healthIntervalSeconds": 0.3})
NO_RELAY, RELAY = StreamsSpec(), StreamsSpec(relay=True, resume=True)
EAST, WEST, EU = "us-east", "us-west", "eu-west"
# Front doors that ask who calls: for a token, and a service of one's own.
TOKENS, EXTERNAL = "ap-south", "sa-west"
# Which gateways each cluster runs.
CLUSTERS = {
    EAST: (gateways.REGIONAL_GATEWAY,),
    WEST: (gateways.REGIONAL_GATEWAY, gateways.FRONT_DOOR),
    EU: (gateways.FRONT_DOOR,),
    TOKENS: (gateways.FRONT_DOOR,),
    EXTERNAL: (gateways.FRONT_DOOR,),
}
# A port of loopback on which nobody listens.
_NOBODY = 1


@dataclass
class Cluster:
    """The processes of one cluster."""

    name: str
    stack: ExitStack
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])

    def __post_init__(self) -> None:
        self.member = HostCluster(self.name)
        self.member.dir.mkdir(parents=True, exist_ok=True)
        self.objects = self.member.dir / "objects"
        self.objects.mkdir()

    def declare(self, *objects: Object) -> None:
        for each in objects:
            file = self.objects / f"{each['kind']}-{each['metadata']['namespace']}-{each['metadata']['name']}.yaml"
            file.write_text(yaml.safe_dump(each))

    def start(self, unit: Unit, *more: str) -> None:
        settings = [f"{name}={value}" for name, value in unit.env.items()]
        command = ["env", *settings, *unit.argv, *more]
        self.running[unit.name] = self.stack.enter_context(process(command, self.member.dir / f"{unit.name}.log"))

    def start_gateway(self, name: str) -> None:
        self.start(gateways.unit(self.member, name, self.name, f"{self.name}-1"))

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.running[name].pid, number)
        if number == signal.SIGKILL:
            self.running[name].wait(10)

    @property
    def door(self) -> str:
        return f"http://127.0.0.1:{self.member.port(gateways.FRONT_DOOR)}"

    @property
    def regional(self) -> str:
        return f"http://127.0.0.1:{self.member.port(gateways.REGIONAL_GATEWAY)}"

    def admin(self, gateway: str, path: str, method: str = "GET") -> httpx.Response:
        """The admin interface of an Envoy."""
        return httpx.request(method, f"http://127.0.0.1:{self.member.port(f'{gateway}-admin')}{path}", timeout=10, trust_env=False).raise_for_status()

    def hosts(self, model: str) -> list[Object]:
        """The regions of a model as this cluster's front door sees them."""
        found = self.admin(gateways.FRONT_DOOR, "/clusters?format=json").json()["cluster_statuses"]
        return next(each["host_statuses"] for each in found if each["name"] == f"outbound|80||{model}.fleet.internal")


@dataclass
class Mesh:
    """Everything that runs, and what a test does with it."""

    clusters: dict[str, Cluster]
    pods: dict[str, Pod]
    callers: httpx.Client
    issuer: Issuer
    authorizer: Authorizer

    def ask(self, door: str, model: str = "chat", path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        body = {"content": b"{}"} if "content" not in more else {}
        return self.callers.post(f"{self.clusters[door].door}/{model}{path}", **body, **more)

    def healthy(self, door: str, region: str, model: str = "chat") -> bool:
        """Whether a front door would send a request of the model to the region."""
        host = next(each for each in self.clusters[door].hosts(model) if each["locality"]["region"] == region)
        return not {"failed_active_health_check", "failed_outlier_check"} & {name for name, value in host["health_status"].items() if value is True}

    def wait_healthy(self, region: str, *, healthy: bool = True) -> None:
        for door in (WEST, EU):
            wait_until(lambda door=door: self.healthy(door, region) is healthy, f"{region} to be {'in' if healthy else 'out'} at the front door of {door}", 30)


@dataclass
class Load:
    """What became of requests that were sent at a steady rate."""

    statuses: list[int] = field(default_factory=list[int])
    clusters: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])
    seconds: list[float] = field(default_factory=list[float])

    def wait_for(self, more: int) -> None:
        """Returns when so many further requests have ended."""
        enough = len(self.seconds) + more
        wait_until(lambda: len(self.seconds) >= enough, f"{more} more requests to end")


@contextmanager
def load(mesh: Mesh, *front_doors: str, rate: float = 40, model: str = "chat") -> Generator[Load]:
    """Sends requests as long as the block runs, whatever becomes of those before."""
    stop = threading.Event()
    found = Load()

    def one(door: str) -> None:
        begun = time.monotonic()
        try:
            answer = mesh.ask(door, model)
            found.statuses.append(answer.status_code)
            found.clusters.append(answer.headers.get("x-fleet-cluster", ""))
            if answer.status_code != 200:
                found.failures.append(f"{answer.status_code} {answer.text[:200]}")
        except httpx.HTTPError as error:
            found.failures.append(repr(error))
        found.seconds.append(time.monotonic() - begun)

    def send() -> None:
        with ThreadPoolExecutor(max_workers=120) as pool:
            begun, number = time.monotonic(), 0
            while not stop.wait(max(0.0, begun + number / rate - time.monotonic())):
                pool.submit(one, front_doors[number % len(front_doors)])
                number += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield found
    finally:
        stop.set()
        sender.join()


def shared(cluster: str) -> Iterator[Object]:
    """What every model's routes build on, as `cluster` gets it."""
    member = HostCluster(cluster)
    port = {name: member.port(name) for name in (gateways.FRONT_DOOR, gateways.REGIONAL_GATEWAY, gateways.EGRESS, gateways.STREAM_RELAY)}
    policies = [
        gateway_objects.listener_overrides(gateway_objects.FRONT_DOOR, {cluster: port[gateways.FRONT_DOOR]}),
        gateway_objects.listener_overrides(gateway_objects.REGIONAL_GATEWAY, {cluster: port[gateways.REGIONAL_GATEWAY]}),
        gateway_objects.listener_overrides(gateway_objects.EGRESS, {cluster: port[gateways.EGRESS]}),
        stream_relay.port_overrides({cluster: (port[gateways.STREAM_RELAY], port[gateways.EGRESS])}),
    ]
    for each in (
        gateway_objects.front_door_gateway(),
        gateway_objects.regional_gateway(),
        gateway_objects.egress_gateway(),
        routes.predictors_rule(NUMBERS),
        stream_relay.relay_entry(),
        stream_relay.relay_rule(MOST_REQUESTS),
        front_door_filter(NUMBERS, RELAY),
        regional_filter(NUMBERS),
    ):
        yield overridden(each, policies, cluster)


def models() -> list[ModelRoutes]:
    """`chat` is in both regions, `talk` too and goes through the relay, `solo` in one only; `wide` is there to be looked at."""
    at = {name: Endpoint(region=name, address="127.0.0.1", port=HostCluster(name).port(gateways.REGIONAL_GATEWAY)) for name in (EAST, WEST)}
    away = [Endpoint(region=region, address="127.0.0.2", port=_NOBODY + place) for place, region in enumerate(("ap-south", EAST, "sa-east"))]
    return [
        ModelRoutes(model="chat", endpoints=[at[EAST], at[WEST]], failover=NUMBERS, streams=NO_RELAY),
        ModelRoutes(model="talk", endpoints=[at[EAST], at[WEST]], failover=NUMBERS, streams=RELAY),
        ModelRoutes(model="solo", endpoints=[at[EAST]], failover=NUMBERS, streams=NO_RELAY),
        ModelRoutes(model="wide", endpoints=[at[EAST], at[WEST], *away], failover=NUMBERS, streams=NO_RELAY),
    ]


def asking(cluster: str, spec: AuthenticationSpec) -> Iterator[Object]:
    """What makes the front door of `cluster` ask who calls."""
    egress = callers.egress_overrides({cluster: str(HostCluster(cluster).port(gateways.EGRESS))})
    for each in callers.objects(spec).values():
        yield overridden(each, [egress], cluster)


def authorizer_entry(port: int) -> Object:
    spec = {
        "hosts": ["authorizer.test"],
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "endpoints": [{"address": "127.0.0.1", "ports": {"http": port}}],
    }
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "authorizer", "namespace": "models"}, "spec": spec}


def ask_the_authorizer(unit: Unit, cluster: Cluster) -> Unit:
    """The mesh configuration of a team that has an extension provider `keys`."""
    provider = {"name": "keys", "envoyExtAuthzHttp": {"service": "authorizer.test", "port": 80, "includeRequestHeadersInCheck": ["authorization"]}}
    (file,) = cluster.member.dir.glob("istio-mesh.yaml")
    file.write_text(yaml.safe_dump({**HOST_PROCESS_MESH, "extensionProviders": [provider]}))
    return unit


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        state = tmp_path_factory.mktemp("state")
        patch.setattr(paths, "STATE", state)
        server = stack.enter_context(run_api_server(tmp_path_factory.mktemp("api-server")))
        pods = {name: Pod(name) for name in (EAST, WEST)}
        for pod in pods.values():
            stack.callback(pod.close)
        issuer, authorizer = Issuer(), Authorizer()
        stack.callback(authorizer.close)
        clusters = {name: Cluster(name, stack) for name in CLUSTERS}
        tokens = JwtIssuerSpec(issuer=ISSUER, audiences=(AUDIENCE,), jwks=issuer.jwks())
        clusters[TOKENS].declare(*asking(TOKENS, JwtAuthenticationSpec(kind="jwt", issuers=(tokens,))))
        clusters[EXTERNAL].declare(*asking(EXTERNAL, ExternalAuthenticationSpec(kind="external", provider="keys")), authorizer_entry(authorizer.port))
        # Ports of all must be known before any object is written.
        for cluster in clusters.values():
            cluster.member.kubeconfig.write_text(server.kubeconfig.read_text())
            cluster.declare(*shared(cluster.name))
            for model in models():
                cluster.declare(*routes.resolved(model, cluster.name, cluster.name))
                if cluster.name in pods:
                    cluster.declare(pods_entry(model.model, [("127.0.0.1", pods[cluster.name].port)]))
            unit = istio.unit(cluster.member)
            cluster.start(ask_the_authorizer(unit, cluster) if cluster.name == EXTERNAL else unit, f"--configDir={cluster.objects}")
        for cluster in clusters.values():
            wait_until(lambda cluster=cluster: answers(f"http://127.0.0.1:{cluster.member.port('istiod-http')}/ready"), f"istiod of {cluster.name}")
            for name in CLUSTERS[cluster.name]:
                cluster.start_gateway(name)
        for cluster in clusters.values():
            for name in CLUSTERS[cluster.name]:
                ready = f"http://127.0.0.1:{cluster.member.port(f'{name}-admin')}/ready"
                wait_until(lambda ready=ready: answers(ready), f"{name} of {cluster.name}", log=cluster.member.dir / f"{name}.log")
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None, max_keepalive_connections=100)))
        made = Mesh(clusters, pods, client, issuer, authorizer)
        for door in (WEST, EU):
            for region in (EAST, WEST):
                wait_until(lambda door=door, region=region: made.healthy(door, region), f"{region} at the front door of {door}")
        yield made


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(autouse=True)
def well(mesh: Mesh) -> Iterator[None]:
    """Every test finds and leaves both regions in service."""
    yield
    for pod in mesh.pods.values():
        pod.well()
    for region in (EAST, WEST):
        mesh.wait_healthy(region)
