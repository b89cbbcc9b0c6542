"""The Kubernetes part of a local cluster: etcd, API server, controllers, and kwok for simulated nodes.

A member is a whole Kubernetes control plane. The hub is what Karmada stands on: no scheduler, no workload controllers,
because templates declared there must not run there.
Everything listens on 127.0.0.1 with TLS and client certificates.
"""

import base64
import json
from pathlib import Path
from typing import Any

import yaml

from core.files import write_atomically
from kube.client import Kube
from local import pki
from local.host_cluster import HostCluster, merge_kubeconfigs
from local.units import HttpReady, Unit
from toolchain import tools

# Karmada's own deployment runs these and no others (karmada artifacts/deploy/kube-controller-manager.yaml).
_HUB_CONTROLLERS = "namespace,garbagecollector,serviceaccount-token,serviceaccount,ttl-after-finished,clusterrole-aggregation"
# Of a member's controllers, those left out have nothing to do without volumes to attach or certificates to sign.
_MEMBER_CONTROLLERS = "*,-attachdetach,-persistentvolume-expander,-cronjob,-bootstrapsigner,-tokencleaner,-csrsigning,-csrapproving,-csrcleaner"

# Karmada refuses a front proxy certificate of the cluster's own authority unless its name is given.
_FRONT_PROXY = "front-proxy-client"

Object = dict[str, Any]


def apply(spec: Object) -> Object:
    """Makes and starts the cluster of `spec` {name, role: hub|member, region, zone}; result {kubeconfig, server, version}."""
    cluster = HostCluster(spec["name"])
    with cluster.locked():
        if cluster.exists() and cluster.describe()["role"] != spec["role"]:
            raise ValueError(f"cluster {cluster.name}: exists as {cluster.describe()['role']}, cannot become: `{spec['role']}`")
        units = _units(cluster, spec["role"])
        write_atomically(cluster.dir / "cluster.json", json.dumps(spec))
        for unit in units:
            cluster.put_unit(unit)
        cluster.ensure_supervised()
        for unit in units:
            cluster.wait_ready(unit.name, 120)
    merge_kubeconfigs()
    text = cluster.kubeconfig.read_text()
    with Kube.from_kubeconfig(text) as api:
        return {"kubeconfig": text, "server": api.server, "version": api.request("GET", "/version").json()["gitVersion"]}


def delete(spec: Object) -> Object:
    HostCluster(spec["name"]).delete()
    return {}


def _units(cluster: HostCluster, role: str) -> list[Unit]:
    _write_kubeconfig(cluster)
    units = [_etcd(cluster), _api_server(cluster, role), _controller_manager(cluster, role)]
    if role == "member":
        units += [_scheduler(cluster), _kwok(cluster)]
    return units


def _write_kubeconfig(cluster: HostCluster) -> None:
    cert, key = pki.client_certificate(cluster, "admin", "fleet-admin", "system:masters")

    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    server = {"server": f"https://127.0.0.1:{cluster.port('kube-apiserver')}", "certificate-authority-data": inline(pki.authority(cluster))}
    user = {"client-certificate-data": inline(cert), "client-key-data": inline(key)}
    name = cluster.name
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    write_atomically(cluster.kubeconfig, yaml.safe_dump(config, sort_keys=False))


def _etcd(cluster: HostCluster) -> Unit:
    certificate = pki.serving_certificate(cluster, "etcd", [])
    client, peer = (f"https://127.0.0.1:{cluster.port(name)}" for name in ("etcd", "etcd-peer"))
    authority = pki.authority(cluster)
    return Unit(
        name="etcd",
        gives_way=True,
        argv=[
            str(tools.path("etcd")),
            f"--name={cluster.name}",
            f"--data-dir={cluster.dir / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={cluster.name}={peer}",
            "--client-cert-auth",
            f"--trusted-ca-file={authority}",
            f"--cert-file={certificate.cert}",
            f"--key-file={certificate.key}",
            "--peer-client-cert-auth",
            f"--peer-trusted-ca-file={authority}",
            f"--peer-cert-file={certificate.cert}",
            f"--peer-key-file={certificate.key}",
            # What a killed process wrote is in the kernel's hands and survives it. Only a power cut could lose it, and a
            # local fleet is made again in a minute; a laptop's disk would spend that minute on flushing four etcds.
            "--unsafe-no-fsync",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=5m",
            "--log-level=warn",
        ],
        env={"GOGC": "50"},
        ready=HttpReady(url=f"{client}/health", ca=str(authority), cert=str(certificate.cert), key=str(certificate.key)),
    )


def _api_server(cluster: HostCluster, role: str) -> Unit:
    serving = pki.serving_certificate(cluster, "kube-apiserver", ["kubernetes", "kubernetes.default", "kubernetes.default.svc"])
    kubelet_cert, kubelet_key = pki.client_certificate(cluster, "kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
    proxy_cert, proxy_key = pki.client_certificate(cluster, "front-proxy", _FRONT_PROXY)
    authority, accounts = pki.authority(cluster), pki.service_account_key(cluster)
    # As Karmada's own API server: its objects are templates, whose pods and volumes never exist there.
    unused_admission = ["--disable-admission-plugins=StorageObjectInUseProtection,ServiceAccount"] if role == "hub" else []
    port = cluster.port("kube-apiserver")
    return Unit(
        name="kube-apiserver",
        gives_way=True,
        after=["etcd"],
        argv=[
            str(tools.path("kube-apiserver")),
            *cluster.etcd_flags(),
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority}",
            f"--kubelet-client-certificate={kubelet_cert}",
            f"--kubelet-client-key={kubelet_key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={authority}",
            f"--requestheader-allowed-names={_FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy_cert}",
            f"--proxy-client-key-file={proxy_key}",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--anonymous-auth=false",
            # Nobody reaches the API by the Service `kubernetes`, and a loopback endpoint would be refused each minute.
            "--endpoint-reconciler-type=none",
            "--event-ttl=30m",
            "--profiling=false",
            *unused_admission,
        ],
        # Collecting sooner keeps four API servers within a laptop's memory. No GOMEMLIMIT: with KServe's CRDs 250 MB are
        # live, and a limit near that makes the collector burn two cores.
        env={"GOGC": "50"},
        ready=HttpReady(
            url=f"https://127.0.0.1:{port}/readyz",
            ca=str(authority),
            cert=str(cluster.dir / "pki" / "admin.crt"),
            key=str(cluster.dir / "pki" / "admin.key"),
        ),
        stop_timeout_s=3,
    )


def _controller_manager(cluster: HostCluster, role: str) -> Unit:
    serving = pki.serving_certificate(cluster, "kube-controller-manager", [])
    port = cluster.port("kube-controller-manager")
    return Unit(
        name="kube-controller-manager",
        gives_way=True,
        after=["kube-apiserver"],
        argv=[
            str(tools.path("kube-controller-manager")),
            f"--kubeconfig={cluster.kubeconfig}",
            f"--controllers={_HUB_CONTROLLERS if role == 'hub' else _MEMBER_CONTROLLERS}",
            f"--service-account-private-key-file={pki.service_account_key(cluster)}",
            f"--root-ca-file={pki.authority(cluster)}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            # A laptop that sleeps or a region frozen by a drill must not find its pods evicted on return.
            "--node-monitor-grace-period=2m",
            "--profiling=false",
        ],
        env={"GOGC": "50"},
        ready=HttpReady(url=f"https://127.0.0.1:{port}/healthz", insecure=True),
        stop_timeout_s=2,
    )


def _scheduler(cluster: HostCluster) -> Unit:
    serving = pki.serving_certificate(cluster, "kube-scheduler", [])
    port = cluster.port("kube-scheduler")
    return Unit(
        name="kube-scheduler",
        gives_way=True,
        after=["kube-apiserver"],
        argv=[
            str(tools.path("kube-scheduler")),
            f"--kubeconfig={cluster.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            "--leader-elect=false",
            "--profiling=false",
        ],
        env={"GOGC": "50"},
        ready=HttpReady(url=f"https://127.0.0.1:{port}/healthz", insecure=True),
        stop_timeout_s=2,
    )


def _kwok(cluster: HostCluster) -> Unit:
    port = cluster.port("kwok")
    return Unit(
        name="kwok",
        gives_way=True,
        after=["kube-apiserver"],
        argv=[
            str(tools.path("kwok")),
            f"--kubeconfig={cluster.kubeconfig}",
            f"--config={Path(__file__).parent / 'kwok' / 'stages.yaml'}",
            # kwok keeps the nodes alive by leases, as kubelets do; without them the cluster counts its nodes as lost after two minutes.
            "--node-lease-duration-seconds=40",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--server-address=127.0.0.1:{port}",
            "--node-ip=",
            "--cidr=127.0.0.0/8",
        ],
        env={"GOGC": "50"},
        ready=HttpReady(url=f"http://127.0.0.1:{port}/healthz"),
        stop_timeout_s=2,
    )
