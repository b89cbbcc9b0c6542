"""The failback controller of a hub as a host process: gives regions that came back their declared share (docs/failback.md)."""

import base64
from pathlib import Path

import yaml

from core.files import write_atomically
from kube.client import Kube
from local import manifests, pki
from local.host_cluster import HostCluster
from local.units import HttpReady, Unit
from specs import failback_access, propagation
from toolchain import tools

FAILBACK = failback_access.NAME


def install(hub: HostCluster, kube: Kube, lease_namespace: str, unit: Unit) -> None:
    """Grants the controller its rights on the hub and starts it."""
    manifests.apply_all(kube, failback_access.hub_access(lease_namespace))
    _write_kubeconfig(hub)
    hub.put_unit(unit)
    hub.wait_ready(FAILBACK, 60)


def failback_unit(hub: HostCluster, env: dict[str, str], after: list[str]) -> Unit:
    """env: settings of Go's runtime. after: units that serve what the controller reads."""
    return Unit(
        name=FAILBACK,
        gives_way=True,
        argv=[
            str(tools.path(FAILBACK)),
            f"--kubeconfig={_kubeconfig(hub)}",
            # One process by construction. With a lease, one that was killed would keep its successor waiting.
            "--leader-elect=false",
            f"--orphan-kinds={','.join(propagation.removable_kinds())}",
            f"--orphan-selector={propagation.MANAGED}",
            f"--metrics-bind-address=127.0.0.1:{hub.port(FAILBACK + '-metrics')}",
            f"--health-probe-bind-address=127.0.0.1:{hub.port(FAILBACK + '-health')}",
        ],
        env=env,
        after=after,
        ready=HttpReady(url=f"http://127.0.0.1:{hub.port(FAILBACK + '-health')}/readyz"),
    )


def _kubeconfig(hub: HostCluster) -> Path:
    return hub.dir / f"{FAILBACK}.kubeconfig"


def _write_kubeconfig(hub: HostCluster) -> None:
    """The hub's own, with a user of fewer rights. Not the admin: Karmada's proxy impersonates no user that nothing names."""
    cert, key = pki.client_certificate(hub, FAILBACK, FAILBACK)
    config = yaml.safe_load(hub.kubeconfig.read_text())
    inline = {f"client-{what}-data": base64.b64encode(path.read_bytes()).decode() for what, path in (("certificate", cert), ("key", key))}
    config["users"][0]["user"] = inline
    write_atomically(_kubeconfig(hub), yaml.safe_dump(config, sort_keys=False))
