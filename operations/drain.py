"""`fleet drain`: front doors leave the regional gateway of a local cluster, as planned; the case `drain` for daily use."""

from core.errors import FleetError
from core.exclusive import exclusive
from core.progress import Progress
from local.gateways import REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from operations.drills.faults import gateway_admin
from operations.drills.faults.errors import FaultError
from toolchain import paths

_DRAIN_S = 600.0


def drain(name: str, *, end: bool) -> None:
    """Fails the active health checks of a regional gateway, so that every front door leaves it; returns when nothing is in flight."""
    try:
        cluster = HostCluster(name)
    except ValueError as error:
        raise FleetError(str(error)) from None
    if not cluster.exists() or cluster.describe()["role"] != "member":
        raise FleetError(f"no local cluster with gateways: `{name}`", hint="make status lists them")
    progress = Progress()
    try:
        with exclusive(paths.STATE / "up.lock", "fleet drain"):
            gateway_admin.call(cluster, REGIONAL_GATEWAY, f"/healthcheck/{'ok' if end else 'fail'}", post=True)
            if end:
                progress.say(f"{cluster.name} takes requests again")
                return
            progress.say(f"{cluster.name} is draining: front doors send it no new requests; those in flight end")
            gateway_admin.await_idle(cluster, _DRAIN_S)
            progress.say(f"nothing is in flight in {cluster.name}; put it back by: fleet drain {cluster.name} --end")
    except (OSError, FaultError) as error:
        raise FleetError(f"{cluster.name}: {error}", hint="make status") from None
