"""How each fault in a local cluster is undone. A step is plain JSON, so that another process can do it after a crash.

Every undo can be repeated. It returns what it did, or an empty text where there was nothing to do; clusters that are gone need none.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from core.errors import FleetError
from local import desired_state
from local.gateways import REGIONAL_GATEWAY
from local.host_cluster import HostCluster, PortError
from local.units import Unit
from operations.drills.faults import gateway_admin, mock_engine
from operations.drills.faults.errors import FaultError, Step
from toolchain.tools import ToolError

_READY_S = 60.0


def _start(step: Step) -> str:
    cluster = HostCluster(step["cluster"])
    if not cluster.exists() or cluster.alive():
        return ""
    begun = time.monotonic()
    # As a person does it: with all that follows from a return.
    try:
        desired_state.start(cluster)
    except (PortError, ToolError, FleetError, ValueError) as error:
        raise FaultError(str(error)) from None
    return f"{cluster.name} started again, {time.monotonic() - begun:.0f} s"


def _thaw(step: Step) -> str:
    cluster = HostCluster(step["cluster"])
    if not cluster.exists():
        return ""
    cluster.thaw()
    return f"{cluster.name} thawed"


def _start_unit(step: Step) -> str:
    cluster, unit = HostCluster(step["cluster"]), Unit.from_json(json.dumps(step["unit"]))
    if not cluster.exists() or not cluster.put_unit(unit):
        return ""
    if cluster.alive():
        cluster.wait_ready(unit.name, _READY_S)
    return f"{unit.name} of {cluster.name} started again"


def _admit(step: Step) -> str:
    cluster = HostCluster(step["cluster"])
    if not cluster.exists() or not cluster.alive():
        return ""
    gateway_admin.call(cluster, REGIONAL_GATEWAY, "/healthcheck/ok", post=True)
    return f"{cluster.name} takes requests again"


def _restore_folder(step: Step) -> str:
    path, away = Path(step["path"]), Path(step["away"])
    if not away.exists():
        return ""
    away.rename(path)
    return f"{path.name} restored"


def _thaw_engine(step: Step) -> str:
    # One that is gone with its region computes again when it is back.
    with contextlib.suppress(OSError):
        mock_engine.thaw(HostCluster(step["cluster"]))
    return ""


def _remove_mock_engines(step: Step) -> str:
    mock_engine.remove([HostCluster(name) for name in step["clusters"]])
    return "mock engines removed"


UNDO: dict[str, Callable[[Step], str]] = {
    "start": _start,
    "thaw": _thaw,
    "start unit": _start_unit,
    "admit": _admit,
    "restore folder": _restore_folder,
    "thaw engine": _thaw_engine,
    "remove mock engines": _remove_mock_engines,
}


def start_step(cluster: HostCluster) -> Step:
    return {"undo": "start", "cluster": cluster.name}


def start_unit_step(cluster: HostCluster, unit: Unit) -> Step:
    return {"undo": "start unit", "cluster": cluster.name, "unit": json.loads(unit.to_json())}


def remove_mock_engines_step(clusters: Iterable[HostCluster]) -> Step:
    return {"undo": "remove mock engines", "clusters": [each.name for each in clusters]}
