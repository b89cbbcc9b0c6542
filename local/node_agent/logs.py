"""Log files of containers: written by the containers themselves, capped and read by the agent.

A container writes straight into its file, so that it goes on writing when the agent dies. The price: the file has no
time per line. The agent notes how long the file was at which moment, and answers `--timestamps` and `--since` from
that, exact to its look every quarter of a second.
"""

import bisect
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

# One file and one older generation of it; a kubelet's default is 10 Mi too.
LIMIT_BYTES = 10 * 1024 * 1024
# Older notes are thinned out beyond this many: a chatty server must not grow the agent.
_NOTES = 20_000
_CHUNK = 64 * 1024
_FOLLOW_S = 0.25


def file(folder: Path, container: str, restart: int) -> Path:
    return folder / container / f"{restart}.log"


def open_for(path: Path) -> int:
    """Descriptor for a container to append to. Of older runs only the last one stays, for `kubectl logs --previous`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = int(path.stem)
    for old in path.parent.iterdir():
        run = old.name.split(".", 1)[0]
        if run.isdigit() and int(run) < number - 1:
            old.unlink(missing_ok=True)
    # O_APPEND: the file is cut while the container writes, and must go on at its new end.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


class Watcher:
    """Notes when a log grew, and cuts it when it is too long. One per running container."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0

    def look(self) -> None:
        try:
            size = self._path.stat().st_size
        except OSError:
            return
        if size > LIMIT_BYTES:
            self._cut()
        elif size > self._size:
            with _times(self._path).open("a") as notes:
                notes.write(f"{self._size} {time.time():.3f}\n")
            self._size = size

    def _cut(self) -> None:
        # What is written between the copy and the cut is lost; the alternative, a process per container that copies
        # its output, would cost more memory than the agent has.
        older = self._path.with_suffix(".log.1")
        shutil.copyfile(self._path, older)
        os.truncate(self._path, 0)
        times = _times(self._path)
        if times.exists():
            times.replace(_times(older))
        self._size = 0


def _times(path: Path) -> Path:
    return path.with_name(f"{path.name}.times")


def _notes(path: Path) -> tuple[list[int], list[float]]:
    offsets: list[int] = []
    times: list[float] = []
    try:
        lines = _times(path).read_text().splitlines()
    except OSError:
        lines = []
    for line in lines[-_NOTES:]:
        offset, _, moment = line.partition(" ")
        try:
            offsets.append(int(offset))
            times.append(float(moment))
        except ValueError:
            continue
    return offsets, times


def _lines(path: Path, end: int | None) -> Iterator[tuple[float, bytes]]:
    """Lines up to offset `end`, with the time when the agent first saw them."""
    offsets, times = _notes(path)
    begun = path.stat().st_mtime
    position = 0
    with path.open("rb") as stream:
        for line in stream:
            if end is not None and position >= end:
                return
            index = bisect.bisect_right(offsets, position) - 1
            yield times[index] if index >= 0 else begun, line
            position += len(line)


def stamp(moment: float) -> bytes:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()


def read(
    path: Path, *, tail: int | None = None, since: float | None = None, timestamps: bool = False, limit: int | None = None, end: int | None = None
) -> Iterator[bytes]:
    """The log in pieces. `since` is an epoch time; `limit` cuts after that many bytes; `end` is where `follow` takes over."""
    files = [(older, None) for older in (path.with_suffix(".log.1"),) if older.exists()] + [(path, end)]
    if not path.exists():
        return
    if tail is None and since is None and not timestamps:
        pieces = _raw(files)
    else:
        chosen = [(moment, line) for each, stop in files for moment, line in _lines(each, stop) if since is None or moment >= since]
        if tail is not None:
            chosen = chosen[max(0, len(chosen) - tail) :]
        pieces = (stamp(moment) + line if timestamps else line for moment, line in chosen)
    left = limit
    for piece in pieces:
        if left is not None:
            if left <= 0:
                return
            piece = piece[:left]  # noqa: PLW2901 - the piece that crosses the limit is cut
            left -= len(piece)
        yield piece


def _raw(files: list[tuple[Path, int | None]]) -> Iterator[bytes]:
    for each, end in files:
        left = each.stat().st_size if end is None else end
        with each.open("rb") as stream:
            while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk


def follow(path: Path, position: int, ended: Callable[[], bool], *, timestamps: bool = False) -> Iterator[bytes]:
    """What is appended from `position` on, until `ended`. An empty piece means nothing came."""
    while True:
        over = ended()
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with path.open("rb") as stream:
                stream.seek(position)
                data = stream.read(size - position)
            if timestamps and not over:
                # A half line gets its time when it is whole.
                data = data[: data.rfind(b"\n") + 1]
            position += len(data)
            now = stamp(time.time())
            yield b"".join(now + line for line in data.splitlines(keepends=True)) if timestamps else data
            continue
        if over:
            return
        yield b""
        time.sleep(_FOLLOW_S)
