"""An image with a shell, put below a model's layers: KServe's modelcar runs `sh`, `ln` and `sleep` of the model's own image."""

import json
from collections.abc import Mapping
from typing import Any, cast

from core.errors import FleetError
from oci import blobs, reference, store
from oci.image import ARCHITECTURES, OCI_LAYER, Base
from oci.registry import Registry
from oci.store import Descriptor, Store

# What holds a shell is a few megabytes; it is held in memory while it is packed.
_LIMIT = 64 << 20
_OCI_NAMES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{OCI_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
}


def read(source: str) -> tuple[Base, ...]:
    """An entry for each of our architectures that the image is for. Raises FleetError."""
    found = reference.parse(source)
    if not found.digest:
        raise FleetError(
            f"the base must be named by its digest, got: `{source}`", hint=f"{source}@sha256:…; what a tag names changes, and the artifact with it"
        )
    with Registry(found) as registry:
        bodies = store.image_manifests(registry, found.digest)
        result = tuple(each for each in (_platform(registry, body) for body in bodies) if each)
    if not result:
        raise FleetError(f"{source}: holds no image for Linux on {' or '.join(ARCHITECTURES)}")
    return result


def _platform(place: Store, body: Mapping[str, Any]) -> Base | None:
    configuration = store.entry(body.get("config"), "base's manifest")
    config = _json(_content(place, configuration))
    if config.get("os") != "linux" or config.get("architecture") not in ARCHITECTURES:
        return None
    layers = [store.entry(each, "base's manifest") for each in body.get("layers") or []]
    if sum(layer.size for layer in layers) > _LIMIT:
        raise FleetError(f"the base must have at most {_LIMIT >> 20} MiB, got: `{sum(layer.size for layer in layers) >> 20}` MiB", hint="busybox is enough")
    diff_ids = cast("list[str]", (config.get("rootfs") or {}).get("diff_ids") or [])
    if len(diff_ids) != len(layers):
        raise FleetError(f"the base's config must have a diff_id for each of its {len(layers)} layers, got: `{len(diff_ids)}`")
    described = tuple({"mediaType": _OCI_NAMES.get(each.media_type, each.media_type), "digest": each.digest, "size": each.size} for each in layers)
    kept = tuple(blobs.of_bytes("base", _content(place, each)) for each in layers)
    # Without an entrypoint: KServe gives arguments alone, and they begin with `sh`.
    settings = {key: value for key, value in (config.get("config") or {}).items() if key in {"Env", "User", "WorkingDir"}}
    return Base(config["architecture"], described, kept, tuple(diff_ids), settings)


def _content(place: Store, wanted: Descriptor) -> bytes:
    """Raises FleetError when it is not what its digest says."""
    if wanted.size > _LIMIT:
        raise FleetError(f"a blob of the base must have at most {_LIMIT} bytes, got: `{wanted.size}`")
    content = b"".join(place.blob(wanted.digest))
    if blobs.of_bytes("base", content).digest != wanted.digest:
        raise FleetError(f"digest mismatch: {wanted.digest} of the base came as something else")
    return content


def _json(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise FleetError(f"the base's config is no JSON: {error}") from None
    return cast("Mapping[str, Any]", found if isinstance(found, dict) else {})
