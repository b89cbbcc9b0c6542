"""Reading one context of a kubeconfig into what an HTTP client needs.

Covers what clusters in the field hand out: inline or file certificates, tokens, token files and exec plugins
(`aws eks get-token`, `gke-gcloud-auth-plugin`, `kubelogin`). Basic auth and auth-provider are gone from Kubernetes
and are refused by name.
"""

import base64
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml


class KubeconfigError(Exception):
    """The kubeconfig cannot be used. The message names the part that is wrong, never a credential."""


@dataclass(frozen=True)
class Connection:
    """Where an API server is and how to prove who we are."""

    server: str
    ssl_context: ssl.SSLContext | None
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    renewable: bool = False
    """Loading the kubeconfig again gives new credentials."""


def _named(entries: list[dict[str, Any]] | None, name: str, what: str) -> dict[str, Any]:
    for entry in entries or []:
        if entry.get("name") == name:
            return entry.get(what) or {}
    raise KubeconfigError(f"kubeconfig: no {what} named `{name}`")


def load(source: str | Path, context: str | None = None) -> Connection:
    """Connection of `context`, or of the current context.

    `source` is a path or the YAML text itself (a stack output is text). Relative file names in it are relative to
    the kubeconfig's folder, as kubectl reads them.
    """
    text = str(source)
    base = Path.cwd()
    if isinstance(source, Path) or "\n" not in text:
        path = Path(text).expanduser()
        try:
            text = path.read_text()
        except OSError as error:
            raise KubeconfigError(f"kubeconfig: cannot be read: {error.strerror}: `{path}`") from None
        base = path.parent
    try:
        config: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        # str(error) quotes the offending line, which can hold a token.
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise KubeconfigError(f"kubeconfig: is not YAML{where}") from None
    if not isinstance(config, dict):
        raise KubeconfigError("kubeconfig: must be a mapping with clusters, users and contexts")
    name = context or config.get("current-context")
    if not name:
        raise KubeconfigError("kubeconfig: has no current-context; name a context")
    chosen = _named(config.get("contexts"), name, "context")
    cluster = _named(config.get("clusters"), str(chosen.get("cluster")), "cluster")
    user = _named(config.get("users"), str(chosen.get("user")), "user") if chosen.get("user") else {}
    server = cluster.get("server")
    if not server:
        raise KubeconfigError(f"kubeconfig: cluster `{chosen.get('cluster')}` has no server")
    headers: dict[str, str] = {}
    if "exec" in user:
        user = {**user, **_exec_credential(user["exec"], base)}
    if "auth-provider" in user or "username" in user:
        raise KubeconfigError("kubeconfig: auth-provider and basic auth are not supported; use a token, a certificate or an exec plugin")
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = _token_file(base / user["tokenFile"])
    if token:
        headers["Authorization"] = f"Bearer {token}"
    tls = _ssl_context(cluster, user, base) if server.startswith("https") else None
    return Connection(server.rstrip("/"), tls, headers, renewable="exec" in user or "tokenFile" in user)


def portable(path: Path) -> str:
    """The text of a kubeconfig file, fit to be read elsewhere: what it names relative to its folder is put in, or named in full.

    A text without such names is returned as it is. Raises OSError, UnicodeDecodeError, KubeconfigError.
    """
    text = path.read_text(encoding="utf-8")
    try:
        config: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        # Its reader says so.
        return text
    if not isinstance(config, dict):
        return text
    base = path.resolve().parent
    read = cast(dict[str, Any], config)
    entries = [each.get(what) or {} for what, kind in (("cluster", "clusters"), ("user", "users")) for each in read.get(kind) or []]
    changed = [_take_along(entry, base) for entry in entries]
    return yaml.safe_dump(read, sort_keys=False) if any(changed) else text


def _take_along(entry: dict[str, Any], base: Path) -> bool:
    """Whether anything was relative in this cluster or user."""
    changed = False
    for key in ("certificate-authority", "client-certificate", "client-key"):
        if _relative(entry.get(key)) and not entry.get(f"{key}-data"):
            try:
                entry[f"{key}-data"] = base64.b64encode((base / entry.pop(key)).read_bytes()).decode()
            except OSError as error:
                raise KubeconfigError(f"kubeconfig: certificate file cannot be read: {error.strerror}: `{error.filename}`") from None
            changed = True
    plugin = entry.get("exec") or {}
    # These must stay files: they give new credentials when the old ones expire. A command without a slash is looked up on PATH.
    for holder, key in ((entry, "tokenFile"), (plugin, "command")):
        if _relative(holder.get(key)) and (key == "tokenFile" or "/" in holder[key]):
            holder[key] = str(base / holder[key])
            changed = True
    return changed


def _relative(name: Any) -> bool:
    return isinstance(name, str) and name != "" and not Path(name).is_absolute()


def _token_file(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise KubeconfigError(f"kubeconfig: tokenFile cannot be read: {error.strerror}: `{path}`") from None


def _material(entry: dict[str, Any], key: str, base: Path) -> bytes | None:
    if entry.get(f"{key}-data"):
        try:
            return base64.b64decode(entry[f"{key}-data"])
        except ValueError:
            raise KubeconfigError(f"kubeconfig: {key}-data is not base64") from None
    if entry.get(key):
        return (base / entry[key]).read_bytes()
    return None


def _ssl_context(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    try:
        authority = _material(cluster, "certificate-authority", base)
        certificate, key = _material(user, "client-certificate", base), _material(user, "client-key", base)
    except OSError as error:
        raise KubeconfigError(f"kubeconfig: certificate file cannot be read: {error.strerror}: `{error.filename}`") from None
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    except (ssl.SSLError, ValueError):
        raise KubeconfigError("kubeconfig: certificate-authority is not a PEM certificate") from None
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate and key:
        # ssl reads certificates from files only. The file lives in memory where the system offers it, readable by us alone.
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.NamedTemporaryFile(dir=folder) as pair:
            pair.write(certificate + b"\n" + key)
            pair.flush()
            try:
                context.load_cert_chain(pair.name)
            except ssl.SSLError:
                raise KubeconfigError("kubeconfig: client-certificate and client-key are not a PEM certificate and its key") from None
    return context


def _exec_credential(plugin: dict[str, Any], base: Path) -> dict[str, Any]:
    """Runs a client-go exec plugin; its answer in the words of a kubeconfig user."""
    version = plugin.get("apiVersion", "client.authentication.k8s.io/v1")
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    environment = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    environment.update({item["name"]: item["value"] for item in plugin.get("env") or []})
    command = [plugin["command"], *(plugin.get("args") or [])]
    try:
        done = subprocess.run(command, env=environment, cwd=base, capture_output=True, timeout=60, check=True, text=True)
        status = json.loads(done.stdout)["status"]
    except FileNotFoundError:
        raise KubeconfigError(f"kubeconfig: exec plugin is not installed: `{plugin['command']}`") from None
    except OSError as error:
        raise KubeconfigError(f"kubeconfig: exec plugin cannot be run: {error.strerror}: `{plugin['command']}`") from None
    except subprocess.TimeoutExpired:
        raise KubeconfigError(f"kubeconfig: exec plugin did not answer within 60 s: `{plugin['command']}`") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise KubeconfigError(f"kubeconfig: exec plugin `{plugin['command']}` failed: {last}") from None
    except (ValueError, KeyError):
        raise KubeconfigError(f"kubeconfig: exec plugin printed no ExecCredential: `{plugin['command']}`") from None
    user: dict[str, Any] = {"token": status.get("token")}
    for theirs, ours in (("clientCertificateData", "client-certificate-data"), ("clientKeyData", "client-key-data")):
        if status.get(theirs):
            user[ours] = base64.b64encode(status[theirs].encode()).decode()
    return user
