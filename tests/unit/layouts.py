"""Small images as OCI layouts, made by hand: layers as builders write them, and what may be wrong with one."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oci.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST


def archive(files: Mapping[str, str]) -> bytes:
    """A tar archive of texts by path."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as opened:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            opened.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()


def keep(folder: Path, content: bytes) -> dict[str, Any]:
    """Puts a blob into a layout. Returns what a manifest says of it, without the media type."""
    number = hashlib.sha256(content).hexdigest()
    store = folder / "blobs" / "sha256"
    store.mkdir(parents=True, exist_ok=True)
    (store / number).write_bytes(content)
    return {"digest": f"sha256:{number}", "size": len(content)}


def _finish(folder: Path, root: Mapping[str, Any]) -> None:
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))


def image(folder: Path, layers: Sequence[bytes], config: Mapping[str, Any] | None = None, *, packed: bool = False) -> dict[str, Any]:
    """Writes an image into the layout `folder`. packed: by gzip. Returns the descriptor of its manifest."""
    described = [
        {"mediaType": f"{OCI_LAYER}+gzip" if packed else OCI_LAYER, **keep(folder, gzip.compress(each, mtime=0) if packed else each)} for each in layers
    ]
    history = [{"created_by": "ENV A=1", "empty_layer": True}, *({"created_by": f"step {number}"} for number in range(len(layers)))]
    body = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "2000:0", "Entrypoint": ["vllm", "serve"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]},
        "history": history,
    }
    described_config = {"mediaType": OCI_CONFIG, **keep(folder, json.dumps(body).encode())}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described_config, "layers": described}
    root = {"mediaType": OCI_MANIFEST, **keep(folder, json.dumps(manifest).encode())}
    _finish(folder, root)
    return root


def attested(folder: Path, layers: Sequence[bytes]) -> dict[str, Any]:
    """As docker buildx writes it: an index of the image and of an attestation, which is for no platform."""
    inner = image(folder, layers)
    statement = {"mediaType": "application/vnd.in-toto+json", **keep(folder, b'{"predicateType": "https://slsa.dev/provenance/v1"}')}
    config = {"mediaType": OCI_CONFIG, **keep(folder, b'{"architecture": "unknown", "os": "unknown", "config": {}}')}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [statement]}
    other = {"mediaType": OCI_MANIFEST, **keep(folder, json.dumps(manifest).encode())}
    entries = [
        {**other, "platform": {"architecture": "unknown", "os": "unknown"}},
        {**inner, "platform": {"architecture": "amd64", "os": "linux"}},
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    root = {"mediaType": OCI_INDEX, **keep(folder, json.dumps(index).encode())}
    _finish(folder, root)
    return root
