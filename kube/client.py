"""A small Kubernetes client: server-side apply, discovery, watches.

Objects are plain dicts, as `kubectl get -o yaml` shows them. The official Python client carries a generated class per
kind and takes seconds and tens of megabytes to import, too much for the short commands and the agents that run
beside a fleet on one machine (docs/decisions/0002-kubernetes-client.md).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import httpx

from kube import kubeconfig

FIELD_MANAGER = "inference-fleet"

# Patches that say what the object shall be. A JSON patch says what to do: sent twice, it may add an entry twice.
_REPEATABLE_PATCHES = ("application/apply-patch+yaml", "application/merge-patch+json", "application/strategic-merge-patch+json")

Object = dict[str, Any]
Objects = list[Object]
T = TypeVar("T")


class KubeError(Exception):
    """Base of what this client raises. The message is fit for a person."""


class Unreachable(KubeError):
    """No answer from the API server: refused, cut off, timed out, or no TLS."""


class ApiError(KubeError):
    """The API server answered with an error Status."""

    def __init__(self, status: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}


class Unauthorized(ApiError):
    """The API server refuses the credentials of the kubeconfig, and no new ones can be had from it."""

    hint = "renew the credentials in the kubeconfig, then re-run: it resumes"

    def __init__(self, server: str, error: ApiError, renewal: str = "") -> None:
        """renewal: why there are no new ones."""
        told = f"{server} refuses the credentials of the kubeconfig: expired or revoked"
        super().__init__(error.status, error.reason, f"{told}; {renewal}" if renewal else told, error.details)


class UnknownKind(ApiError):
    """The API server does not serve this apiVersion and kind: a CRD is missing, or a name is misspelt."""

    def __init__(self, server: str, api_version: str, kind: str) -> None:
        super().__init__(404, "UnknownKind", f"{server} serves no kind `{kind}` in `{api_version}`")


@dataclass(frozen=True)
class Resource:
    """Where discovery says a kind lives."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    subresources: frozenset[str]

    @property
    def root(self) -> str:
        return f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"

    def path(self, name: str | None = None, namespace: str | None = None, subresource: str | None = None) -> str:
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def _error_of(response: httpx.Response) -> ApiError:
    try:
        status = cast(Object, response.json())
        message = str(status.get("message") or response.reason_phrase)
        return ApiError(response.status_code, str(status.get("reason") or ""), message, status.get("details"))
    except ValueError:
        return ApiError(response.status_code, "", response.text.strip()[:500] or response.reason_phrase)


def _repeatable(method: str, params: dict[str, Any], headers: dict[str, str]) -> bool:
    """Whether a request that may have been carried out can be sent again: it then ends as if it had been sent once."""
    if params.get("dryRun") == "All" or method in ("GET", "HEAD", "PUT", "DELETE"):
        return True
    return method == "PATCH" and headers.get("Content-Type") in _REPEATABLE_PATCHES


class Kube:
    """One API server. Safe to share between threads."""

    def __init__(self, connection: kubeconfig.Connection, timeout: float = 10.0, renew: Callable[[], kubeconfig.Connection] | None = None) -> None:
        """renew: where to get new credentials when these have expired."""
        self._renew = renew
        self._timeout = timeout
        self.server = connection.server
        self._resources: dict[tuple[str, str], Resource] = {}
        self._lock = threading.Lock()
        self._http = self._open(connection)

    def _open(self, connection: kubeconfig.Connection) -> httpx.Client:
        # trust_env off: a proxy set for the outside world must not see the traffic to API servers on loopback.
        loopback = httpx.URL(connection.server).host in ("127.0.0.1", "localhost", "::1")
        return httpx.Client(
            base_url=connection.server,
            verify=connection.ssl_context or False,
            headers=connection.headers,
            timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, 5.0)),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=32),
            trust_env=not loopback,
        )

    @classmethod
    def from_kubeconfig(cls, source: str | Path, context: str | None = None, timeout: float = 10.0) -> Self:
        """A client for one context of a kubeconfig, given as path or as YAML text.

        Raises kubeconfig.KubeconfigError. Does not contact the server. `timeout` is in seconds, per request.
        """
        connection = kubeconfig.load(source, context)
        return cls(connection, timeout, (lambda: kubeconfig.load(source, context)) if connection.renewable else None)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """One request. Raises ApiError for a status of 400 and above, Unreachable when there is no answer.

        A connection that breaks before the answer is tried once more if the request may run twice: the server may have carried
        it out. Most such breaks are idle connections that the server closed.
        """
        extra: Object = {} if timeout is None else {"timeout": timeout}
        attempts = 2 if _repeatable(method, params or {}, headers or {}) else 1
        for attempt in range(1, attempts + 1):
            try:
                response = self._http.request(method, path, json=json, params=params, headers=headers, **extra)
                if response.status_code == 401 and self._renewed(response):
                    response = self._http.request(method, path, json=json, params=params, headers=headers, **extra)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                # The last two are a reset, as load balancers before an API server send it.
                if attempt < attempts:
                    continue
                raise Unreachable(f"{self.server} cut the connection: {str(error) or type(error).__name__}") from None
            except (httpx.HTTPError, OSError) as error:
                raise Unreachable(f"{self.server} does not answer: {str(error) or type(error).__name__}") from None
            if response.status_code >= 400:
                raise self._refusal(response)
            return response
        raise AssertionError("unreachable code")

    def _renewed(self, refused: httpx.Response) -> bool:
        """Takes new credentials, where the kubeconfig gives any. Raises Unauthorized where it should and does not."""
        if self._renew is None:
            return False
        try:
            # Tokens of exec plugins live for minutes. The old client is not closed: another thread may use it.
            self._http = self._open(self._renew())
        except kubeconfig.KubeconfigError as error:
            raise Unauthorized(self.server, _error_of(refused), str(error)) from None
        return True

    def _refusal(self, response: httpx.Response) -> ApiError:
        error = _error_of(response)
        return Unauthorized(self.server, error) if error.status == 401 else error

    def resource(self, api_version: str, kind: str) -> Resource:
        """Discovery, cached. A miss asks the server again, since a CRD may have come since."""
        with self._lock:
            known = self._resources.get((api_version, kind))
        if known:
            return known
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        try:
            listed = cast(Objects, self.request("GET", root).json().get("resources") or [])
        except ApiError as error:
            if error.status == 404:
                raise UnknownKind(self.server, api_version, kind) from None
            raise
        subresources: dict[str, set[str]] = {}
        for entry in listed:
            plural, _, sub = str(entry["name"]).partition("/")
            if sub:
                subresources.setdefault(plural, set()).add(sub)
        with self._lock:
            for entry in listed:
                if "/" not in entry["name"]:
                    subs = frozenset(subresources.get(entry["name"], set()))
                    self._resources[api_version, entry["kind"]] = Resource(api_version, entry["kind"], entry["name"], bool(entry["namespaced"]), subs)
            known = self._resources.get((api_version, kind))
        if not known:
            raise UnknownKind(self.server, api_version, kind)
        return known

    def _path_of(self, obj: Object, *, named: bool = True, subresource: str | None = None) -> str:
        metadata = obj.get("metadata") or {}
        resource = self.resource(obj["apiVersion"], obj["kind"])
        return resource.path(metadata.get("name") if named else None, metadata.get("namespace") or "default", subresource)

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        return self.request("GET", self.resource(api_version, kind).path(name, namespace)).json()

    def find(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Like get, None where the object or its kind does not exist."""
        try:
            return self.get(api_version, kind, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Objects:
        """All objects, of all namespaces where none is given. Items carry apiVersion and kind, unlike the raw list."""
        params = {"labelSelector": label_selector, "fieldSelector": field_selector}
        path = self.resource(api_version, kind).path(namespace=namespace)
        body = self.request("GET", path, params={key: value for key, value in params.items() if value}).json()
        return [{"apiVersion": api_version, "kind": kind, **item} for item in body.get("items") or []]

    def apply(
        self,
        obj: Object,
        field_manager: str = FIELD_MANAGER,
        force: bool = True,
        dry_run: bool = False,
        subresource: str | None = None,
    ) -> Object:
        """Server-side apply: creates or updates, and gives up fields that we no longer name."""
        params: Object = {"fieldManager": field_manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            params["dryRun"] = "All"
        # JSON is YAML; the content type is what selects server-side apply.
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return self.request("PATCH", self._path_of(obj, subresource=subresource), json=obj, params=params, headers=headers).json()

    def create(self, obj: Object, dry_run: bool = False) -> Object:
        params: Object = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        return self.request("POST", self._path_of(obj, named=False), json=obj, params=params).json()

    def replace(self, obj: Object, subresource: str | None = None) -> Object:
        return self.request("PUT", self._path_of(obj, subresource=subresource), json=obj, params={"fieldManager": FIELD_MANAGER}).json()

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        patch: Any,
        namespace: str | None = None,
        subresource: str | None = None,
        content_type: str = "application/merge-patch+json",
    ) -> Object:
        path = self.resource(api_version, kind).path(name, namespace, subresource)
        return self.request("PATCH", path, json=patch, headers={"Content-Type": content_type}).json()

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        propagation: str = "Background",
        grace_period_seconds: int | None = None,
    ) -> bool:
        """Asks for deletion; finalizers may keep the object for a while. False where there was nothing to delete."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_period_seconds is not None:
            body["gracePeriodSeconds"] = grace_period_seconds
        try:
            self.request("DELETE", self.resource(api_version, kind).path(name, namespace), json=body)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def wait(self, check: Callable[[], T | None], timeout: float, what: str, interval: float = 0.2) -> T:
        """Polls `check` until it returns something true. Raises TimeoutError that says `what` was awaited.

        An API server that is away for a moment does not end the waiting; its last error is told at the end. Credentials that it
        refuses do end it.
        """
        deadline = time.monotonic() + timeout
        last = ""
        while True:
            try:
                result = check()
                if result:
                    return result
            except Unauthorized:
                raise
            except (ApiError, Unreachable) as error:
                last = f"; last answer: {error}"
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout:.0f} s for {what}{last}")
            time.sleep(interval)

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        timeout_seconds: int = 300,
    ) -> Iterator[tuple[str, Object]]:
        """Events as (type, object) until the server ends the watch. A 410 (too old) is raised as ApiError: list again."""
        params: Object = {"watch": "true", "timeoutSeconds": timeout_seconds, "allowWatchBookmarks": "true"}
        for key, value in (("labelSelector", label_selector), ("fieldSelector", field_selector), ("resourceVersion", resource_version)):
            if value:
                params[key] = value
        path = self.resource(api_version, kind).path(namespace=namespace)
        # A quiet watch has nothing to read for minutes; the server's own timeout ends it.
        timeout = httpx.Timeout(10.0, read=timeout_seconds + 10.0)
        try:
            with self._http.stream("GET", path, params=params, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error_of(response)
                for line in response.iter_lines():
                    if not line:
                        continue
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(int(status.get("code") or 500), str(status.get("reason") or ""), str(status.get("message") or ""))
                    yield event["type"], event["object"]
        except (httpx.HTTPError, OSError) as error:
            raise Unreachable(f"{self.server} ended the watch of {kind}: {str(error) or type(error).__name__}") from None


def condition(obj: Object, kind: str) -> Object:
    """The status condition of that type, {} where the object has none."""
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind:
            return entry
    return {}
