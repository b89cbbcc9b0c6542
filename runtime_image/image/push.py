"""An image's way from an OCI layout to a registry and back, by our own registry client: every blob checked, the tag last.

The list of contents goes along as a referrer: a manifest of its own whose subject is the image.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from core.errors import FleetError
from oci import blobs, layout, reference
from oci.blobs import Blob, Meter, no_meter
from oci.image import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST, Document
from oci.layout import Layout
from oci.reference import Reference
from oci.registry import Registry
from oci.store import Descriptor, Store, entry
from runtime_image.image import sbom

# A manifest that has no config names these two bytes.
_EMPTY = blobs.of_bytes("empty config", b"{}")
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
PLATFORM = {"architecture": "amd64", "os": "linux"}


@dataclass
class Tree:
    """An image or an index of images: manifests in the order in which a registry takes them, the last one is the root."""

    manifests: list[Document] = field(default_factory=list[Document])
    blobs: dict[str, Descriptor] = field(default_factory=dict[str, Descriptor])

    @property
    def root(self) -> Document:
        return self.manifests[-1]


@dataclass(frozen=True)
class Pushed:
    """digest: of the image. sbom: of the manifest of its list of contents. sent: bytes."""

    digest: str
    sbom: str
    sent: int


def read(store: Store, wanted: str) -> Tree:
    """All that hangs below a tag or a digest. Raises FleetError, also when a manifest is not what its digest says."""
    found = Tree()
    _walk(store, wanted, found)
    return found


def _walk(store: Store, wanted: str, found: Tree) -> None:
    media_type, text = store.manifest(wanted)
    blob = blobs.of_bytes("manifest", text)
    if ":" in wanted and blob.digest != wanted:
        raise FleetError(f"digest mismatch: the manifest {wanted} has the digest `{blob.digest}`", hint="it was damaged or replaced; build it again")
    body = _json(text, f"the manifest {wanted}")
    for each in body.get("manifests") or []:
        _walk(store, entry(each, "index").digest, found)
    for each in [*([body["config"]] if "config" in body else []), *(body.get("layers") or [])]:
        described = entry(each, "manifest")
        found.blobs[described.digest] = described
    found.manifests.append(Document(body.get("mediaType") or media_type, blob, {}))


def _json(text: bytes, what: str) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise FleetError(f"{what} is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise FleetError(f"{what} must be a JSON object")
    return cast("Mapping[str, Any]", body)


def push(folder: Path, contents: Path, target: Reference, meter: Meter = no_meter, pause: float = 1) -> Pushed:
    """The image in the layout `folder` and its list of contents under a tag, which is written last: what breaks before leaves none.

    Raises FleetError.
    """
    place = Layout(folder)
    tree = read(place, place.root())
    attached = blobs.of_bytes(contents.name, contents.read_bytes())
    referrer = _referrer(tree.root, attached)
    sent = 0
    with Registry(target, pause) as registry:
        for described in tree.blobs.values():
            blob = Blob(described.digest[:19], blobs.of_file(place.path(described.digest)).segments)
            blob.measure(meter(f"digest of {blob.name}", blob.size))
            if blob.digest != described.digest:
                raise FleetError(f"{folder}: digest mismatch: {described.digest} has the digest `{blob.digest}`", hint="it was damaged; build it again")
            sent += blob.size if registry.push_blob(blob, meter(f"pushing {blob.name}", blob.size)) else 0
        for blob in (_EMPTY, attached):
            sent += blob.size if registry.push_blob(blob, meter(f"pushing {blob.name}", blob.size)) else 0
        for document in tree.manifests:
            registry.push_manifest(document)
        registry.push_referrer(referrer, tree.root.blob.digest, sbom.MEDIA_TYPE)
        registry.push_manifest(tree.root, target.tag)
    return Pushed(tree.root.blob.digest, referrer.blob.digest, sent)


def _referrer(subject: Document, attached: Blob) -> Document:
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": sbom.MEDIA_TYPE,
        "config": {"mediaType": _EMPTY_TYPE, "digest": _EMPTY.digest, "size": _EMPTY.size},
        "layers": [
            {
                "mediaType": sbom.MEDIA_TYPE,
                "digest": attached.digest,
                "size": attached.size,
                "annotations": {"org.opencontainers.image.title": attached.name},
            }
        ],
        "subject": subject.descriptor(),
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return Document(OCI_MANIFEST, blobs.of_bytes("list of contents", text), {})


def pull(source: Reference, folder: Path, meter: Meter = no_meter) -> str:
    """The image for Linux on amd64 as a layout in `folder`, whole and checked or not at all. Returns its digest. Raises FleetError."""
    layout.refuse_occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = layout.beside(folder)
    store = fresh / "blobs" / "sha256"
    try:
        store.mkdir(parents=True)
        with Registry(source) as registry:
            chosen, described = _one_platform(registry, source.wanted)
            tree = read(registry, chosen)
            for document in tree.manifests:
                (store / document.blob.digest.removeprefix("sha256:")).write_bytes(b"".join(document.blob.read()))
            for each in tree.blobs.values():
                _save(registry, each, store, meter)
        layout.finish(fresh, described or tree.root.descriptor())
        layout.put_in_place(fresh, folder)
    except OSError as error:
        raise FleetError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return chosen


def _one_platform(registry: Registry, wanted: str) -> tuple[str, Mapping[str, Any] | None]:
    """(digest, descriptor in the index) of the image that runs here; the descriptor is None where there is no index."""
    media_type, text = registry.manifest(wanted)
    body = _json(text, f"the manifest {wanted}")
    digest = blobs.of_bytes("manifest", text).digest
    if (body.get("mediaType") or media_type) not in {OCI_INDEX, DOCKER_INDEX}:
        return digest, None
    for each in body.get("manifests") or []:
        platform = each.get("platform") or {}
        if all(platform.get(key) == value for key, value in PLATFORM.items()):
            return entry(each, "index").digest, each
    raise FleetError(f"{registry.repository}: {wanted} has no image for {PLATFORM['os']} on {PLATFORM['architecture']}")


def _save(registry: Registry, wanted: Descriptor, store: Path, meter: Meter) -> None:
    target = store / wanted.digest.removeprefix("sha256:")
    seen, done = meter(f"pulling {wanted.digest[:19]}", wanted.size), 0
    with target.open("wb") as stream:
        for chunk in registry.blob(wanted.digest):
            done += stream.write(chunk)
            seen(done)
    found = blobs.of_file(target).digest
    if found != wanted.digest:
        raise FleetError(f"digest mismatch: {wanted.digest} came as `{found}`", hint="the blob was damaged where it lies or on its way")


# What an image says of itself


@dataclass(frozen=True)
class Layer:
    """size: bytes as they travel. made_by: the step of the recipe."""

    digest: str
    size: int
    made_by: str


@dataclass(frozen=True)
class Description:
    digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.get("Labels") or {}

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


def describe(store: Store, wanted: str) -> Description:
    """The image below a tag or a digest. Raises FleetError."""
    tree = read(store, wanted)
    for document in tree.manifests:
        body = _json(b"".join(document.blob.read()), "the manifest")
        layers = [entry(each, "manifest") for each in body.get("layers") or []]
        if "config" not in body or not all(".tar" in each.media_type for each in layers):
            continue
        config = _json(b"".join(store.blob(body["config"]["digest"])), "the image's config")
        if not config.get("rootfs"):
            continue
        steps = [each.get("created_by", "") for each in config.get("history") or [] if not each.get("empty_layer")]
        steps += [""] * (len(layers) - len(steps))
        described = tuple(Layer(each.digest, each.size, step) for each, step in zip(layers, steps, strict=False))
        return Description(tree.root.blob.digest, config.get("config") or {}, described)
    raise FleetError(f"{wanted}: is no image")


def parse_repository(text: str) -> Reference:
    """`registry.example.com/team/runtime`, with or without oci://, and without a tag. Raises FleetError."""
    found = reference.parse(text if text.startswith(reference.SCHEME) else f"{reference.SCHEME}{text}")
    if found.tag or found.digest:
        raise FleetError(f"a repository is named without tag and digest, got: `{text}`", hint="the tag is --tag, by default derived from the inputs")
    return found
