"""A base image made from distribution packages, for machines that reach package mirrors and no image registry."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from core.errors import FleetError
from core.progress import Progress
from oci import blobs, layout
from oci.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

NAME = "debian"
"""What a person asks for, instead of an image's name."""
SUITE = "bookworm"
"""The release that the base of the CPU variant has: same compiler, same Python."""
REFERENCE = f"localhost/inference-fleet/{NAME}:{SUITE}"
"""Its name on this machine."""
_MIRROR, _SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
SOURCES = (
    f"deb {_MIRROR} {SUITE} main",
    f"deb {_MIRROR} {SUITE}-updates main",
    f"deb {_SECURITY} {SUITE}-security main",
)
# What a container never reads; Debian's own slim images leave out the same.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_KEPT = ("/usr/share/doc/*/copyright",)


def command(archive: Path) -> list[str]:
    """Of mmdebstrap."""
    left_out = [f"--dpkgopt=path-exclude={each}" for each in _LEFT_OUT]
    kept = [f"--dpkgopt=path-include={each}" for each in _KEPT]
    return ["mmdebstrap", "--quiet", "--variant=minbase", *left_out, *kept, SUITE, str(archive), *SOURCES]


def make(folder: Path, log: Path, progress: Progress) -> Path:
    """The base as an OCI layout in `folder`, made once; what is there is kept. Returns it. Raises FleetError."""
    if folder.exists():
        return folder
    if shutil.which("mmdebstrap") is None:
        raise FleetError("mmdebstrap is missing, by which a base is made from Debian's packages", hint="apt-get install mmdebstrap")
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        archive = fresh / "base.tar"
        with progress.stage(f"base from Debian {SUITE}'s packages"), log.open("ab") as stream:
            done = subprocess.run(command(archive), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            told = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise FleetError(f"mmdebstrap failed: {told[0] if told else 'no message'}", hint=f"are Debian's mirrors reached? All it said: {log}")
        _as_layout(fresh, archive)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _as_layout(folder: Path, archive: Path) -> None:
    """An image of one layer, which is the archive."""
    store = folder / "blobs" / "sha256"
    store.mkdir(parents=True)
    layer = blobs.of_file(archive)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [{"created_by": f"mmdebstrap {SUITE}"}],
    }
    described = {"mediaType": OCI_LAYER, "digest": layer.digest, "size": layer.size}
    archive.rename(store / layer.digest.removeprefix("sha256:"))
    kept = _keep(store, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": kept[0], "size": kept[1]},
        "layers": [described],
    }
    digest, size = _keep(store, manifest)
    layout.finish(folder, {"mediaType": OCI_MANIFEST, "digest": digest, "size": size})


def _keep(store: Path, content: object) -> tuple[str, int]:
    text = json.dumps(content, sort_keys=True).encode()
    number = hashlib.sha256(text).hexdigest()
    (store / number).write_bytes(text)
    return f"sha256:{number}", len(text)
