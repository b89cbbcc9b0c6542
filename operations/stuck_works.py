"""Objects that members hold and the hub takes for refused.

Karmada creates an object twice that is deleted and wanted again at once: its execution controller and its status controller both
do, each by its own event. The second create finds the object there, which the status controller notes in the Work and never takes
back (1.18.2: pkg/controllers/status/work_status_controller.go, lines 304 to 309): the hub shows the model in that cluster as not
ready and without replicas. A Work that changes is synced again.
"""

from typing import Any

from kube.client import Kube
from specs import naming

_WORK = ("work.karmada.io/v1alpha1", "Work")
_REASON, _NOTE = "ReCreateFailed", "already exists"

Object = dict[str, Any]


def is_stuck(work: Object) -> bool:
    """Whether a Work notes that its object could not be made anew because it exists."""
    conditions = (work.get("status") or {}).get("conditions") or []
    return any(
        each["type"] == "Applied" and each["status"] == "False" and each.get("reason") == _REASON and _NOTE in each.get("message", "") for each in conditions
    )


def release(hub: Kube) -> list[str]:
    """Has Karmada look anew at each such Work. Returns them as `KIND NAME in CLUSTER`."""
    found: list[str] = []
    for work in hub.list(*_WORK):
        if is_stuck(work):
            metadata = work["metadata"]
            # A change that means nothing: false is what it is where it is not set.
            changed = None if work["spec"].get("suspendDispatching") is False else False
            hub.patch(*_WORK, metadata["name"], {"spec": {"suspendDispatching": changed}}, metadata["namespace"])
            manifest = work["spec"]["workload"]["manifests"][0]
            found.append(f"{manifest['kind']} {manifest['metadata']['name']} in {metadata['namespace'].removeprefix(naming.EXECUTION_SPACE)}")
    return found
