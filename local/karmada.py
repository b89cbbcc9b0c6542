"""Karmada on the hub: its aggregated API, controllers, scheduler and webhook as host processes.

The hub is the federation's control plane and runs no workloads. Which objects are propagated where is declared by
components/; how a member cluster becomes known to Karmada is membership.py.
"""

import base64
import re
import sys
from typing import Any

import httpx

from kube.client import ApiError, Kube
from local import manifests, pki
from local.failback import FAILBACK, failback_unit, install
from local.host_cluster import HostCluster, UnitError
from local.units import HttpReady, Unit
from specs.control_planes.karmada import CONTROLLERS, SCHEDULER, WEBHOOK, Flags, arguments, of_settings
from specs.naming import CLUSTER_NAMESPACE
from toolchain import tools

NAMESPACE = "karmada-system"

AGGREGATED = "karmada-aggregated-apiserver"

# Each starts when the one before it is ready: Karmada's controllers exit if the Cluster API does not answer, and their
# first writes to policies and bindings pass through the webhook.
UNITS = (AGGREGATED, WEBHOOK, CONTROLLERS, SCHEDULER)

# Go lets a heap double before it collects; half as much saves a third of the memory for little CPU. No GOMEMLIMIT: a
# process whose live heap outgrows it spends half of its time collecting.
LEAN = {"GOGC": "50"}

Object = dict[str, Any]


def apply(spec: Object) -> Object:
    """Makes Karmada answer on the hub `spec["cluster"]`; again and again with the same result.

    Returns {"version"}. Raises ApiError, Unreachable, TimeoutError, or UnitError that names the unit and its log.
    """
    flags = of_settings(spec.get("settings") or {})
    hub = HostCluster(spec["cluster"])
    cert = pki.serving_certificate(hub, "karmada", [f"{name}.{NAMESPACE}.svc" for name in (AGGREGATED, WEBHOOK)])
    with Kube.from_kubeconfig(hub.kubeconfig, timeout=60) as kube:
        _say("CRDs of Karmada, KServe and Istio on the hub")
        crds = manifests.apply_crds(kube, hub_crds(hub, cert.ca_pem))
        manifests.apply_all(kube, [manifests.namespace(NAMESPACE), manifests.namespace(CLUSTER_NAMESPACE)])
        for unit in units(hub, flags, cert, crds):
            hub.put_unit(unit)
        hub.wait_ready(AGGREGATED, 60)
        manifests.apply_all(kube, aggregated_api(hub, cert.ca_pem))
        kube.wait(lambda: _serves_clusters(kube), 60, f"API cluster.karmada.io on `{hub.name}`, served by {AGGREGATED}")
        _say("Karmada's webhook and controllers")
        # Only once the webhook answers: its configurations fail closed and would refuse every write to Karmada's kinds.
        hub.wait_ready(WEBHOOK, 60)
        manifests.apply_all(kube, webhooks(hub, cert.ca_pem))
        kube.wait(lambda: _webhook_answers(kube), 30, f"{WEBHOOK} on `{hub.name}`")
        hub.wait_ready(CONTROLLERS, 90)
        hub.wait_ready(SCHEDULER, 60)
        install(hub, kube, NAMESPACE, failback_unit(hub, LEAN, ["kube-apiserver", AGGREGATED, CONTROLLERS]))
    return {"version": running_version(hub)}


def ask(url: str) -> str:
    """The text at a loopback address. Raises UnitError."""
    try:
        return httpx.get(url, timeout=10, trust_env=False).raise_for_status().text
    except httpx.HTTPError as error:
        raise UnitError(f"{url}: {error}") from None


def running_version(hub: HostCluster) -> str:
    """What the controllers say of themselves. Raises UnitError where they do not answer, ValueError where they are silent."""
    metrics = ask(f"http://127.0.0.1:{hub.port(CONTROLLERS + '-metrics')}/metrics")
    found = re.search(r'^karmada_build_info\{.*git_version="([^"]+)"', metrics, re.MULTILINE)
    if not found:
        raise ValueError(f"{CONTROLLERS} on `{hub.name}`: reports no version in its metric karmada_build_info")
    return found[1]


def delete(spec: Object) -> Object:
    """Stops Karmada's processes. Its objects go with the hub, which the same stack deletes next."""
    hub = HostCluster(spec["cluster"])
    if hub.exists():
        for name in (FAILBACK, *reversed(UNITS)):
            hub.remove_unit(name)
    return {}


def hub_crds(hub: HostCluster, ca: bytes) -> list[Object]:
    """Karmada's own CRDs, and those of what it propagates, so that templates can be declared on the hub.

    KServe's are the minimal ones: the hub checks nothing about an InferenceService, its members do; no KServe
    controller or webhook runs here. All must be there before the controllers start: they look for new kinds every 30
    seconds only (pkg/detector/detector.go).
    """
    base = tools.share("karmada") / "charts/karmada/_crds"
    karmada = [crd for path in sorted((base / "bases").rglob("*.yaml")) for crd in manifests.read(path)]
    patches = {item["metadata"]["name"]: item for path in sorted((base / "patches").glob("*.yaml")) for item in manifests.read(path)}
    for crd in karmada:
        patch = patches.get(crd["metadata"]["name"])
        if patch:
            client = {"url": f"{_webhook_url(hub)}/convert", "caBundle": base64.b64encode(ca).decode()}
            crd["spec"]["conversion"] = {**patch["spec"]["conversion"], "webhook": {**patch["spec"]["conversion"]["webhook"], "clientConfig": client}}
    return [*karmada, *kserve_crds(minimal=True), *istio_crds()]


def kserve_crds(*, minimal: bool) -> list[Object]:
    chart = tools.share("kserve") / "charts" / ("kserve-crd-minimal" if minimal else "kserve-crd")
    # ClusterStorageContainer lies in files/; its template only wraps it in Helm conditions.
    plain = [path for path in sorted((chart / "templates").glob("*.yaml")) if not (chart / "files" / path.name).exists()]
    return [crd for path in [*plain, *sorted((chart / "files").glob("*.yaml"))] for crd in manifests.read(path)]


def istio_crds() -> list[Object]:
    return manifests.read(tools.share("istio") / "manifests/charts/base/files/crd-all.gen.yaml")


def aggregated_api(hub: HostCluster, ca: bytes) -> list[Object]:
    """Cluster is no CRD: this API server of Karmada's own serves it. The hub's API server forwards to it."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": AGGREGATED, "namespace": NAMESPACE},
        # An API server on the host proxies to externalName:port. TLS still expects the name <service>.<namespace>.svc.
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1alpha1.cluster.karmada.io"},
        "spec": {
            "group": "cluster.karmada.io",
            "version": "v1alpha1",
            "groupPriorityMinimum": 2000,
            "versionPriority": 10,
            "caBundle": base64.b64encode(ca).decode(),
            "service": {"name": AGGREGATED, "namespace": NAMESPACE, "port": hub.port(AGGREGATED)},
        },
    }
    return [service, api]


def webhooks(hub: HostCluster, ca: bytes) -> list[Object]:
    path = tools.share("karmada") / "artifacts/deploy/webhook-configuration.yaml"
    return manifests.point_webhooks_at(manifests.read_template(path, {"caBundle": ""}), _webhook_url(hub), ca)


def units(hub: HostCluster, flags: Flags, cert: pki.ServingCertificate, crds: str) -> list[Unit]:
    """The four processes. `flags` is what they are given beyond ports and files: specs/control_planes/karmada.py.

    `crds` is a digest of what the hub serves: a change restarts the controllers, which would otherwise find a new kind only
    after up to 30 seconds.
    """
    aggregated = Unit(
        name=AGGREGATED,
        gives_way=True,
        argv=[
            str(tools.path(AGGREGATED)),
            f"--kubeconfig={hub.kubeconfig}",
            f"--authentication-kubeconfig={hub.kubeconfig}",
            f"--authorization-kubeconfig={hub.kubeconfig}",
            *hub.etcd_flags(),
            f"--tls-cert-file={cert.cert}",
            f"--tls-private-key-file={cert.key}",
            "--bind-address=127.0.0.1",
            f"--secure-port={hub.port(AGGREGATED)}",
        ],
        env=LEAN,
        after=["kube-apiserver"],
        ready=HttpReady(url=f"https://127.0.0.1:{hub.port(AGGREGATED)}/readyz", insecure=True),
    )
    webhook = Unit(
        name=WEBHOOK,
        gives_way=True,
        argv=[
            str(tools.path(WEBHOOK)),
            f"--kubeconfig={hub.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={hub.port(WEBHOOK)}",
            f"--cert-dir={cert.directory}",
            *arguments(flags, WEBHOOK),
            f"--metrics-bind-address=127.0.0.1:{hub.port(WEBHOOK + '-metrics')}",
            f"--health-probe-bind-address=127.0.0.1:{hub.port(WEBHOOK + '-health')}",
        ],
        env=LEAN,
        after=["kube-apiserver"],
        ready=HttpReady(url=f"https://127.0.0.1:{hub.port(WEBHOOK)}/readyz", insecure=True),
    )
    controllers = Unit(
        name=CONTROLLERS,
        gives_way=True,
        argv=[
            str(tools.path(CONTROLLERS)),
            f"--kubeconfig={hub.kubeconfig}",
            "--leader-elect=false",
            *arguments(flags, CONTROLLERS),
            f"--metrics-bind-address=127.0.0.1:{hub.port(CONTROLLERS + '-metrics')}",
            f"--health-probe-bind-address=127.0.0.1:{hub.port(CONTROLLERS + '-health')}",
        ],
        env={**LEAN, "FLEET_HUB_CRDS": crds},
        after=["kube-apiserver", AGGREGATED, WEBHOOK],
        ready=HttpReady(url=f"http://127.0.0.1:{hub.port(CONTROLLERS + '-health')}/healthz"),
    )
    scheduler = Unit(
        name=SCHEDULER,
        gives_way=True,
        argv=[
            str(tools.path(SCHEDULER)),
            f"--kubeconfig={hub.kubeconfig}",
            "--leader-elect=false",
            *arguments(flags, SCHEDULER),
            f"--metrics-bind-address=127.0.0.1:{hub.port(SCHEDULER + '-metrics')}",
            f"--health-probe-bind-address=127.0.0.1:{hub.port(SCHEDULER + '-health')}",
        ],
        env=LEAN,
        after=["kube-apiserver", AGGREGATED, WEBHOOK],
        ready=HttpReady(url=f"http://127.0.0.1:{hub.port(SCHEDULER + '-health')}/healthz"),
    )
    return [aggregated, webhook, controllers, scheduler]


def _webhook_url(hub: HostCluster) -> str:
    return f"https://127.0.0.1:{hub.port(WEBHOOK)}"


def _serves_clusters(kube: Kube) -> bool:
    kube.request("GET", "/apis/cluster.karmada.io/v1alpha1/clusters", params={"limit": "1"})
    return True


def _webhook_answers(kube: Kube) -> bool:
    """A dry run that every mutating and validating hook of a policy sees."""
    probe = {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "ClusterPropagationPolicy",
        "metadata": {"name": "inference-fleet-probe"},
        "spec": {"resourceSelectors": [{"apiVersion": "v1", "kind": "Namespace", "name": "inference-fleet-probe"}]},
    }
    try:
        kube.create(probe, dry_run=True)
    except ApiError as error:
        return error.reason == "AlreadyExists"
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
