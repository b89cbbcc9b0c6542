"""The failback controller of a hub as a host process: gives regions that came back their declared share (docs/failback.md)."""

from local.host_cluster import HostCluster
from local.units import HttpReady, Unit
from specs import propagation
from toolchain import tools

FAILBACK = "fleet-failback"


def failback_unit(hub: HostCluster, env: dict[str, str], after: list[str]) -> Unit:
    """env: settings of Go's runtime. after: units that serve what the controller reads."""
    return Unit(
        name=FAILBACK,
        gives_way=True,
        argv=[
            str(tools.path(FAILBACK)),
            f"--kubeconfig={hub.kubeconfig}",
            # One process by construction. With a lease, one that was killed would keep its successor waiting.
            "--leader-elect=false",
            f"--orphan-kinds={','.join(propagation.REQUIRED_KINDS)}",
            f"--orphan-selector={propagation.MANAGED}",
            f"--metrics-bind-address=127.0.0.1:{hub.port(FAILBACK + '-metrics')}",
            f"--health-probe-bind-address=127.0.0.1:{hub.port(FAILBACK + '-health')}",
        ],
        env=env,
        after=after,
        ready=HttpReady(url=f"http://127.0.0.1:{hub.port(FAILBACK + '-health')}/readyz"),
    )
