"""The offline `pulumi-resource-kubernetes`: any API object, by apiVersion and kind, on one cluster.

Stands in for the official plugin where that cannot be downloaded, with the same names, objects, state and outputs.
Objects are created by POST and updated by server-side apply, as pulumi-kubernetes does since 4.29; previews are the
same requests as dry runs. Two differences, both on purpose: fields that the API server does not know are errors, where
the official plugin drops them silently; and a CustomResourceDefinition is awaited until it is established.

Not covered, and refused by name: Patch resources, Helm, Kustomize and YAML resources and functions, List kinds,
client-side apply, rendering to YAML.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

import grpc
import yaml
from google.protobuf import empty_pb2

from kube import kubeconfig
from kube.client import ApiError, Kube, KubeError, UnknownKind, Unreachable
from toolchain.offline import kubernetes_await as await_
from toolchain.offline import wire
from toolchain.offline.differences import changes
from toolchain.offline.kubernetes_objects import (
    AUTONAMED,
    CREATE_MANAGER,
    DELETION_PROPAGATION,
    FIELD_MANAGER,
    INITIAL_API_VERSION,
    PATCH_FIELD_MANAGER,
    PATCH_FORCE,
    REPLACE_UNREADY,
    SKIP_AWAIT,
    WAIT_FOR,
    Kind,
    Object,
    adopt_fields,
    annotation,
    checkpoint,
    force_new,
    has_create_manager,
    keep_ignored,
    kind_of,
    kind_of_type,
    metadata,
    name_of,
    namespace_of,
    normalize,
    object_id,
    parse_checkpoint,
    prune,
    title,
    to_object,
    to_properties,
    unique,
)
from toolchain.offline.plugin import INFO, WARNING, Engine, PartialError, PluginError, property_diff, rpc, serve
from toolchain.offline.stubs import plugin_pb2, provider_pb2, provider_pb2_grpc

VERSION = "4.34.2"

# How long a cluster may take to answer before it counts as unreachable for this whole run.
_REACHABLE_S = 5.0
# A CRD or namespace that the same update creates may come a moment later: 0.5 + 1 + 2 + 4 + 8 s.
_CREATE_ATTEMPTS = 6

# The official plugin's environment variable → configuration key. A configured value wins.
_ENVIRONMENT = {
    "deleteUnreachable": "PULUMI_K8S_DELETE_UNREACHABLE",
    "skipUpdateUnreachable": "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE",
    "enableServerSideApply": "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY",
    "enablePatchForce": "PULUMI_K8S_ENABLE_PATCH_FORCE",
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
}
# Keys that need something we do not have.
_REFUSED_CONFIG = ("renderYamlToDirectory", "alwaysRender", "cluster", "strictMode")
# Pods and what owns them are slow to go; only these let skipAwait skip the wait for their deletion.
_SKIP_AWAIT_DELETE = frozenset(
    {("", "Namespace"), ("", "Pod"), ("", "ReplicationController"), ("batch", "Job")} | {("apps", kind) for kind in ("DaemonSet", "Deployment", "StatefulSet")}
)
_HINT_OFFICIAL = "hint: the offline kubernetes plugin is in use; declare the objects one by one, or install the official plugin"

_CHANGES = provider_pb2.DiffResponse.DiffChanges


def _type_of(urn: str) -> str:
    return urn.split("::")[2].rpartition("$")[2]


def _refuse_type(token: str, kind: str) -> None:
    """Raises PluginError for what looks like an object but is none, or none that this plugin covers."""
    module = token.split(":")[1] if token.count(":") == 2 else ""
    if module.startswith(("helm.sh/", "yaml", "kustomize")):
        raise PluginError(f"resource type is not covered by the offline kubernetes plugin: `{token}`\n{_HINT_OFFICIAL}")
    parsed = kind_of_type(token)
    if parsed is None:
        raise PluginError(f"no Kubernetes resource type: `{token}`\nhint: the form is `kubernetes:<group>/<version>:<Kind>`")
    if parsed.kind == f"{kind}Patch":
        raise PluginError(f"Patch resources are not covered by the offline kubernetes plugin: `{token}`\nhint: own the object, or install the official plugin")
    if parsed.built_in and parsed.kind.endswith("List"):
        raise PluginError(f"List resources cannot be created: `{token}`\nhint: use the type of the items instead")


class Cluster:
    """What a provider resource is configured for. `kube` is None where the cluster cannot be used; `reason` says why."""

    def __init__(self, config: dict[str, str]) -> None:
        self._config = config
        self.kube: Kube | None = None
        self.reason = ""
        self.name = "the configured cluster"
        self.namespace = config.get("namespace") or "default"
        # One answer for a GVK is good for a whole preview; asking again for each resource of a missing CRD is not.
        self._missing: dict[tuple[str, str], float] = {}

    def flag(self, key: str, default: str = "false") -> bool:
        return (self._config.get(key) or os.environ.get(_ENVIRONMENT[key]) or default) == "true"

    def connect(self) -> None:
        """Reads the kubeconfig and asks the API server for its version. Sets `reason` where that fails."""
        source = self._config.get("kubeconfig") or ""
        context = self._config.get("context") or None
        timeout = json.loads(self._config.get("kubeClientSettings") or "{}").get("timeout") or os.environ.get("PULUMI_K8S_CLIENT_TIMEOUT")
        try:
            text: str | Path = _kubeconfig(source)
            self._read_namespace(text, context)
            kube = Kube.from_kubeconfig(text, context, timeout=float(timeout or 30))
        except kubeconfig.KubeconfigError as error:
            self.reason = str(error)
            return
        self.name = f"{context or 'cluster'} at {kube.server}" if context else kube.server
        try:
            kube.request("GET", "/version", timeout=_REACHABLE_S)
        except KubeError as error:
            self.reason = str(error)
            return
        self.kube = kube

    def _read_namespace(self, source: str | Path, context: str | None) -> None:
        """A context may name a default namespace; the provider's own setting wins."""
        if self._config.get("namespace"):
            return
        try:
            text = source.read_text() if isinstance(source, Path) else source
            parsed: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            wanted = context or parsed.get("current-context")
            contexts = [entry["context"] for entry in parsed.get("contexts") or [] if entry.get("name") == wanted]
            self.namespace = contexts[0].get("namespace") or "default"
        except (OSError, yaml.YAMLError, AttributeError, KeyError, IndexError, TypeError):
            return  # from_kubeconfig reports it, with its place

    def demand(self) -> Kube:
        if self.kube is None:
            raise PluginError(f"Kubernetes cluster is unreachable: {self.name}: {self.reason}")
        return self.kube

    def serves(self, kind: Kind) -> bool:
        """Whether the cluster is there and knows the kind now. A no is remembered for two seconds."""
        if self.kube is None or time.monotonic() < self._missing.get((kind.api_version, kind.kind), 0):
            return False
        try:
            self.kube.resource(kind.api_version, kind.kind)
        except ApiError:
            self._missing[kind.api_version, kind.kind] = time.monotonic() + 2
            return False
        return True

    def namespaced(self, kind: Kind) -> bool:
        """What is not served yet is taken to be namespaced; creation corrects it."""
        return not self.serves(kind) or self.demand().resource(kind.api_version, kind.kind).namespaced


def _kubeconfig(source: str) -> str | Path:
    """Text or path, as the provider argument or, without one, as kubectl finds it."""
    if not source:
        source = os.environ.get("KUBECONFIG", "") or "~/.kube/config"
        if os.pathsep in source:
            raise kubeconfig.KubeconfigError(f"kubeconfig: a list of files in KUBECONFIG is not supported, got: `{source}`")
    path = Path(source).expanduser() if "\n" not in source and not source.lstrip().startswith("{") else None
    return path if path is not None else source + "\n"


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The ResourceProvider service. One process serves one provider resource."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cancelled = threading.Event()
        self._cluster = Cluster({})

    def cancel(self) -> None:
        self._cancelled.set()

    # --- the provider itself ---

    @rpc
    def Handshake(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802  names of the service
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, supports_autonaming_configuration=True)

    @rpc
    def GetPluginInfo(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=VERSION)

    @rpc
    def GetMapping(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.GetMappingResponse()

    @rpc
    def Cancel(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.cancel()
        return empty_pb2.Empty()

    @rpc
    def CheckConfig(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        news = wire.plain(wire.load(request.news))
        failures = [
            provider_pb2.CheckFailure(property=key, reason=f"`{key}` is not covered by the offline kubernetes plugin")
            for key in _REFUSED_CONFIG
            if news.get(key) not in (None, "", "false", False)
        ]
        if news.get("enableServerSideApply") in ("false", False):
            reason = "client-side apply is not covered by the offline kubernetes plugin; leave it at true"
            failures.append(provider_pb2.CheckFailure(property="enableServerSideApply", reason=reason))
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    @rpc
    def DiffConfig(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        """A provider is replaced, and all its objects with it, when it points to another cluster."""
        olds, news = wire.plain(wire.load(request.olds)), wire.plain(wire.load(request.news))
        changed = sorted(key for key in olds.keys() | news.keys() if olds.get(key) != news.get(key))
        if not changed:
            return provider_pb2.DiffResponse(changes=_CHANGES.DIFF_NONE)
        pointers = [key for key in ("kubeconfig", "context") if key in changed]
        identifier = news.get("clusterIdentifier")
        if olds.get("clusterIdentifier") and identifier and identifier != olds["clusterIdentifier"]:
            replaces = ["clusterIdentifier"]
        elif identifier and identifier == olds.get("clusterIdentifier"):
            replaces = []
        elif any(wire.has_unknown(news.get(key)) for key in pointers):
            # Whether it is another cluster shows only during the update.
            replaces = [key for key in pointers if wire.has_unknown(news.get(key))]
        else:
            before, after = _active_cluster(olds), _active_cluster(news)
            replaces = pointers if before and after and before != after else []
        return provider_pb2.DiffResponse(changes=_CHANGES.DIFF_SOME, diffs=changed, replaces=replaces)

    @rpc
    def Configure(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        prefix = "kubernetes:config:"
        config = {key.removeprefix(prefix): value for key, value in request.variables.items()}
        if os.environ.get("PULUMI_K8S_AWAIT_ALL") == "true":
            raise PluginError("PULUMI_K8S_AWAIT_ALL is not covered by the offline kubernetes plugin\nhint: use the annotation pulumi.com/waitFor")
        self._cluster = Cluster(config)
        if not self._cluster.flag("enableServerSideApply", "true"):
            raise PluginError("PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY=false is not covered by the offline kubernetes plugin")
        self._cluster.connect()
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True)

    @rpc
    def Invoke(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        raise PluginError(f"function is not covered by the offline kubernetes plugin: `{request.tok}`\n{_HINT_OFFICIAL}")

    @rpc
    def Construct(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        raise PluginError(f"resource type is not covered by the offline kubernetes plugin: `{request.type}`\n{_HINT_OFFICIAL}")

    @rpc
    def Call(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        raise PluginError(f"method is not covered by the offline kubernetes plugin: `{request.tok}`\n{_HINT_OFFICIAL}")

    # --- resources ---

    @rpc
    def Check(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        cluster = self._cluster
        if cluster.kube is None and cluster.flag("skipUpdateUnreachable"):
            message = f"skipped: Kubernetes cluster is unreachable: {cluster.name}: {cluster.reason}; skipUpdateUnreachable is set"
            self._engine.log(WARNING, message, request.urn)
            return provider_pb2.CheckResponse(inputs=request.olds)
        news = _loaded(request.news)
        obj = to_object(news)
        _refuse_type(_type_of(request.urn), str(obj.get("kind")))
        failures = [
            provider_pb2.CheckFailure(property=field, reason=f"`{field}` must be given")
            for field in ("apiVersion", "kind")
            if not isinstance(obj.get(field), str | wire.Unknown)
        ]
        if failures:
            return provider_pb2.CheckResponse(inputs=request.news, failures=failures)
        obj = normalize(obj)
        failures = _check_annotations(obj)
        if failures:
            return provider_pb2.CheckResponse(inputs=request.news, failures=failures)
        _assign_name(obj, to_object(_loaded(request.olds)), request)
        described = metadata(obj)
        if "namespace" not in described and isinstance(obj.get("metadata"), dict) and cluster.namespaced(kind_of(obj)):
            described["namespace"] = cluster.namespace
        return provider_pb2.CheckResponse(inputs=wire.dump(to_properties(obj, news)))

    @rpc
    def Diff(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Compares with the recorded live object; the API server is not asked, so a preview of thousands is quick."""
        cluster = self._cluster
        old_inputs, live = parse_checkpoint(_loaded(request.olds))
        new = normalize(to_object(_loaded(request.news)))
        old_inputs = normalize(old_inputs)
        old = prune(live, old_inputs)
        # An object that Pulumi only read has no recorded inputs of its own.
        old.setdefault("metadata", {}).pop("resourceVersion", None)
        old.setdefault("apiVersion", new.get("apiVersion"))
        old.setdefault("kind", new.get("kind"))
        described, recorded = new.setdefault("metadata", {}), old["metadata"]
        namespaced = cluster.namespaced(kind_of(new)) if cluster.kube else bool(namespace_of(live))
        for each in (described, recorded):
            if not namespaced:
                each.pop("namespace", None)
            elif not each.get("namespace"):
                each["namespace"] = "default"
        if name_of(new):
            recorded["name"] = name_of(live)
        patterns = force_new(new, config_map_mutable=cluster.flag("enableConfigMapMutable"), secret_mutable=cluster.flag("enableSecretMutable"))
        # What was asked for before and the API server left out on its way (`false`, `0`, an empty list) is no change.
        found = changes(old, new, patterns, old_inputs, request.ignoreChanges)
        replaces = [change.property_path for change in found if change.replace]
        if annotation(new, REPLACE_UNREADY) == "true" and self._unready_job(live, request.urn):
            replaces.append(f'metadata.annotations["{REPLACE_UNREADY}"]')
        # The new object cannot stand beside the old one under the same name.
        same_place = name_of(new) == name_of(live) and namespace_of(new) == namespace_of(live)
        named = bool(name_of(new)) and annotation(new, AUTONAMED) != "true"
        return provider_pb2.DiffResponse(
            changes=_CHANGES.DIFF_SOME if found or replaces else _CHANGES.DIFF_NONE,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and named and same_place,
            detailedDiff={change.property_path: property_diff(change) for change in found},
            hasDetailedDiff=True,
        )

    def _unready_job(self, live: Object, urn: str) -> bool:
        cluster = self._cluster
        if kind_of(live).kind != "Job":
            self._engine.log(WARNING, "replaceUnready annotation is not supported for this resource", urn)
        elif cluster.kube is None:
            self._engine.log(WARNING, f"Kubernetes cluster is unreachable: {cluster.name}; skipping the replaceUnready check", urn)
        else:
            try:
                now = cluster.kube.find("batch/v1", "Job", name_of(live), namespace_of(live))
            except KubeError:
                return False
            check = await_.readiness(cluster.kube, now, None) if now else None
            return bool(now and check and not check(now).ready)
        return False

    @rpc
    def Create(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        cluster = self._cluster
        news = _loaded(request.properties)
        inputs = to_object(news)
        kind = kind_of(inputs)
        if request.preview and (wire.has_unknown(inputs) or not cluster.serves(kind)):
            return provider_pb2.CreateResponse(properties=request.properties)
        manager = annotation(inputs, PATCH_FIELD_MANAGER) or unique(CREATE_MANAGER + "-")
        kube = cluster.demand()
        try:
            live = self._create(kube, inputs, manager, request)
        except ApiError as error:
            if request.preview and _not_previewable(error):
                return provider_pb2.CreateResponse(properties=request.properties)
            raise PluginError(f"{title(inputs)} was not created: {_explain(error, manager)}") from None
        except Unreachable as error:
            raise PluginError(f"{title(inputs)} was not created: {error}") from None
        if request.preview:
            live.pop("status", None)
            return provider_pb2.CreateResponse(properties=wire.dump(checkpoint(inputs, live, news, kind.api_version, manager)))
        live = self._await(kube, inputs, live, None, news, manager, kind.api_version, request)
        return provider_pb2.CreateResponse(id=object_id(live), properties=wire.dump(checkpoint(inputs, live, news, kind.api_version, manager)))

    def _create(self, kube: Kube, inputs: Object, manager: str, request: Any) -> Object:
        kind = kind_of(inputs)
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                if self._cluster.flag("upsertExistingObjects"):
                    force = annotation(inputs, PATCH_FORCE) == "true" or self._cluster.flag("enablePatchForce") or request.preview
                    return _apply(kube, inputs, manager, force=force, dry_run=request.preview)
                path = kube.resource(kind.api_version, kind.kind).path(namespace=namespace_of(inputs))
                return kube.request("POST", path, json=inputs, params=_params(CREATE_MANAGER, dry_run=request.preview)).json()
            except ApiError as error:
                # The CRD or the namespace may be about to come: another resource of this update makes it.
                if error.status != 404 or request.preview or attempt == _CREATE_ATTEMPTS - 1:
                    raise
                self._engine.status(f"retry {attempt + 1}: {error}", request.urn)
            if self._cancelled.wait(0.5 * 2**attempt):
                raise PluginError(f"{title(inputs)} was not created: cancelled")
        raise AssertionError("the last attempt returns or raises")

    @rpc
    def Update(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        cluster = self._cluster
        state, news = _loaded(request.olds), _loaded(request.news)
        inputs = normalize(to_object(news))
        kind = kind_of(inputs)
        if request.preview and (wire.has_unknown(inputs) or not cluster.serves(kind)):
            return provider_pb2.UpdateResponse(properties=request.news)
        kube = cluster.demand()
        old_inputs, recorded = parse_checkpoint(state)
        api_version = str(state.get(INITIAL_API_VERSION) or old_inputs.get("apiVersion") or kind.api_version)
        recorded_manager = annotation(old_inputs, PATCH_FIELD_MANAGER) or wire.plain(state.get(FIELD_MANAGER))
        manager = annotation(inputs, PATCH_FIELD_MANAGER) or recorded_manager or unique(CREATE_MANAGER + "-")
        try:
            before = kube.get(kind.api_version, kind.kind, name_of(recorded) or name_of(inputs), namespace_of(inputs))
            live = self._apply_update(kube, inputs, before, manager, request)
        except ApiError as error:
            if request.preview and error.status == 403:
                return provider_pb2.UpdateResponse(properties=request.news)
            raise PluginError(f"{title(inputs)} was not updated: {_explain(error, manager)}") from None
        except Unreachable as error:
            raise PluginError(f"{title(inputs)} was not updated: {error}") from None
        if not request.preview:
            live = self._await(kube, inputs, live, before, news, manager, api_version, request)
            if recorded_manager and recorded_manager != manager:
                _relinquish(kube, live, recorded_manager)
        return provider_pb2.UpdateResponse(properties=wire.dump(checkpoint(inputs, live, news, api_version, manager)))

    def _apply_update(self, kube: Kube, inputs: Object, before: Object, manager: str, request: Any) -> Object:
        kind = kind_of(inputs)
        path = kube.resource(kind.api_version, kind.kind).path(name_of(before), namespace_of(before))
        if kind.kind == "CustomResourceDefinition" and kind.built_in:
            # Replaced as a whole: a version that the program no longer names has to go.
            body = deepcopy(inputs)
            body["metadata"]["resourceVersion"] = metadata(before).get("resourceVersion")
            return kube.request("PUT", path, json=body, params=_params(manager, dry_run=request.preview)).json()
        patch = None if request.preview else adopt_fields(before, manager)
        if patch:
            before = kube.request("PATCH", path, json=patch, headers={"Content-Type": "application/json-patch+json"}).json()
        body = deepcopy(inputs)
        keep_ignored(body, before, request.ignoreChanges, manager)
        force = (
            annotation(inputs, PATCH_FORCE) == "true"
            or self._cluster.flag("enablePatchForce")
            or (request.preview and has_create_manager(before))
            or not metadata(before).get("managedFields")
        )
        return _apply(kube, body, manager, force=force, dry_run=request.preview)

    def _await(
        self, kube: Kube, inputs: Object, live: Object, before: Object | None, news: wire.Properties, manager: str, api_version: str, request: Any
    ) -> Object:
        """Waits until the object is ready. Raises PartialError, since by now it exists and has to be recorded."""
        try:
            check = await_.check_for(kube, inputs, live, before)
            if check is None:
                return live
            timeout = await_.timeout_of(inputs, request.timeout)
            return await_.wait(kube, live, check, timeout, self._cancelled, lambda message: self._engine.status(message, request.urn))
        except await_.WaitError as error:
            state = wire.dump(checkpoint(inputs, error.live, news, api_version, manager))
            raise PartialError(str(error), object_id(live), state, None, error.reasons) from None
        except (await_.ExpressionError, KubeError) as error:
            state = wire.dump(checkpoint(inputs, live, news, api_version, manager))
            raise PartialError(f"{title(live)} exists, but whether it is ready is not known: {error}", object_id(live), state, None, []) from None

    @rpc
    def Read(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        cluster = self._cluster
        gone = provider_pb2.ReadResponse()
        if cluster.kube is None:
            self._engine.log(WARNING, f"Kubernetes cluster is unreachable: {cluster.name}: {cluster.reason}", request.urn)
            if cluster.flag("deleteUnreachable"):
                self._engine.log(INFO, "deleteUnreachable is set: the resource is dropped from the state", request.urn)
                return gone
            if cluster.flag("skipUpdateUnreachable"):
                return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)
            raise PluginError(_unreachable_hint(f"{request.id} was not read: Kubernetes cluster is unreachable: {cluster.name}: {cluster.reason}"))
        state, recorded = _loaded(request.properties), _loaded(request.inputs)
        inputs = normalize(to_object(recorded))
        _, old_live = parse_checkpoint(state)
        namespace, _, name = request.id.rpartition("/")
        imported = not inputs.get("kind") and not old_live.get("kind")
        kind = kind_of(inputs) if inputs.get("kind") else kind_of(old_live) if old_live.get("kind") else kind_of_type(_type_of(request.urn))
        if kind is None:
            raise PluginError(f"no Kubernetes resource type: `{_type_of(request.urn)}`")
        _refuse_type(_type_of(request.urn), kind.kind)
        if not namespace and cluster.namespaced(kind):
            namespace = cluster.namespace if imported else "default"
        try:
            live = cluster.kube.find(kind.api_version, kind.kind, name, namespace)
        except KubeError as error:
            raise PluginError(f"{kind.kind} {request.id} was not read: {error}") from None
        if live is None:
            return gone
        live_inputs = _imported(live) if imported else prune(live, inputs or _identity(live))
        api_version = str(state.get(INITIAL_API_VERSION) or inputs.get("apiVersion") or kind.api_version)
        manager = annotation(inputs, PATCH_FIELD_MANAGER) or wire.plain(state.get(FIELD_MANAGER)) or unique(CREATE_MANAGER + "-")
        new_state = wire.dump(checkpoint(live_inputs, live, recorded, api_version, manager))
        new_inputs = wire.dump(to_properties(live_inputs, recorded))
        check = None if imported or annotation(inputs, SKIP_AWAIT) == "true" else await_.readiness(cluster.kube, live, live, settle_s=0)
        if check and kind.kind not in ("CustomResourceDefinition", "PersistentVolumeClaim", "PersistentVolume", "ResourceQuota", "Secret"):
            verdict = check(live)
            if not verdict.ready:
                raise PartialError(f"{title(live)} is not ready: {verdict.message}", request.id, new_state, new_inputs, [])
        return provider_pb2.ReadResponse(id=request.id, properties=new_state, inputs=new_inputs)

    @rpc
    def Delete(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        cluster = self._cluster
        if cluster.kube is None:
            message = f"Kubernetes cluster is unreachable: {cluster.name}: {cluster.reason}"
            self._engine.log(WARNING, message, request.urn)
            if cluster.flag("deleteUnreachable"):
                self._engine.log(INFO, "deleteUnreachable is set: the resource is dropped from the state", request.urn)
                return empty_pb2.Empty()
            raise PluginError(_unreachable_hint(f"{request.id} was not deleted: {message}"))
        state = _loaded(request.properties)
        inputs, live = parse_checkpoint(state)
        kind = kind_of(live)
        policy = {"orphan": "Orphan", "background": "Background"}.get(annotation(inputs, DELETION_PROPAGATION).lower(), "Foreground")
        name, namespace = request.id.rpartition("/")[2], namespace_of(live) or None
        try:
            if not cluster.kube.delete(kind.api_version, kind.kind, name, namespace, propagation=policy):
                return empty_pb2.Empty()
        except UnknownKind:
            return empty_pb2.Empty()
        except KubeError as error:
            raise PluginError(f"{title(live)} was not deleted: {error}") from None
        if annotation(inputs, SKIP_AWAIT) == "true" and (kind.group, kind.kind) in _SKIP_AWAIT_DELETE:
            return empty_pb2.Empty()
        try:
            await_.wait_gone(cluster.kube, live, await_.timeout_of(inputs, request.timeout), self._cancelled)
        except await_.WaitError as error:
            recorded = checkpoint(inputs, error.live, state, kind.api_version, str(wire.plain(state.get(FIELD_MANAGER)) or ""))
            raise PartialError(str(error), request.id, wire.dump(recorded), None, []) from None
        return empty_pb2.Empty()


# --- helpers ----------------------------------------------------------------------------------------------------------


def _loaded(struct: Any) -> wire.Properties:
    try:
        return wire.load(struct)
    except wire.WireError as error:
        raise PluginError(str(error)) from None


def _active_cluster(config: dict[str, Any]) -> Object | None:
    """The cluster entry that a provider's kubeconfig points to, None where it cannot be told."""
    source = config.get("kubeconfig")
    if not isinstance(source, str) or not source:
        return None
    try:
        text = _kubeconfig(source)
        parsed: Any = yaml.safe_load(text.read_text() if isinstance(text, Path) else text)
        context = config.get("context") or parsed["current-context"]
        cluster = next(entry["context"]["cluster"] for entry in parsed["contexts"] if entry["name"] == context)
        return next(entry["cluster"] for entry in parsed["clusters"] if entry["name"] == cluster)
    except (OSError, yaml.YAMLError, kubeconfig.KubeconfigError, KeyError, TypeError, StopIteration):
        return None


def _check_annotations(obj: Object) -> list[Any]:
    wishes = annotation(obj, WAIT_FOR)
    if not wishes:
        return []
    try:
        await_.parse_wait_for(wishes)
    except await_.ExpressionError as error:
        return [provider_pb2.CheckFailure(property=f'metadata.annotations["{WAIT_FOR}"]', reason=str(error))]
    return []


def _assign_name(obj: Object, old: Object, request: Any) -> None:
    """Keeps the generated name of an object that has one; makes one where neither name nor generateName is given."""
    described = obj.setdefault("metadata", {})
    if not isinstance(described, dict) or described.get("name"):
        return  # named, or metadata as a whole is not known yet
    if described.get("generateName"):
        raise PluginError("metadata.generateName is not supported with server-side apply\nhint: leave out metadata.name and a name is made")
    if old and annotation(old, AUTONAMED) == "true":
        name = name_of(old)
    elif old:
        name = ""
    else:
        name = unique(request.urn.rpartition("::")[2] + "-", request.randomSeed)
        if request.HasField("autonaming"):
            if request.autonaming.mode == provider_pb2.CheckRequest.AutonamingOptions.DISABLE:
                raise PluginError("autonaming is disabled: metadata.name must be given")
            name = request.autonaming.proposed_name or name
    if name:
        described["name"] = name
        annotations = described.setdefault("annotations", {})
        if isinstance(annotations, dict):
            annotations[AUTONAMED] = "true"


def _params(manager: str, *, dry_run: bool) -> dict[str, Any]:
    return {"fieldManager": manager, "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}


def _apply(kube: Kube, obj: Object, manager: str, *, force: bool, dry_run: bool) -> Object:
    kind = kind_of(obj)
    path = kube.resource(kind.api_version, kind.kind).path(name_of(obj), namespace_of(obj))
    params = {**_params(manager, dry_run=dry_run), "force": str(force).lower()}
    return kube.request("PATCH", path, json=obj, params=params, headers={"Content-Type": "application/apply-patch+yaml"}).json()


def _relinquish(kube: Kube, live: Object, manager: str) -> None:
    """Gives up all fields of a manager, by an apply that names none."""
    _apply(kube, _identity(live), manager, force=False, dry_run=False)


def _identity(obj: Object) -> Object:
    described = {key: metadata(obj)[key] for key in ("name", "namespace") if key in metadata(obj)}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": described}


def _imported(live: Object) -> Object:
    """Inputs for an object that Pulumi has not declared: all of it but what the cluster writes."""
    inputs = normalize({key: value for key, value in live.items() if key != "status"})
    annotations = metadata(inputs).get("annotations")
    if isinstance(annotations, dict):
        for key in ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration"):
            annotations.pop(key, None)
    return inputs


def _not_previewable(error: ApiError) -> bool:
    """Whether a dry run failed for what will be otherwise during the update, or for reasons of the dry run itself."""
    namespace_missing = error.status == 404 and error.details.get("kind") == "namespaces"
    no_dry_run = error.status == 400 and "dry run" in error.message
    return error.status == 403 or error.reason == "AlreadyExists" or namespace_missing or no_dry_run


def _explain(error: ApiError, manager: str) -> str:
    if error.reason == "AlreadyExists":
        return (
            f"{error}\nhint: import it with the resource option `import_`, keep its identity with `aliases` if the resource was renamed, "
            "or set upsert_existing_objects on the provider"
        )
    if error.reason == "Conflict":
        return f"{error}\nhint: another field manager than `{manager}` owns the field; set the annotation {PATCH_FORCE} to take it over"
    if isinstance(error, UnknownKind):
        return f"{error}\nhint: is the CustomResourceDefinition declared, and does this resource depend on it?"
    return str(error)


def _unreachable_hint(message: str) -> str:
    return f"{message}\nhint: if the cluster is gone, set PULUMI_K8S_DELETE_UNREACHABLE=true to drop its resources from the state"


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="Offline stand-in for pulumi-resource-kubernetes; started by the Pulumi engine.")
    parser.add_argument("engine", help="address of the engine")
    arguments, _ = parser.parse_known_args()
    provider = Provider(Engine(arguments.engine))
    register: Callable[[grpc.Server], None] = lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)  # noqa: E731
    serve(register, provider.cancel)


if __name__ == "__main__":
    main()
