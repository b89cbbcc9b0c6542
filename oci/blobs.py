"""Blobs that are never held in memory: bytes, ranges of files, and tar archives of files that are made while they are read.

A layer of a hundred gigabytes is its files plus some headers, so it is not written anywhere before it is pushed: it is read once for its
digest and once for the registry.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.errors import FleetError

CHUNK = 1 << 20
"""Bytes read at a time."""
_BLOCK = 512
Seen = Callable[[int], None]
"""Told how many bytes of something are done."""
Meter = Callable[[str, int], Seen]
"""(what is done, its size in bytes) → who is told of it."""


def no_meter(what: str, size: int) -> Seen:
    """For those who do not watch."""
    del what, size
    return _ignore


def _ignore(done: int) -> None:
    del done


@dataclass(frozen=True)
class Segment:
    """A run of bytes: either those given, or `size` of a file from its beginning."""

    content: bytes | Path
    size: int


@dataclass(frozen=True)
class Blob:
    """What a registry keeps under a digest. `name` is for messages."""

    name: str
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """The bytes from `offset` on, a chunk at a time. Raises FleetError for a file that became shorter, or cannot be read."""
        for segment in self.segments:
            if offset >= segment.size:
                offset -= segment.size
                continue
            if isinstance(segment.content, bytes):
                yield segment.content[offset:]
            else:
                yield from _file(segment.content, offset, segment.size)
            offset = 0

    @cached_property
    def digest(self) -> str:
        """sha256:…, read from the files at the first call unless measured before."""
        return digest_of(self.read())

    def measure(self, seen: Seen) -> None:
        """Computes the digest, and tells how far it is: a large layer takes minutes."""
        self.__dict__["digest"] = digest_of(self.read(), seen)


def _file(path: Path, offset: int, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while offset < size:
                chunk = stream.read(min(CHUNK, size - offset))
                if not chunk:
                    raise FleetError(f"{path}: became shorter while it was read", hint="run it again when nothing writes to it")
                offset += len(chunk)
                yield chunk
    except OSError as error:
        raise FleetError(f"{path}: cannot be read: {error.strerror}") from None


def digest_of(chunks: Iterator[bytes], seen: Seen | None = None) -> str:
    total, done = hashlib.sha256(), 0
    for chunk in chunks:
        total.update(chunk)
        done += len(chunk)
        if seen is not None:
            seen(done)
    return f"sha256:{total.hexdigest()}"


def of_bytes(name: str, content: bytes) -> Blob:
    return Blob(name, (Segment(content, len(content)),))


def of_file(path: Path) -> Blob:
    return Blob(path.name, (Segment(path, path.stat().st_size),))


def tar(name: str, files: Sequence[tuple[str, Path, int]]) -> Blob:
    """An uncompressed archive of (path in it, file, size). The same files give the same bytes on every machine, whoever owns them.

    Uncompressed because weights do not compress, and because gzip's output depends on its version.
    """
    segments: list[Segment] = []
    folders: set[str] = set()
    for target, path, size in sorted(files):
        for parent in reversed(Path(target).parents[:-1]):
            if str(parent) not in folders:
                folders.add(str(parent))
                segments.append(_header(str(parent), 0, tarfile.DIRTYPE, 0o755))
        segments.append(_header(target, size, tarfile.REGTYPE, 0o644))
        segments.append(Segment(path, size))
        segments.append(_zeros(-size % _BLOCK))
    segments.append(_zeros(2 * _BLOCK))
    return Blob(name, tuple(segment for segment in segments if segment.size))


def _zeros(count: int) -> Segment:
    return Segment(bytes(count), count)


def _header(target: str, size: int, kind: bytes, mode: int) -> Segment:
    # Owner 0, time 0: TarInfo's own defaults. PAX writes a size beyond 8 GiB as every reader of layers expects it.
    info = tarfile.TarInfo(target)
    info.size, info.type, info.mode = size, kind, mode
    header = info.tobuf(tarfile.PAX_FORMAT)
    return Segment(header, len(header))
