"""`fleet drain`: takes a local cluster out of service as planned: no new requests, no new replicas."""

from core.errors import FleetError
from core.exclusive import exclusive
from core.progress import Progress
from kube.client import Kube, KubeError, Unreachable
from local.gateways import REGIONAL_GATEWAY
from local.host_cluster import HostCluster, all_clusters
from operations.cordon import set_cordon
from operations.drills.faults import gateway_admin
from operations.drills.faults.errors import FaultError
from toolchain import paths

_DRAIN_S = 600.0


def drain(name: str, *, end: bool) -> None:
    """Cordons a cluster and fails the active health checks of its regional gateway, so that every front door leaves it; returns
    when nothing is in flight. `end` undoes both."""
    try:
        cluster = HostCluster(name)
    except ValueError as error:
        raise FleetError(str(error)) from None
    if not cluster.exists() or cluster.describe()["role"] != "member":
        raise FleetError(f"no local cluster with gateways: `{name}`", hint="make status lists them")
    progress = Progress()
    try:
        with exclusive(paths.STATE / "up.lock", "fleet drain"):
            # Before the requests leave, and after they are back: a region that serves nobody should get no replicas.
            if not end:
                _cordon(cluster.name, on=True, progress=progress)
            gateway_admin.call(cluster, REGIONAL_GATEWAY, f"/healthcheck/{'ok' if end else 'fail'}", post=True)
            if end:
                _cordon(cluster.name, on=False, progress=progress)
                progress.say(f"{cluster.name} takes requests again")
                return
            progress.say(f"{cluster.name} is draining: front doors send it no new requests; those in flight end")
            gateway_admin.await_idle(cluster, _DRAIN_S)
            progress.say(f"nothing is in flight in {cluster.name}; put it back by: fleet drain {cluster.name} --end")
    except (OSError, FaultError) as error:
        raise FleetError(f"{cluster.name}: {error}", hint="make status") from None


def _cordon(name: str, *, on: bool, progress: Progress) -> None:
    """A hub that is away places no replicas and stops no drain."""
    hub = next((each for each in all_clusters() if each.describe()["role"] == "hub"), None)
    try:
        if hub is None or not hub.alive():
            raise Unreachable("the hub is not running")
        with Kube.from_kubeconfig(hub.kubeconfig) as api:
            set_cordon(api, name, on=on)
    except (KubeError, TimeoutError) as error:
        progress.say(f"{name} is not {'cordoned' if on else 'uncordoned'}: {error}; karmadactl {'cordon' if on else 'uncordon'} {name}")
