"""Packing, pushing, pulling, looking at and checking a model artifact: what `fleet model` and the node agent do with one."""

import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from core.errors import FleetError
from oci import blobs, image, layout, model, reference, safetensors, store
from oci.base import read as read_base
from oci.blobs import Blob, Meter, no_meter
from oci.image import Artifact
from oci.layout import Layout
from oci.model import Contents, Model
from oci.reference import Reference
from oci.registry import Registry
from oci.store import Store, Stored

# The tag of the ModelPack manifest beside the tag of the artifact, for clients that follow no index.
MODELPACK_SUFFIX = "-modelpack"


def pack(folder: Path, *, raw: bool = False, base: str = "", meter: Meter = no_meter) -> tuple[Artifact, Model]:
    """base: an oci:// reference with a digest, of an image with a shell. Raises FleetError when `folder` is no model that can be served."""
    files = model.scan(folder)
    try:
        found = model.examine(model.contents_of(folder, files))
    except FleetError as error:
        raise FleetError(f"{folder}: {error}", hint=error.hint) from None
    below = {"bases": read_base(base)} if base else {}
    return image.build(folder.resolve().name, files, found, raw=raw, meter=meter, **below), found


@contextmanager
def opened(source: str) -> Generator[tuple[Store, str]]:
    """A layout's directory or an oci:// reference as (store, what is asked of it). Raises FleetError."""
    if source.startswith(reference.SCHEME):
        found = reference.parse(source)
        with Registry(found) as registry:
            yield registry, found.wanted
    elif layout.is_layout(Path(source)):
        folder = Layout(Path(source))
        yield folder, folder.root()
    else:
        raise FleetError(f"{source}: is neither an oci:// reference nor an OCI layout", hint="fleet model pack DIR --output LAYOUT makes a layout")


def from_layout(folder: Path, meter: Meter = no_meter) -> Artifact:
    """Raises FleetError, also when a blob is not what its digest says."""
    place = Layout(folder)
    found = store.load(place, place.root())
    if found.modelpack is None or not found.manifests:
        raise FleetError(f"{folder}: is no model artifact of `fleet model pack`", hint="pack the model's directory with it")
    kept: list[Blob] = []
    for wanted in found.blobs:
        file = blobs.of_file(place.path(wanted.digest))
        blob = Blob(wanted.annotations.get("org.opencontainers.image.title", wanted.digest[:19]), file.segments)
        blob.measure(meter(f"digest of {blob.name}", blob.size))
        if blob.digest != wanted.digest or blob.size != wanted.size:
            raise FleetError(f"{folder}: digest mismatch: {wanted.digest} has the digest `{blob.digest}`", hint="it was damaged; pack the model again")
        kept.append(blob)
    return Artifact(found.root, found.manifests, found.modelpack, tuple(kept))


def push(artifact: Artifact, target: Reference, meter: Meter = no_meter, pause: float = 1) -> int:
    """Blobs, then manifests, then the tag: what breaks before leaves no tag. Returns the bytes that were sent. Raises FleetError."""
    if not target.tag or target.digest:
        raise FleetError(f"push needs a tag and no digest, got: `{target}`", hint=f"e.g. {reference.SCHEME}{target.host}/{target.repository}:v1")
    sent = 0
    with Registry(target, pause) as registry:
        for blob in artifact.blobs:
            sent += blob.size if registry.push_blob(blob, meter(f"pushing {blob.name}", blob.size)) else 0
        for document in artifact.manifests:
            registry.push_manifest(document)
        registry.push_manifest(artifact.modelpack, target.tag + MODELPACK_SUFFIX)
        registry.push_manifest(artifact.index, target.tag)
    return sent


def ensure(folder: Path, source: str, meter: Meter = no_meter) -> bool:
    """The registry holds `source`, which names a digest; `folder` is packed and pushed where it does not, and read only then.

    The tag of what is pushed is the source's, else the first digits of the digest, so that no registry takes it for rubbish.
    True if it was pushed. Raises FleetError, also when `folder` is not what the digest says.
    """
    wanted = reference.parse(source)
    if not wanted.digest:
        raise FleetError(f"must name a digest, got: `{source}`", hint="oci://HOST/REPOSITORY@sha256:…; `fleet model pack` prints it")
    with Registry(wanted) as registry:
        if registry.has_manifest(wanted.digest):
            return False
    artifact, _ = pack(folder, meter=meter)
    if artifact.digest != wanted.digest:
        raise FleetError(
            f"{folder}: digest mismatch: {wanted.host} lacks {wanted.digest}, and the directory packs to `{artifact.digest}`",
            hint="if the directory is what should be served, write its digest into the source",
        )
    push(artifact, Reference(wanted.host, wanted.repository, wanted.tag or wanted.digest.removeprefix("sha256:")[:12]), meter)
    return True


def pull(source: str, folder: Path, meter: Meter = no_meter) -> Stored:
    """The model's files in `folder`, all and checked, or none. Raises FleetError."""
    layout.refuse_occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = layout.beside(folder)
    try:
        with opened(source) as (place, wanted):
            found = store.load(place, wanted)
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for layer in found.layers:
                store.read_layer(place, layer, lambda name, size, content: _save(fresh / name, size, content), meter)
        if not (fresh / model.CONFIG).exists():
            raise FleetError(f"{source}: holds no model: no {model.CONFIG} below /{image.MODELS}")
        layout.put_in_place(fresh, folder)
    except OSError as error:
        raise FleetError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return found


def _save(path: Path, size: int, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        shutil.copyfileobj(content, stream, blobs.CHUNK)
        if stream.tell() != size:
            raise FleetError(f"{path.name}: must have {size} bytes, got: `{stream.tell()}`")


@dataclass(frozen=True)
class Verified:
    """What was checked. digest: of what was asked for. size: bytes of all blobs."""

    digest: str
    size: int
    found: Model


def verify(source: str, *, licence_needed: bool = True, meter: Meter = no_meter) -> Verified:
    """Reads every byte: digests, the checks of pack over the files in the layers, the facts against those written down, the licence.

    Raises FleetError.
    """
    sizes: dict[str, int] = {}
    texts: dict[str, bytes] = {}
    headers: dict[str, safetensors.Header] = {}

    def visit(name: str, size: int, content: IO[bytes]) -> None:
        sizes[name] = size
        if name in model.READ_WHOLE:
            model.check_small(name, size)
            texts[name] = content.read(size)
        elif name.endswith(model.WEIGHTS):
            headers[name] = safetensors.read_header(name, content, size)

    with opened(source) as (place, wanted):
        found = store.load(place, wanted)
        for layer in found.layers:
            store.read_layer(place, layer, visit, meter)
        read = {layer.digest for layer in found.layers}
        for other in found.blobs:
            if other.digest not in read:
                store.check_blob(place, other, meter)
    try:
        result = model.examine(Contents(sizes, texts, headers))
    except FleetError as error:
        raise FleetError(f"{source}: {error}", hint=error.hint) from None
    differing = differences(found.facts or {}, result.facts)
    if differing:
        raise FleetError(f"{source}: the facts written down are not those of its files:\n" + "\n".join(f"  {line}" for line in differing), hint="pack it again")
    if licence_needed and not result.licences:
        raise FleetError(f"{source}: has no licence file (LICENSE, COPYING, NOTICE)", hint="add it and pack again, or verify with --no-licence")
    return Verified(found.root.blob.digest, sum(each.size for each in found.blobs), result)


def differences(written: Mapping[str, Any], real: Mapping[str, Any]) -> list[str]:
    return [f"{key}: is `{real.get(key)}`, written is: `{written.get(key)}`" for key in sorted({*written, *real}) if written.get(key) != real.get(key)]
