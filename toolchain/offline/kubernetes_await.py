"""When an object counts as ready, as the official provider decides it, and waiting for that.

Waits are polls: each awaited object costs one or two small GETs a second, against loopback or one API server. Not
awaited: Ingress, since the fleet declares none and the official rule needs a load balancer.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube.client import ApiError, Kube, Unreachable, condition
from toolchain.offline.kubernetes_objects import SKIP_AWAIT, TIMEOUT, WAIT_FOR, Kind, Object, annotation, kind_of, metadata, name_of, namespace_of, title

DEFAULT_TIMEOUT_S = 600.0
# The official provider gives a Service's endpoints this long to settle before it believes that there are none.
ENDPOINTS_SETTLE_S = 10.0
_FIRST_POLL_S, _LAST_POLL_S = 0.1, 1.0


class WaitError(Exception):
    """A wait that ended without success. `live` is the object as last seen."""

    def __init__(self, message: str, reasons: list[str], live: Object) -> None:
        super().__init__(message)
        self.reasons = reasons
        self.live = live


class ExpressionError(Exception):
    """A pulumi.com/waitFor annotation that cannot be read."""


@dataclass(frozen=True)
class Verdict:
    """`failed` means that waiting longer is of no use."""

    ready: bool
    message: str = ""
    failed: bool = False


READY = Verdict(True)
Check = Callable[[Object], Verdict]


def timeout_of(obj: Object, custom_timeout_s: float) -> float:
    """Seconds: the resource option customTimeouts, else the annotation, else ten minutes."""
    if custom_timeout_s:
        return custom_timeout_s
    text = annotation(obj, TIMEOUT)
    return float(text) if text.isdecimal() else DEFAULT_TIMEOUT_S


def check_for(kube: Kube, inputs: Object, live: Object, before: Object | None) -> Check | None:
    """What to wait for after a create or update. None: nothing. Raises ExpressionError.

    `before` is the object before the update, None after a creation.
    """
    if annotation(inputs, SKIP_AWAIT) == "true":
        return None
    wishes = annotation(live, WAIT_FOR)
    if wishes:
        return _all(parse_wait_for(wishes))
    return readiness(kube, live, before)


def readiness(kube: Kube, live: Object, before: Object | None, settle_s: float = ENDPOINTS_SETTLE_S) -> Check | None:
    """The rule for a built-in kind. `settle_s` 0 judges a Service at once, as a refresh does."""
    kind = kind_of(live)
    if kind == Kind("", "v1", "Service"):
        return _service(kube, settle_s)
    rule = _RULES.get((kind.group, kind.kind))
    return rule(kube, live, before) if rule else None


def wait(kube: Kube, live: Object, check: Check, timeout_s: float, cancelled: threading.Event, report: Callable[[str], None]) -> Object:
    """Polls until `check` is content and returns the object then. Raises WaitError.

    An API server that does not answer for a moment does not end the waiting.
    """
    deadline = time.monotonic() + timeout_s
    kind, pause, said = kind_of(live), _FIRST_POLL_S, ""
    while True:
        try:
            seen = kube.find(kind.api_version, kind.kind, name_of(live), namespace_of(live) or None)
            if seen is None:
                raise WaitError(f"{title(live)} was deleted while it was awaited", [], live)
            live = seen
            verdict = check(live)
        except (ApiError, Unreachable) as error:
            verdict = Verdict(False, str(error))
        if verdict.ready:
            return live
        if verdict.message != said:
            said = verdict.message
            report(said)
        if verdict.failed:
            raise WaitError(f"{title(live)} failed: {verdict.message}", _pod_troubles(kube, live), live)
        if cancelled.wait(pause):
            raise WaitError(f"waiting for {title(live)} was cancelled: {verdict.message}", [], live)
        if time.monotonic() > deadline:
            raise WaitError(f"timed out after {timeout_s:.0f} s waiting for {title(live)}: {verdict.message}", _pod_troubles(kube, live), live)
        pause = min(pause * 1.5, _LAST_POLL_S)


def wait_gone(kube: Kube, obj: Object, timeout_s: float, cancelled: threading.Event) -> None:
    """Waits until the API server no longer has the object. Another object of the same name counts as gone."""
    deadline = time.monotonic() + timeout_s
    kind, uid, pause, last = kind_of(obj), metadata(obj).get("uid"), _FIRST_POLL_S / 2, obj
    while True:
        trouble = ""
        try:
            live = kube.find(kind.api_version, kind.kind, name_of(obj), namespace_of(obj) or None)
            if live is None or (uid and metadata(live).get("uid") != uid):
                return
            last = live
        except (ApiError, Unreachable) as error:
            trouble = str(error)
        if cancelled.wait(pause):
            raise WaitError(f"waiting for {title(obj)} to be deleted was cancelled", [], last)
        if time.monotonic() > deadline:
            finalizers = ", ".join(metadata(last).get("finalizers") or [])
            why = trouble or (f"finalizers might be preventing deletion: {finalizers}" if finalizers else "it has no finalizers")
            raise WaitError(f"timed out after {timeout_s:.0f} s waiting for {title(obj)} to be deleted: {why}", [], last)
        pause = min(pause * 1.5, _LAST_POLL_S)


# --- pulumi.com/waitFor -----------------------------------------------------------------------------------------------


def parse_wait_for(text: str) -> list[Check]:
    """One condition or a JSON list of them: `condition=Ready`, `condition=Ready=False`, `jsonpath={.status.phase}=Ready`."""
    try:
        listed = json.loads(text)
    except ValueError:
        listed = None
    wishes = listed if isinstance(listed, list) and all(isinstance(item, str) for item in listed) else [text]
    if not wishes:
        raise ExpressionError(f"{WAIT_FOR}: at least one condition must be given")
    return [_wish(wish) for wish in wishes]


def _wish(text: str) -> Check:
    if text.startswith("condition="):
        name, _, status = text.removeprefix("condition=").partition("=")
        return _condition_check(name, status or "True")
    if text.startswith("jsonpath="):
        return _json_path_check(text)
    raise ExpressionError(f"{WAIT_FOR}: must start with `jsonpath=` or `condition=`, got: `{text}`")


def _condition_check(name: str, status: str) -> Check:
    def check(live: Object) -> Verdict:
        for entry in (live.get("status") or {}).get("conditions") or []:
            if str(entry.get("type")).lower() != name.lower():
                continue
            observed = entry.get("observedGeneration", (live.get("status") or {}).get("observedGeneration"))
            if observed is not None and observed < metadata(live).get("generation", 0):
                return Verdict(False, f"condition {name} is of generation {observed}, expected {metadata(live).get('generation')}")
            if str(entry.get("status")).lower() == status.lower():
                return READY
            detail = ": ".join(str(entry[key]) for key in ("reason", "message") if entry.get(key))
            return Verdict(False, f"condition {name} is {entry.get('status')}, expected {status}" + (f" ({detail})" if detail else ""))
        return Verdict(False, f"condition {name} is not reported yet, expected {status}")

    return check


_PATH_STEP = re.compile(
    r"""\.(?P<name>[\w\-]+) | \[\s*(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\s*\] | \[(?P<index>-?\d+)\] | (?P<all>\[\*\]|\.\*)
    | \[\?\(?\s*@(?P<left>(?:\.[\w\-]+)+)\s*==\s*(?P<mark>['"])(?P<right>.*?)(?P=mark)\s*\)?\]""",
    re.VERBOSE,
)


def _json_path_check(text: str) -> Check:
    raw = text.removeprefix("jsonpath=")
    match = re.fullmatch(r"\{\s*(.*?)\s*\}(?:=(.+))?", raw, re.DOTALL)
    if not match:
        raise ExpressionError(f"{WAIT_FOR}: must have the form `jsonpath={{.path}}` or `jsonpath={{.path}}=value`, got: `{text}`")
    shown, expected = match[1], match[2]
    steps: list[re.Match[str]] = []
    rest = shown.removeprefix("$")
    while rest:
        step = _PATH_STEP.match(rest)
        if not step:
            raise ExpressionError(f"{WAIT_FOR}: JSONPath is not supported from `{rest}`\nhint: names, [n], [*], ['key'] and [?(@.key==\"text\")] are")
        steps.append(step)
        rest = rest[step.end() :]

    def check(live: Object) -> Verdict:
        observed = (live.get("status") or {}).get("observedGeneration")
        if isinstance(observed, int) and observed < metadata(live).get("generation", 0):
            return Verdict(False, f"status is of generation {observed}, expected {metadata(live).get('generation')}")
        found: list[Any] = [live]
        for step in steps:
            found = [item for value in found for item in _select(value, step)]
        if not found:
            return Verdict(False, f"{{{shown}}} selects nothing yet" + (f", expected `{expected}`" if expected else ""))
        if expected is None:
            return READY
        if isinstance(found[0], dict | list):
            return Verdict(False, f"{{{shown}}} is no plain value, expected `{expected}`", failed=True)
        shown_value = json.dumps(found[0]) if isinstance(found[0], bool) else str(found[0])
        return READY if shown_value == expected else Verdict(False, f"{{{shown}}} is `{shown_value}`, expected `{expected}`")

    return check


def _select(value: Any, step: re.Match[str]) -> list[Any]:
    if step["all"]:
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if step["index"] is not None:
        index = int(step["index"])
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if step["left"]:
        items = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
        return [item for item in items if _member(item, step["left"]) == step["right"]]
    name = step["name"] if step["name"] is not None else step["quoted"]
    return [value[name]] if isinstance(value, dict) and name in value else []


def _member(value: Any, path: str) -> str | None:
    for name in path.lstrip(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else str(value)


def _all(checks: list[Check]) -> Check:
    def check(live: Object) -> Verdict:
        return next((verdict for verdict in (each(live) for each in checks) if not verdict.ready), READY)

    return check


# --- built-in kinds ---------------------------------------------------------------------------------------------------


def _status(live: Object) -> Object:
    return live.get("status") or {}


def _observed(live: Object) -> bool:
    return _status(live).get("observedGeneration", -1) >= metadata(live).get("generation", 0)


def _owned(kube: Kube, kind: Kind, owner: Object) -> list[Object]:
    uid = metadata(owner).get("uid")
    listed = kube.list(kind.api_version, kind.kind, namespace_of(owner))
    return [item for item in listed if any(ref.get("uid") == uid for ref in metadata(item).get("ownerReferences") or [])]


def _deployment(kube: Kube, _live: Object, _before: Object | None) -> Check:
    revision_key = "deployment.kubernetes.io/revision"

    def check(live: Object) -> Verdict:
        revision = annotation(live, revision_key)
        if not _observed(live) or not revision:
            return Verdict(False, "the deployment controller has not seen this version yet")
        for name in ("Available", "Progressing"):
            entry = condition(live, name)
            # The first rollout reports no Progressing condition with an outcome; Available says all.
            done = entry.get("status") == "True" and (name == "Available" or revision == "1" or entry.get("reason") == "NewReplicaSetAvailable")
            if not done:
                return Verdict(False, f"[{entry.get('reason', name)}] {entry.get('message', 'minimum number of live Pods was not attained')}")
        current = [item for item in _owned(kube, Kind("apps", "v1", "ReplicaSet"), live) if annotation(item, revision_key) == revision]
        if not current:
            return Verdict(False, f"the ReplicaSet of revision {revision} does not exist yet")
        wanted, ready = current[0].get("spec", {}).get("replicas", 1), _status(current[0]).get("readyReplicas", 0)
        if ready < wanted:
            return Verdict(False, f"waiting for app ReplicaSet to be available ({ready}/{wanted} Pods available)")
        return _claims(kube, live)

    return check


def _claims(kube: Kube, live: Object) -> Verdict:
    for volume in live.get("spec", {}).get("template", {}).get("spec", {}).get("volumes") or []:
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        found = kube.find("v1", "PersistentVolumeClaim", claim, namespace_of(live)) if claim else None
        if found and _status(found).get("phase") != "Bound":
            return Verdict(False, f"PersistentVolumeClaim {claim} is {_status(found).get('phase')}, expected Bound")
    return READY


def _stateful_set(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    def check(live: Object) -> Verdict:
        status, spec = _status(live), live.get("spec", {})
        if not _observed(live):
            return Verdict(False, "the statefulset controller has not seen this version yet")
        wanted = spec.get("replicas", 1)
        on_delete = spec.get("updateStrategy", {}).get("type") == "OnDelete" and metadata(live).get("generation", 1) > 1
        counts = ["replicas", "readyReplicas"] if on_delete else ["replicas", "readyReplicas", "currentReplicas"]
        if any(status.get(count, 0) != wanted for count in counts):
            return Verdict(False, f"{status.get('readyReplicas', 0)} out of {wanted} replicas succeeded readiness checks")
        if not on_delete and (not status.get("currentRevision") or status.get("currentRevision") != status.get("updateRevision")):
            return Verdict(False, f"revision is `{status.get('currentRevision', '')}`, expected `{status.get('updateRevision', '')}`")
        return READY

    return check


def _daemon_set(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    def check(live: Object) -> Verdict:
        status = _status(live)
        wanted = status.get("desiredNumberScheduled", 0)
        if not _observed(live):
            return Verdict(False, "the daemonset controller has not seen this version yet")
        for count in ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady"):
            if status.get(count, 0) < wanted:
                return Verdict(False, f"{count} is {status.get(count, 0)}, expected {wanted}")
        return READY

    return check


def _job(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    def check(live: Object) -> Verdict:
        failed = condition(live, "Failed")
        if failed.get("status") == "True":
            return Verdict(False, f"[{failed.get('reason')}] {failed.get('message')}", failed=True)
        if condition(live, "Complete").get("status") == "True":
            return READY
        counts = ", ".join(f"{count} {_status(live).get(count, 0)}" for count in ("active", "succeeded", "failed"))
        return Verdict(False, f"not complete ({counts})")

    return check


def _pod(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    def check(live: Object) -> Verdict:
        if _status(live).get("phase") == "Succeeded":
            return READY
        for name in ("PodScheduled", "Initialized", "Ready"):
            entry = condition(live, name)
            if entry.get("status") != "True":
                return Verdict(False, f"condition {name} is {entry.get('status', 'not reported')}: {entry.get('message', 'no message')}")
        return READY

    return check


def _service(kube: Kube, settle_s: float) -> Check:
    settled_at = time.monotonic() + settle_s

    def check(live: Object) -> Verdict:
        spec = live.get("spec", {})
        balanced = spec.get("type") == "LoadBalancer"
        if balanced and not (_status(live).get("loadBalancer") or {}).get("ingress"):
            return Verdict(False, "no address was allocated\nhint: does the cluster have a load balancer?")
        if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None" or not spec.get("selector"):
            return READY
        endpoints = kube.find("v1", "Endpoints", name_of(live), namespace_of(live))
        if endpoints is None:
            return Verdict(False, "the endpoints controller has not seen it yet")
        subsets = endpoints.get("subsets") or []
        if any(subset.get("notReadyAddresses") for subset in subsets):
            return Verdict(False, "some of the Pods that it selects are not ready")
        if any(subset.get("addresses") for subset in subsets) or time.monotonic() >= settled_at:
            return READY
        return Verdict(False, "finding Pods to direct traffic to")

    return check


def _volume(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    return lambda live: (
        READY if _status(live).get("phase") in ("Available", "Bound") else Verdict(False, f"phase is {_status(live).get('phase')}, expected Available or Bound")
    )


def _claim(kube: Kube, live: Object, before: Object | None) -> Check:
    storage_class = kube.find("storage.k8s.io/v1", "StorageClass", live.get("spec", {}).get("storageClassName") or "-")
    # Such a claim stays Pending until a Pod uses it.
    late = (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"

    def check(live: Object) -> Verdict:
        phase = _status(live).get("phase")
        wanted = "Pending" if late and before is None else "Bound"
        return READY if phase in (wanted, "Bound") else Verdict(False, f"phase is {phase}, expected {wanted}")

    return check


def _replication_controller(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    def check(live: Object) -> Verdict:
        wanted, available = live.get("spec", {}).get("replicas", 1), _status(live).get("availableReplicas", 0)
        return READY if wanted == available else Verdict(False, f"{available} out of {wanted} replicas are available")

    return check


def _resource_quota(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    return lambda live: (
        READY if _status(live).get("hard") == live.get("spec", {}).get("hard") else Verdict(False, "the quota controller has not taken it over yet")
    )


def _secret(_kube: Kube, live: Object, _before: Object | None) -> Check | None:
    if live.get("type") != "kubernetes.io/service-account-token":
        return None
    return lambda live: READY if live.get("data") else Verdict(False, "the token controller has not filled it yet")


def _definition(_kube: Kube, _live: Object, _before: Object | None) -> Check:
    """Not awaited by the official provider, which retries the custom resources instead."""

    def check(live: Object) -> Verdict:
        names = condition(live, "NamesAccepted")
        if names.get("status") == "False":
            return Verdict(False, f"[{names.get('reason')}] {names.get('message')}", failed=True)
        return READY if condition(live, "Established").get("status") == "True" else Verdict(False, "condition Established is not True yet")

    return check


_RULES: dict[tuple[str, str], Callable[[Kube, Object, Object | None], Check | None]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "ReplicationController"): _replication_controller,
    ("", "ResourceQuota"): _resource_quota,
    ("", "Secret"): _secret,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
}


def _pod_troubles(kube: Kube, live: Object) -> list[str]:
    """What the containers of the Pods behind a workload say, the usual reason for a timeout."""
    selector = (live.get("spec") or {}).get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    if kind_of(live).group not in ("apps", "batch") or not isinstance(labels, dict):
        return []
    troubles: list[str] = []
    try:
        pods = kube.list("v1", "Pod", namespace_of(live), label_selector=",".join(f"{key}={value}" for key, value in labels.items()))
    except (ApiError, Unreachable):
        return []
    for pod in pods:
        scheduled = condition(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            troubles.append(f"[Pod {name_of(pod)}]: {scheduled.get('message')}")
        for container in _status(pod).get("containerStatuses") or []:
            state = container.get("state") or {}
            entries = (state.get("waiting"), state.get("terminated"), (container.get("lastState") or {}).get("terminated"))
            troubles += [
                f"[Pod {name_of(pod)}] container {container.get('name')}: [{entry['reason']}] {entry.get('message', '')}".rstrip()
                for entry in entries
                if entry and entry.get("reason") not in (None, "ContainerCreating")
            ]
    return troubles[:10]
