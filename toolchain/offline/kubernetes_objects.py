"""The pure half of the offline kubernetes plugin: names, normal forms, what changed and what that change means.

Semantics follow pulumi-kubernetes 4.34 (provider/pkg/provider), so that a stack can move between the two plugins
without a difference. Differences are found between the new inputs and the last known live object, cut down to the
fields that the old inputs named: what controllers and the API server add never shows, what they change of ours does.
No network here.
"""

import base64
import binascii
import copy
import functools
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolchain.offline.differences import MISSING, Path, at, parse_path
from toolchain.offline.quantity import canonicalize
from toolchain.offline.wire import Properties, Secret, has_secret, has_unknown, plain

Object = dict[str, Any]

# State keys of the official plugin; a stack that changes plugins finds them.
INPUTS = "__inputs"
INITIAL_API_VERSION = "__initialApiVersion"
FIELD_MANAGER = "__fieldManager"

PREFIX = "pulumi.com/"
AUTONAMED = PREFIX + "autonamed"
SKIP_AWAIT = PREFIX + "skipAwait"
WAIT_FOR = PREFIX + "waitFor"
TIMEOUT = PREFIX + "timeoutSeconds"
REPLACE_UNREADY = PREFIX + "replaceUnready"
PATCH_FORCE = PREFIX + "patchForce"
PATCH_FIELD_MANAGER = PREFIX + "patchFieldManager"
DELETION_PROPAGATION = PREFIX + "deletionPropagationPolicy"

# Field manager of creations. The first update moves its fields to the resource's own manager.
CREATE_MANAGER = "pulumi-kubernetes"
# Managers whose fields an update takes over: kubectl's, and those of this provider before server-side apply.
_ADOPTED_MANAGERS = frozenset(
    {("kubectl", "Apply"), ("kubectl", "Update"), ("before-first-apply", "Update")}
    | {(name, "Update") for name in (CREATE_MANAGER, "pulumi-kubernetes.exe", "pulumi-resource-kubernetes")}
)

_READ_ONLY_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)

# Groups of built-in kinds. CustomResources may use other groups ending in .k8s.io, such as gateway.networking.k8s.io.
_BUILT_IN_GROUPS = frozenset(
    {"", "apps", "autoscaling", "batch", "extensions", "policy"}
    | {
        f"{group}.k8s.io"
        for group in (
            "admissionregistration",
            "apiextensions",
            "apiregistration",
            "auditregistration",
            "certificates",
            "coordination",
            "discovery",
            "events",
            "flowcontrol.apiserver",
            "networking",
            "node",
            "rbac.authorization",
            "resource",
            "scheduling",
            "storage",
            "storagemigration",
        )
    }
)


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def built_in(self) -> bool:
        return self.group in _BUILT_IN_GROUPS

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


def kind_of(obj: Object) -> Kind:
    group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
    return Kind("" if group == "core" else group, version, str(obj.get("kind") or ""))


def kind_of_type(token: str) -> Kind | None:
    """The kind that a type token such as `kubernetes:apps/v1:Deployment` means. None for what is no API object."""
    parts = token.split(":")
    if len(parts) != 3 or parts[1].count("/") != 1:
        return None
    group, version = parts[1].split("/")
    return Kind("" if group == "core" else group, version, parts[2])


def metadata(obj: Object) -> Object:
    value = obj.get("metadata")
    return value if isinstance(value, dict) else {}


def name_of(obj: Object) -> str:
    name = metadata(obj).get("name")
    return name if isinstance(name, str) else ""


def namespace_of(obj: Object) -> str:
    namespace = metadata(obj).get("namespace")
    return namespace if isinstance(namespace, str) else ""


def annotation(obj: Object, key: str) -> str:
    annotations = metadata(obj).get("annotations")
    value = annotations.get(key) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else ""


def object_id(obj: Object) -> str:
    return f"{namespace_of(obj)}/{name_of(obj)}" if namespace_of(obj) else name_of(obj)


def title(obj: Object) -> str:
    """How messages name an object: kind, namespace and name."""
    return f"{obj.get('kind')} {object_id(obj)}"


def unique(prefix: str, seed: bytes = b"") -> str:
    """`prefix` and 8 hexadecimal digits, the same ones for the same seed."""
    return prefix + (hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4))


# --- inputs and state -------------------------------------------------------------------------------------------------

# Field names that are no Python identifiers; the SDK writes them with underscores.
_DASHED = {
    f"x_kubernetes_{tail.replace('-', '_')}": f"x-kubernetes-{tail}"
    for tail in ("embedded-resource", "int-or-string", "list-map-keys", "list-type", "map-type", "preserve-unknown-fields", "validations")
}
_UNDERSCORED = {dashed: name for name, dashed in _DASHED.items()}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, Secret):
        return Secret(_renamed(value.value, names))
    return value


def to_object(properties: Properties) -> Object:
    """The manifest in resource inputs, without secret marks."""
    return _renamed(plain(properties), _DASHED)


def to_properties(obj: Object, secrets_from: Properties) -> Properties:
    """Inputs to record, secret where `secrets_from` is secret."""
    properties: Properties = _renamed(obj, _UNDERSCORED)
    mark_secrets(properties, secrets_from)
    return properties


def checkpoint(inputs: Object, live: Object, secrets_from: Properties, initial_api_version: str, manager: str) -> Properties:
    """The state of a resource: the live object as outputs, and what the next run needs to compare with."""
    state = to_properties(live, secrets_from)
    if live.get("kind") == "Secret" and "stringData" in secrets_from and isinstance(state.get("data"), dict):
        state["data"] = Secret(state["data"])
    return {
        **state,
        INPUTS: to_properties(inputs, secrets_from),
        INITIAL_API_VERSION: initial_api_version,
        FIELD_MANAGER: manager,
    }


def parse_checkpoint(state: Properties) -> tuple[Object, Object]:
    """Old inputs and last known live object."""
    obj = to_object(state)
    inputs = obj.pop(INPUTS, {})
    return inputs if isinstance(inputs, dict) else {}, obj


def mark_secrets(outputs: Properties, inputs: Properties) -> None:
    """Marks in `outputs` what is secret in `inputs`, as deep as objects go; a list with a secret is secret as a whole.

    The data of a Secret is always secret, wherever the program got it from.
    """
    if outputs.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in outputs and not isinstance(outputs[key], Secret):
                outputs[key] = Secret(outputs[key])
        return
    for key, value in inputs.items():
        ours = outputs.get(key)
        if key not in outputs or isinstance(ours, Secret):
            continue
        if isinstance(ours, dict) and isinstance(value, dict):
            mark_secrets(ours, value)
        elif has_secret(value):
            outputs[key] = Secret(ours)


def normalize(obj: Object) -> Object:
    """The form in which equal wishes are equal, as the API server stores them: a copy."""
    obj = copy.deepcopy(obj)
    kind = kind_of(obj)
    if kind.built_in and not has_unknown(obj):
        if kind.kind == "CustomResourceDefinition":
            obj.pop("status", None)
            spec = obj.get("spec")
            if isinstance(spec, dict) and spec.get("preserveUnknownFields") is False:
                del spec["preserveUnknownFields"]
        elif kind == Kind("", "v1", "Secret"):
            _normalize_secret(obj)
        else:
            obj = canonicalize(obj, kind.kind)
    for field in _READ_ONLY_METADATA:
        metadata(obj).pop(field, None)
    return obj


def _normalize_secret(obj: Object) -> None:
    """stringData becomes data, as the API server does it; base64 is written without line breaks."""
    data = obj.get("data")
    string_data = obj.get("stringData")
    if isinstance(string_data, dict) and string_data:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in string_data.items()}
        obj["data"] = {**(data if isinstance(data, dict) else {}), **encoded}
        del obj["stringData"]
    elif isinstance(data, dict):
        for key, value in data.items():
            try:
                data[key] = base64.b64encode(base64.b64decode(value, validate=False)).decode()
            except (binascii.Error, TypeError, ValueError):
                continue  # the API server rejects it, naming the field


def prune(live: Any, shape: Any) -> Any:
    """`live` reduced to the fields that `shape` has. List items are paired by position."""
    if isinstance(live, dict) and isinstance(shape, dict):
        return {key: prune(value, shape[key]) for key, value in live.items() if key in shape}
    if isinstance(live, list) and isinstance(shape, list):
        if live and shape and type(live[0]) is not type(shape[0]):
            return copy.deepcopy(live)
        return [prune(value, wanted) for value, wanted in zip(live, shape, strict=False)]
    return live


# --- what cannot be changed in place -----------------------------------------------------------------------------------

_WORKLOAD = ("spec.selector",)
_STATEFUL_SET = ("podManagementPolicy", "revisionHistoryLimit", "selector", "serviceName", "volumeClaimTemplates")
_VOLUME_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi",
    "fc", "flexVolume", "flocker", "gcePersistentDisk", "glusterfs", "hostPath",
    "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume", "quobyte",
    "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip
_POD = (
    "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases",
    "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets", "nodeName",
    "nodeSelector", "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates",
    "restartPolicy", "runtimeClassName", "schedulerName", "securityContext", "serviceAccount", "serviceAccountName",
    "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds", "volumes",
)  # fmt: skip
_CONTAINER = (
    "args", "command", "env", "image", "imagePullPolicy", "lifecycle",
    "livenessProbe", "ports", "readinessProbe", "resources", "securityContext", "stdin",
    "stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts",
    "workingDir",
)  # fmt: skip

# (group, kind) → fields whose change needs a new object, as the official provider lists them. Versions do not differ
# among those that today's API servers serve.
_FORCE_NEW: dict[tuple[str, str], tuple[str, ...]] = {
    ("apps", "DaemonSet"): _WORKLOAD,
    ("apps", "Deployment"): _WORKLOAD,
    ("apps", "StatefulSet"): tuple(f"spec.{field}" for field in _STATEFUL_SET),
    ("batch", "Job"): ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
    ("storage.k8s.io", "StorageClass"): ("parameters", "provisioner"),
    ("", "PersistentVolume"): tuple(f"spec.{source}" for source in _VOLUME_SOURCES),
    ("", "PersistentVolumeClaim"): ("spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName"),
    ("", "Pod"): (
        *(f"spec.{field}" for field in _POD),
        *(f"spec.{containers}[*].{field}" for containers in ("containers", "initContainers") for field in _CONTAINER),
    ),
    ("", "ResourceQuota"): ("spec.scopes",),
    ("", "Service"): ("spec.clusterIP",),
}


def force_new(obj: Object, *, config_map_mutable: bool, secret_mutable: bool) -> list[Path]:
    """Paths whose change replaces the object. ConfigMaps and Secrets are replaced unless the provider says mutable."""
    kind = kind_of(obj)
    fields = ["metadata.name", "metadata.namespace"]
    immutable = obj.get("immutable") is True
    if kind == Kind("", "v1", "Secret"):
        fields += ["type"] if secret_mutable and not immutable else ["type", "stringData", "data"]
    elif kind == Kind("", "v1", "ConfigMap"):
        fields += [] if config_map_mutable and not immutable else ["binaryData", "data"]
    else:
        fields += _FORCE_NEW.get((kind.group, kind.kind), ())
    return [parse_path(field) for field in fields]


# --- field managers ---------------------------------------------------------------------------------------------------


def _union(left: Object, right: Object) -> Object:
    merged = dict(left)
    for key, value in right.items():
        merged[key] = _union(merged[key], value) if key in merged else value
    return merged


def adopt_fields(live: Object, manager: str) -> list[Object] | None:
    """A JSON patch that hands the fields of a creation to `manager`, so that its first apply meets no conflict.

    None where nothing has to move. The resourceVersion in the patch makes it fail on a concurrent write.
    """
    entries: list[Object] = metadata(live).get("managedFields") or []
    adopted = [entry for entry in entries if _adopted(entry)]
    if not adopted:
        return None
    own = [entry for entry in entries if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource")]
    fields: Object = {}
    for entry in (*own, *adopted):
        fields = _union(fields, entry.get("fieldsV1") or {})
    merged = {**adopted[0], "manager": manager, "operation": "Apply", "fieldsV1": fields}
    kept = [entry for entry in entries if entry not in adopted and entry not in own]
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": [*kept, merged]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata(live).get("resourceVersion")},
    ]


def _adopted(entry: Object) -> bool:
    return (entry.get("manager"), entry.get("operation")) in _ADOPTED_MANAGERS and not entry.get("subresource")


def has_create_manager(live: Object) -> bool:
    """Whether fields still belong to the creation; a dry run then has to force, since it moves no managers."""
    return any(
        entry.get("operation") == "Update" and entry.get("manager") in (CREATE_MANAGER, "pulumi-kubernetes.exe", "pulumi-resource-kubernetes")
        for entry in metadata(live).get("managedFields") or []
    )


def keep_ignored(inputs: Object, live: Object, ignore: Iterable[str], manager: str) -> None:
    """Applies ignoreChanges to an object about to be applied.

    A field that others manage and we do not is left out, so that it stays theirs; any other gets its live value, since
    leaving it out would remove it.
    """
    ours: Object = {}
    theirs: Object = {}
    for entry in metadata(live).get("managedFields") or []:
        if entry.get("manager") == manager:
            ours = _union(ours, entry.get("fieldsV1") or {})
        else:
            theirs = _union(theirs, entry.get("fieldsV1") or {})
    for text in ignore:
        path = parse_path(text)
        if any(isinstance(step, int) or step == "*" for step in path):
            continue  # list items have no stable owner; the diff already left them out
        parent, value = _parent(inputs, path), functools.reduce(at, path, live)
        if parent is None:
            continue
        if _managed(theirs, path) and not _managed(ours, path):
            parent.pop(str(path[-1]), None)
        elif value is not MISSING:
            parent[str(path[-1])] = copy.deepcopy(value)


def _managed(fields: Object, path: Path) -> bool:
    node: Any = fields
    for step in path:
        node = node.get(f"f:{step}") if isinstance(node, dict) else None
        if node is None:
            return False
    return True


def _parent(obj: Object, path: Path) -> Object | None:
    node: Any = obj
    for step in path[:-1]:
        node = at(node, step)
    return node if isinstance(node, dict) else None
