"""The admin interface of a local regional gateway: health checks that fail on purpose, requests in flight."""

import json
import time
import urllib.request
from typing import Any

from local.gateways import REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from operations.drills.faults.errors import FaultError

_ADMIN_S = 5.0


def call(cluster: HostCluster, gateway: str, path: str, *, post: bool = False, timeout: float = _ADMIN_S) -> bytes:
    """What the admin interface of a gateway answers. Raises OSError where it does not."""
    request = urllib.request.Request(f"http://127.0.0.1:{cluster.port(f'{gateway}-admin')}{path}", method="POST" if post else "GET")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as answer:
        return answer.read()


def in_flight(cluster: HostCluster) -> int:
    """Requests in flight at the regional gateway of a cluster."""
    found: dict[str, Any] = json.loads(call(cluster, REGIONAL_GATEWAY, "/stats?format=json&filter=^http%5C..*%5C.downstream_rq_active$"))
    return sum(int(each["value"]) for each in found["stats"] if not each["name"].startswith("http.admin."))


def await_idle(cluster: HostCluster, timeout_s: float) -> None:
    """Waits until nothing was in flight for a second, in which front doors see the failed health check. Raises FaultError."""
    deadline = time.monotonic() + timeout_s
    idle_since: float | None = None
    while time.monotonic() < deadline:
        now = time.monotonic()
        if in_flight(cluster):
            idle_since = None
        elif idle_since is None:
            idle_since = now
        elif now - idle_since > 1.0:
            return
        time.sleep(0.05)
    raise FaultError(f"{cluster.name}: requests still in flight {timeout_s:.0f} s after the drain began")
