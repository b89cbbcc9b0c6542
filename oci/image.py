"""The manifests of a model artifact: an image for container runtimes and a ModelPack manifest over the same blobs.

Why two, and why an index over them: docs/decisions/0010-model-artifacts.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oci import blobs
from oci.blobs import Blob, Meter, no_meter
from oci.model import WEIGHTS, Model, licence_files

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
# Docker's own types: images that others built have them.
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PACK_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
PACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
_PACK_TYPE = "application/vnd.cncf.model.{kind}.v1.{form}"
# Written into every manifest and into the label of the image's config, read by inspect and by whoever plans with an artifact.
FACTS = "dev.inference-fleet.model.facts"
# ModelPack's own annotation of a layer, and the one that ORAS names a file by.
FILEPATH, _TITLE = "org.cncf.model.filepath", "org.opencontainers.image.title"
# A container runtime takes the image of its own platform. The unknown one is taken by none: so builders mark what is no image.
ARCHITECTURES = ("amd64", "arm64")
_NO_PLATFORM = {"architecture": "unknown", "os": "unknown"}
# Where KServe looks: the modelcar links /models, the image volume is mounted by this sub-path.
MODELS = "models"
# A file of another kind that is at least this long has a layer of its own.
_LARGE = 64 << 20


@dataclass(frozen=True)
class Document:
    """A manifest, an index or a config: JSON with one spelling, and the digest of it."""

    media_type: str
    blob: Blob
    annotations: Mapping[str, str]

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.blob.digest, "size": self.blob.size, **more}


@dataclass(frozen=True)
class Base:
    """An image below a model's layers, for one architecture: its layers as a manifest describes them, their bytes, and the digests of
    what they are unpacked. settings: of its containers."""

    architecture: str
    layers: tuple[Mapping[str, Any], ...] = ()
    blobs: tuple[Blob, ...] = ()
    diff_ids: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


_NOTHING = tuple(Base(architecture) for architecture in ARCHITECTURES)


@dataclass(frozen=True)
class Artifact:
    """index: what a tag names. manifests: pushed before it. modelpack: one of them. blobs: pushed before all."""

    index: Document
    manifests: tuple[Document, ...]
    modelpack: Document
    blobs: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        return self.index.blob.digest


@dataclass(frozen=True)
class _Layer:
    kind: str
    blob: Blob
    files: tuple[str, ...]


def _kind(name: str) -> str:
    """ModelPack's word for what a file is."""
    if name.endswith(WEIGHTS):
        return "weight"
    if name.endswith(".py"):
        return "code"
    if name.lower().endswith((".md", ".pdf", ".png", ".jpg")) or licence_files({name: 0}):
        return "doc"
    return "weight.config"


def _layers(files: Mapping[str, Path]) -> list[_Layer]:
    """Weights and other large files each alone, so that a new tokenizer or one new shard moves no other bytes."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    alone = [name for name in sorted(files) if name.endswith(WEIGHTS) or sizes[name] >= _LARGE]
    groups: list[tuple[str, tuple[str, ...]]] = [(_kind(name), (name,)) for name in alone]
    for kind in ("weight.config", "code", "doc"):
        rest = tuple(name for name in sorted(files) if name not in alone and _kind(name) == kind)
        if rest:
            groups.append((kind, rest))
    # Few small layers first: a client that wants only the facts' sources is done early.
    groups.sort(key=lambda group: group[0] == "weight")
    return [
        _Layer(kind, blobs.tar(names[0] if len(names) == 1 else kind, [(f"{MODELS}/{name}", files[name], sizes[name]) for name in names]), names)
        for kind, names in groups
    ]


def build(name: str, files: Mapping[str, Path], model: Model, *, raw: bool = False, bases: Sequence[Base] = _NOTHING, meter: Meter = no_meter) -> Artifact:
    """The artifact of a model. Reads every file for its digest. raw: ModelPack's layers are the files themselves.

    bases: an image for each of them.
    """
    layers = _layers(files)
    pack_layers = [_Layer(_kind(each), blobs.of_file(files[each]), (each,)) for each in sorted(files)] if raw else layers
    for blob in dict.fromkeys(layer.blob for layer in [*layers, *pack_layers]):
        blob.measure(meter(f"digest of {blob.name}", blob.size))
    facts = json.dumps(model.facts, sort_keys=True, separators=(",", ":"))
    notes = {FACTS: facts, _TITLE: name}
    diff_ids = [layer.blob.digest for layer in layers]
    configs = [_image_config(base, diff_ids, notes) for base in bases]
    described = [{"mediaType": OCI_LAYER, "digest": layer.blob.digest, "size": layer.blob.size, "annotations": _paths(layer, raw=False)} for layer in layers]
    images = [_manifest(config.descriptor(), [*base.layers, *described], notes) for base, config in zip(bases, configs, strict=True)]
    pack_config = _pack_config(name, model, [layer.blob.digest for layer in pack_layers])
    pack_described = [
        {
            "mediaType": _PACK_TYPE.format(kind=layer.kind, form="raw" if raw else "tar"),
            "digest": layer.blob.digest,
            "size": layer.blob.size,
            "annotations": _paths(layer, raw=raw),
        }
        for layer in pack_layers
    ]
    modelpack = _manifest(pack_config.descriptor(), pack_described, notes, PACK_MANIFEST)
    platforms = [{"architecture": base.architecture, "os": "linux"} for base in bases]
    entries = [image.descriptor(platform=platform) for image, platform in zip(images, platforms, strict=True)]
    entries.append(modelpack.descriptor(artifactType=PACK_MANIFEST, platform=_NO_PLATFORM))
    index = _document(OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "annotations": notes}, "index", notes)
    parts = [blob for base in bases for blob in base.blobs] + [layer.blob for layer in [*layers, *pack_layers]]
    kept = {each.digest: each for each in parts + [config.blob for config in [*configs, pack_config]]}
    return Artifact(index, (*images, modelpack), modelpack, tuple(kept.values()))


def _paths(layer: _Layer, *, raw: bool) -> dict[str, str]:
    """Annotations of a layer. An archive of several files has no path of its own."""
    if raw:
        return {FILEPATH: layer.files[0], _TITLE: layer.files[0]}
    # For ORAS, which saves a layer under its title, and does not unpack plain archives.
    title = {_TITLE: f"{layer.blob.name}.tar"}
    return {FILEPATH: layer.files[0], **title} if len(layer.files) == 1 else title


def _document(media_type: str, content: Mapping[str, Any], name: str, annotations: Mapping[str, str] | None = None) -> Document:
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return Document(media_type, blobs.of_bytes(name, text), annotations or {})


def _manifest(config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], notes: Mapping[str, str], artifact_type: str = "") -> Document:
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        **({"artifactType": artifact_type} if artifact_type else {}),
        "config": config,
        "layers": layers,
        "annotations": notes,
    }
    return _document(OCI_MANIFEST, content, "ModelPack manifest" if artifact_type else "image manifest", notes)


def _image_config(base: Base, diff_ids: Sequence[str], notes: Mapping[str, str]) -> Document:
    every = [*base.diff_ids, *diff_ids]
    content = {
        "architecture": base.architecture,
        "os": "linux",
        "config": {**base.settings, "Labels": notes},
        "rootfs": {"type": "layers", "diff_ids": every},
        # Some readers count one entry per layer.
        "history": [{"created_by": "fleet model pack"} for _ in every],
    }
    return _document(OCI_CONFIG, content, f"image config {base.architecture}")


def _pack_config(name: str, model: Model, diff_ids: Sequence[str]) -> Document:
    facts = model.facts
    technical = {
        "architecture": "transformer",
        "format": "safetensors",
        "paramSize": _param_size(facts["parameters"]),
        **({"precision": facts["dtype"]} if facts.get("dtype") else {}),
        **({"quantization": facts["quantization"]["method"]} if "quantization" in facts else {}),
    }
    content = {"descriptor": {"name": name}, "config": technical, "modelfs": {"type": "layers", "diffIds": diff_ids}}
    return _document(PACK_CONFIG, content, "ModelPack config")


def _param_size(count: int) -> str:
    """As ModelPack writes it: at most one digit after the point, and a letter."""
    for letter, size in (("q", 10**15), ("t", 10**12), ("b", 10**9), ("m", 10**6)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + letter
    return f"{count / 1000:.1f}".removesuffix(".0") + "k"
