"""An image's layers as a root file system in a folder, as a container runtime makes it. Needs root, tar and the layers' decompressor."""

import os
import shutil
import subprocess
from pathlib import Path

from core.errors import FleetError
from oci.layout import Layout
from runtime_image.image import push

# By the end of a layer's media type.
_PROGRAMS = {"gzip": "gzip", "zstd": "zstd"}
_MARK, _OPAQUE = ".wh.", ".wh..wh..opq"


def unpack(folder: Path, root: Path) -> None:
    """Writes the image in the layout `folder` to `root`. Raises FleetError."""
    if os.geteuid() != 0:
        raise FleetError("an image is unpacked by root alone: its files have owners", hint="run it with sudo, or in a container")
    place = Layout(folder)
    tree = push.read(place, place.root())
    root.mkdir(parents=True)
    for described in tree.blobs.values():
        if ".tar" in described.media_type:
            _apply(place.path(described.digest), described.media_type, root)


def _apply(archive: Path, media_type: str, root: Path) -> None:
    program = _PROGRAMS.get(media_type.rpartition("+")[2] if "+" in media_type else media_type.rpartition(".")[2])
    if program and shutil.which(program) is None:
        raise FleetError(f"{program} is missing, by which the layers are compressed", hint=f"apt-get install {program}")
    decompress = [f"--use-compress-program={program}"] if program else []
    command = ["tar", "--extract", "--verbose", "--numeric-owner", "--same-permissions", *decompress, "--file", str(archive), "--directory", str(root)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="surrogateescape", check=False)
    if done.returncode:
        raise FleetError(f"tar failed: {done.stderr.strip().splitlines()[-1:]}", hint="is the disk full?")
    names = [Path(line) for line in done.stdout.splitlines()]
    for mark in (name for name in names if name.name.startswith(_MARK)):
        _remove_below(root, mark, names)


def _remove_below(root: Path, mark: Path, names: list[Path]) -> None:
    """What a layer says that layers below it had and it has not."""
    (root / mark).unlink()
    if mark.name != _OPAQUE:
        _remove(root / mark.parent / mark.name.removeprefix(_MARK))
        return
    own = {each.relative_to(mark.parent).parts[0] for each in names if mark.parent in each.parents}
    for each in (root / mark.parent).iterdir():
        if each.name not in own:
            _remove(each)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
