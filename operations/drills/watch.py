"""What the front doors do meanwhile: how much each has sent to each region, and which regions it keeps out.

Asked of Envoy's admin interface several times a second, beside the load and not in its way. Only local front doors have one
that can be reached.
"""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from local.gateways import FRONT_DOOR
from local.host_cluster import HostCluster
from operations.drills.result import DoorSample

INTERVAL_S = 0.05
_ASK_S = 1.0


class Watch:
    """Looks from `with` on. `hosts`: {label of a load: Istio host of its model}; `ports`: {port of a regional gateway: cluster}."""

    def __init__(self, doors: Sequence[str], hosts: Mapping[str, str], ports: Mapping[int, str], now: Callable[[], float]) -> None:
        self.samples: dict[str, list[DoorSample]] = {label: [] for label in hosts}
        self._hosts, self._ports, self._now = hosts, ports, now
        self._urls = {door: f"http://127.0.0.1:{HostCluster(door).port(f'{FRONT_DOOR}-admin')}/clusters?format=json" for door in doors}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            self.look()
            self._stop.wait(max(0.0, INTERVAL_S - (time.monotonic() - begun)))

    def look(self) -> None:
        sent: dict[str, dict[str, dict[str, int]]] = {label: {} for label in self._hosts}
        flags: dict[str, dict[str, dict[str, list[str]]]] = {label: {} for label in self._hosts}
        for door, url in self._urls.items():
            try:
                with self._opener.open(url, timeout=_ASK_S) as answer:
                    told = json.load(answer)
            except (OSError, ValueError):
                # A door that is down has nothing to tell; it is left out.
                continue
            for label, host in self._hosts.items():
                counts, kept_out = read(told, host, self._ports)
                sent[label][door] = counts
                if kept_out:
                    flags[label][door] = kept_out
        # A request that is counted was sent before now.
        now = self._now()
        for label in self._hosts:
            self.samples[label].append(DoorSample(at=now, sent=sent[label], flags=flags[label]))


def read(told: Mapping[str, Any], host: str, ports: Mapping[int, str]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """({cluster: requests sent}, {cluster: flags that keep it out}) of one model, of what `/clusters?format=json` says."""
    counts: dict[str, int] = {}
    flags: dict[str, list[str]] = {}
    for each in told.get("cluster_statuses") or []:
        # outbound|<port>|<subset>|<host>
        if each["name"].rsplit("|", 1)[-1] != host:
            continue
        for endpoint in each.get("host_statuses") or []:
            cluster = ports.get(endpoint["address"].get("socket_address", {}).get("port_value", 0))
            if cluster is None:
                continue
            totals = [int(stat.get("value", 0)) for stat in endpoint.get("stats") or [] if stat["name"] == "rq_total"]
            counts[cluster] = counts.get(cluster, 0) + sum(totals)
            raised = sorted(flag for flag, value in (endpoint.get("health_status") or {}).items() if value is True)
            if raised:
                flags[cluster] = raised
    return counts, flags
