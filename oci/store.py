"""An artifact that lies somewhere, in a layout or a registry: its manifests, its facts, and the files in its layers as they pass by."""

import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, cast

from core.errors import FleetError
from oci import blobs
from oci.blobs import CHUNK, Meter
from oci.image import FACTS, FILEPATH, MODELS, PACK_MANIFEST, Document

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LAYER = re.compile(r"application/vnd\.(oci\.image\.layer\.v1|docker\.image\.rootfs\.diff|cncf\.model\.[a-z.]+\.v1)\.(?P<form>raw|tar)(?P<packed>[.+]gzip)?")
# A file of an artifact: its path in the model, its size, its bytes.
Visit = Callable[[str, int, IO[bytes]], None]


class Store(Protocol):
    """Where an artifact lies."""

    def manifest(self, wanted: str) -> tuple[str, bytes]: ...

    def blob(self, digest: str) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Descriptor:
    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Stored:
    """root: what was asked for, an index or a manifest. layers: of the manifest that the model's files are read from. Both kinds of
    manifests of our own name the same files. blobs: of all manifests, each once, layers and configs."""

    root: Document
    manifests: tuple[Document, ...]
    modelpack: Document | None
    layers: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    facts: Mapping[str, Any] | None


def load(store: Store, wanted: str) -> Stored:
    """Reads the manifests below `wanted`, a tag or a digest; each must have its digest. Raises FleetError."""
    root, content = _document(store, wanted)
    manifests: list[Document] = []
    bodies: list[Mapping[str, Any]] = []
    if "manifests" in content:
        for listed in _entries(content, "manifests", root.blob.name):
            document, body = _document(store, listed.digest)
            if document.blob.size != listed.size:
                raise FleetError(f"{listed.digest}: must have {listed.size} bytes, as the index says, got: `{document.blob.size}`")
            manifests.append(document)
            bodies.append(body)
    else:
        manifests, bodies = [root], [content]
    packs = [body.get("artifactType") == PACK_MANIFEST for body in bodies]
    if not bodies:
        raise FleetError(f"{wanted}: is an index without manifests")
    layers = [_entries(body, "layers", document.blob.name) for body, document in zip(bodies, manifests, strict=True)]
    configs = [entry(body.get("config"), document.blob.name) for body, document in zip(bodies, manifests, strict=True)]
    unique = {each.digest: each for each in [*configs, *(layer for one in layers for layer in one)]}
    image = packs.index(False) if False in packs else 0
    # Of an index only: a single manifest is the root itself.
    below = tuple(manifests) if "manifests" in content else ()
    modelpack = manifests[packs.index(True)] if True in packs else None
    return Stored(root, below, modelpack, tuple(layers[image]), tuple(unique.values()), _facts(content.get("annotations") or bodies[image].get("annotations")))


def image_manifests(store: Store, wanted: str) -> list[Mapping[str, Any]]:
    """Those of an index for real platforms, or the one manifest that `wanted` names. Raises FleetError."""
    document, content = _document(store, wanted)
    if "manifests" not in content:
        return [content]
    entries = cast("list[Mapping[str, Any]]", content["manifests"])
    real = [each for each in entries if (each.get("platform") or {}).get("os") == "linux"]
    return [_document(store, entry(each, document.blob.name).digest)[1] for each in real]


def _document(store: Store, wanted: str) -> tuple[Document, Mapping[str, Any]]:
    media_type, text = store.manifest(wanted)
    document = Document(media_type, blobs.of_bytes("manifest", text), {})
    if ":" in wanted and document.blob.digest != wanted:
        raise FleetError(f"digest mismatch: the manifest {wanted} has the digest `{document.blob.digest}`", hint="it was damaged or replaced; push it again")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FleetError(f"the manifest {wanted} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise FleetError(f"the manifest {wanted} must be a JSON object")
    body = cast("Mapping[str, Any]", content)
    return Document(body.get("mediaType") or media_type, document.blob, {}), body


def _entries(body: Mapping[str, Any], key: str, name: str) -> list[Descriptor]:
    found = body.get(key)
    if not isinstance(found, list):
        raise FleetError(f"the {name} must have a list of {key}, got: `{found}`")
    return [entry(each, name) for each in cast("list[Any]", found)]


def entry(value: Any, name: str) -> Descriptor:
    """A descriptor as a manifest has it. Raises FleetError."""
    try:
        found = Descriptor(value["mediaType"], value["digest"], int(value["size"]), dict(value.get("annotations") or {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise FleetError(f"the {name} must name media type, digest and size of what it refers to, got: `{value}`") from None
    if not _DIGEST.fullmatch(found.digest):
        raise FleetError(f"a digest must be sha256: and 64 digits, got: `{found.digest}`")
    return found


def _facts(annotations: Any) -> Mapping[str, Any] | None:
    text = cast("Mapping[str, str]", annotations or {}).get(FACTS)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise FleetError(f"the annotation {FACTS} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise FleetError(f"the annotation {FACTS} must be a JSON object, got: `{found}`")
    return cast("Mapping[str, Any]", found)


class _Checked:
    """A blob to read from, whose bytes are counted and hashed as they pass."""

    def __init__(self, store: Store, wanted: Descriptor, meter: Meter) -> None:
        self._wanted = wanted
        self._chunks = store.blob(wanted.digest)
        self._rest = b""
        self._hash, self._count, self._gone = hashlib.sha256(), 0, False
        self._seen = meter(f"reading {wanted.annotations.get('org.opencontainers.image.title', wanted.digest[:19])}", wanted.size)

    def read(self, count: int = CHUNK) -> bytes:
        while len(self._rest) < count and (chunk := self._next()):
            self._hash.update(chunk)
            self._count += len(chunk)
            self._seen(self._count)
            if self._count > self._wanted.size:
                break
            self._rest += chunk
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _next(self) -> bytes:
        try:
            return next(self._chunks, b"")
        except FleetError:
            self._gone = True
            raise

    def finish(self) -> None:
        """Reads what is left. Raises FleetError when the blob is not what its digest says; not where it could not be had at all."""
        if self._gone:
            return
        while self._count <= self._wanted.size and self.read():
            pass
        found = f"sha256:{self._hash.hexdigest()}"
        if self._count != self._wanted.size or found != self._wanted.digest:
            raise FleetError(
                f"digest mismatch: {self._wanted.digest} of {self._wanted.size} bytes came as `{found}` of {self._count} bytes",
                hint="the blob was damaged where it lies or on its way; nothing of it was kept",
            )


def check_blob(store: Store, wanted: Descriptor, meter: Meter) -> None:
    """Raises FleetError when it is not what its digest says."""
    _Checked(store, wanted, meter).finish()


def read_layer(store: Store, layer: Descriptor, visit: Visit, meter: Meter) -> None:
    """Shows `visit` the model's files in a layer; what else lies in an image is passed over. Raises FleetError.

    The digest is known when the last byte has passed: what `visit` made before must not be used when this raises.
    """
    kind = _LAYER.fullmatch(layer.media_type)
    if kind is None:
        raise FleetError(f"the layer {layer.digest} must be a tar archive, plain or with gzip, got: `{layer.media_type}`")
    stream = _Checked(store, layer, meter)
    try:
        if kind["form"] == "raw":
            visit(_inside(layer.annotations.get(FILEPATH, "")), layer.size, cast("IO[bytes]", stream))
        else:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|gz" if kind["packed"] else "r|", bufsize=CHUNK) as archive:
                for member in archive:
                    _member(archive, member, visit)
    except FleetError:
        # What is wrong with a file of a damaged layer is first of all the layer's digest.
        stream.finish()
        raise
    except (tarfile.TarError, EOFError, zlib.error) as error:
        stream.finish()
        raise FleetError(f"the layer {layer.digest} is no readable archive: {error}") from None
    stream.finish()


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, visit: Visit) -> None:
    path = PurePosixPath("/", member.name)
    if path.parts[1:2] != (MODELS,) or member.isdir():
        return
    target = _inside(str(path.relative_to(f"/{MODELS}")))
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        raise FleetError(f"{target}: must be a regular file in its layer, it is a link or a device")
    visit(target, member.size, content)


def _inside(name: str) -> str:
    """Raises FleetError for a path that leaves the model's directory."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise FleetError(f"a file of a layer must have a path inside the model, got: `{name}`")
    return str(path)
