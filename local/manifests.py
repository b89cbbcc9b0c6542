"""Declaring what control planes ship: CRDs, webhook configurations, namespaces.

The objects come from the pinned modules (`tools.share`) and are applied as they are, but for the address of a webhook:
the servers are host processes, so a Service in front of them would lead nowhere. Not for the objects of the fleet
itself; those are declared by components/ through Pulumi.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import yaml

from kube.client import Kube, UnknownKind

CRD_API = "apiextensions.k8s.io/v1"

# Written on every CRD that apply_crds puts, read by the next run. Applying KServe's full CRDs again costs an API server
# seven seconds of CPU although nothing changes, so an equal digest is taken for an equal object.
DIGEST = "inference-fleet.dev/manifest-digest"

# CRDs applied at once. The API server parses a schema per request; on two cores more only queues.
PARALLEL = 4

Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    """Every object of a YAML file. Raises FileNotFoundError where the module does not ship the file."""
    # libyaml reads KServe's 2 MB of CRDs in 0.5 s, the pure Python loader in 10 s.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as stream:
        return [document for document in yaml.load_all(stream, loader) if document]


def read_template(path: Path, values: dict[str, str]) -> list[Object]:
    """Objects of a file in Karmada's `{{name}}` notation, which its shell scripts fill in with sed."""
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return [document for document in yaml.safe_load_all(text) if document]


def namespace(name: str, labels: dict[str, str] | None = None) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


def point_webhooks_at(objects: Iterable[Object], base_url: str, ca: bytes) -> list[Object]:
    """Webhook configurations whose every hook is called at `base_url`, with the hook's own path kept.

    `ca` is the PEM certificate of the authority that signed the server's certificate.
    """
    bundle = base64.b64encode(ca).decode()
    pointed: list[Object] = []
    for item in objects:
        hooks = [{**hook, "clientConfig": {"url": base_url + _hook_path(hook["clientConfig"]), "caBundle": bundle}} for hook in item["webhooks"]]
        metadata = {"name": item["metadata"]["name"], "labels": item["metadata"].get("labels") or {}}
        pointed.append({**item, "metadata": metadata, "webhooks": hooks})
    return pointed


def _hook_path(client_config: Object) -> str:
    if "service" in client_config:
        return client_config["service"]["path"]
    return "/" + client_config["url"].split("//", 1)[1].split("/", 1)[1]


def digest(obj: Object) -> str:
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()[:32]


def apply_crds(kube: Kube, crds: list[Object], timeout_s: float = 60.0) -> str:
    """Puts CRDs, several at once, and waits until the API server serves every version of them.

    CRDs that an earlier run put unchanged are left alone. Returns a digest over all of them.
    Raises ApiError, Unreachable, or TimeoutError that names the kinds still missing.
    """
    present = _digests(kube)
    digests = {crd["metadata"]["name"]: digest(crd) for crd in crds}
    missing = [crd for crd in crds if present.get(crd["metadata"]["name"]) != digests[crd["metadata"]["name"]]]

    def put(crd: Object) -> None:
        metadata = crd["metadata"]
        annotations = {**(metadata.get("annotations") or {}), DIGEST: digests[metadata["name"]]}
        # Server-side apply: KServe's CRDs are beyond the 256 KiB that client-side apply may keep in an annotation.
        kube.apply({**crd, "metadata": {**metadata, "annotations": annotations}})

    # The largest first, as it takes as long as all others together.
    missing.sort(key=lambda crd: -len(json.dumps(crd)))
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(put, missing))
    wait_served(kube, crds, timeout_s)
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def _digests(kube: Kube) -> dict[str, str]:
    """CRD name -> DIGEST annotation. Asks for metadata only: the full list is megabytes."""
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    listed = cast(Object, kube.request("GET", f"/apis/{CRD_API}/customresourcedefinitions", headers=accept).json())
    metadata = [item["metadata"] for item in listed["items"] or []]
    return {entry["name"]: (entry.get("annotations") or {}).get(DIGEST, "") for entry in metadata}


def wait_served(kube: Kube, crds: list[Object], timeout_s: float) -> None:
    """Waits until discovery lists the kinds. It does so once a CRD is established, and is cheap to ask."""
    waiting = {
        (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]) for crd in crds for version in crd["spec"]["versions"] if version["served"]
    }

    def all_served() -> bool:
        for api_version, kind in sorted(waiting):
            try:
                kube.resource(api_version, kind)
            except UnknownKind:
                return False
            waiting.discard((api_version, kind))
        return True

    try:
        kube.wait(all_served, timeout_s, "CRDs")
    except TimeoutError as error:
        names = ", ".join(f"{kind} ({api_version})" for api_version, kind in sorted(waiting))
        raise TimeoutError(f"{kube.server}: {error}: {names}") from None


def apply_all(kube: Kube, objects: Iterable[Object]) -> None:
    """Applies in the given order, one after another: a namespace comes before what lives in it."""
    for item in objects:
        kube.apply(item)
