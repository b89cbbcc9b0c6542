"""An artifact as a directory: the OCI image layout, which skopeo, crane, ORAS and this program read."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import FleetError
from oci.blobs import CHUNK, Blob, Meter, no_meter
from oci.image import OCI_INDEX, Artifact

_MARK, _VERSION = "oci-layout", {"imageLayoutVersion": "1.0.0"}
_INDEX = "index.json"


def is_layout(folder: Path) -> bool:
    return (folder / _MARK).is_file()


def write(artifact: Artifact, folder: Path, meter: Meter = no_meter) -> None:
    """Puts the artifact into `folder`, whole or not at all. Raises FleetError where something is there already."""
    refuse_occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = beside(folder)
    try:
        store = fresh / "blobs" / "sha256"
        store.mkdir(parents=True)
        for blob in (*artifact.blobs, *(each.blob for each in artifact.manifests), artifact.index.blob):
            _copy(blob, store / blob.digest.removeprefix("sha256:"), meter)
        finish(fresh, artifact.index.descriptor())
        put_in_place(fresh, folder)
    except OSError as error:
        raise FleetError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def finish(folder: Path, root: Mapping[str, Any]) -> None:
    """Makes a layout of a folder with blobs: what is asked for by name is the manifest that `root` describes. Raises OSError."""
    (folder / _MARK).write_text(json.dumps(_VERSION))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [root]}
    (folder / _INDEX).write_text(json.dumps(index, sort_keys=True))


def _copy(blob: Blob, target: Path, meter: Meter) -> None:
    seen, done = meter(f"writing {blob.name}", blob.size), 0
    with target.open("wb") as stream:
        for chunk in blob.read():
            done += stream.write(chunk)
            seen(done)


def refuse_occupied(folder: Path) -> None:
    """Raises FleetError where `folder` is anything but absent or empty."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise FleetError(f"{folder}: is there already", hint="name a directory that does not exist yet, or remove it")


def beside(folder: Path) -> Path:
    """A temporary name for what becomes `folder`, on the same file system."""
    return folder.parent / f".{folder.name}.{os.getpid()}.partial"


def put_in_place(fresh: Path, folder: Path) -> None:
    """Raises OSError. A rename over an empty directory is allowed."""
    fresh.rename(folder)


class Layout:
    """Reads such a directory. All methods raise FleetError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def root(self) -> str:
        """The digest of the one artifact in it."""
        file = self._folder / _INDEX
        try:
            index = json.loads(file.read_bytes())
        except OSError as error:
            raise FleetError(f"{file}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise FleetError(f"{file}: is no JSON: {error}") from None
        try:
            manifests = [str(each["digest"]) for each in index["manifests"]]
        except (KeyError, TypeError):
            raise FleetError(f"{file}: must have `manifests`, each with its `digest`") from None
        if len(manifests) == 1:
            return manifests[0]
        raise FleetError(f"{self._folder}: must hold one artifact, got: `{len(manifests)}`")

    def path(self, digest: str) -> Path:
        file = self._folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        if not file.is_file():
            raise FleetError(f"{self._folder}: lacks the blob {digest}", hint="pack the model again")
        return file

    def manifest(self, wanted: str) -> tuple[str, bytes]:
        text = self.path(wanted).read_bytes()
        try:
            return json.loads(text).get("mediaType", ""), text
        except (ValueError, AttributeError, RecursionError) as error:
            raise FleetError(f"{self._folder}: {wanted} is no manifest: {error}") from None

    def blob(self, digest: str) -> Iterator[bytes]:
        try:
            with self.path(digest).open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise FleetError(f"{self._folder}: {digest} cannot be read: {error.strerror}") from None
