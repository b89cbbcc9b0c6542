"""Official downloads: a publisher's file, believed only when the publisher's checksum file says so.

A host that does not answer is asked once in a run, not once per tool. What a tool's addresses are is catalogue.py.
"""

import contextlib
import hashlib
import http.client
import platform
import queue
import shutil
import sys
import tarfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from toolchain.acquisition import Acquisition, ToolError, UnavailableError, partial
from toolchain.catalogue import Download

# Until the first byte, resolving the name included.
_ANSWER_S = 3.0
# Between two bytes of a body.
_STALL_S = 30.0
_ATTEMPTS = 2

_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
_NAMES = {"os": sys.platform, "arch": _ARCH, "arch_x64": {"amd64": "x64"}.get(_ARCH, _ARCH)}


def install(source: Download, file: Path, run: Acquisition) -> None:
    """Puts the tool at file, and what belongs beside it beside it. Raises UnavailableError, and ToolError on a wrong checksum."""
    url = source.url.format(**_NAMES)
    digest = _published(source.sums.format(**_NAMES), url.rsplit("/", 1)[-1], run)
    file.parent.mkdir(parents=True, exist_ok=True)
    archive = partial(file.with_name(f"{file.name}.download"))
    try:
        _fetch(url, archive, run)
        with archive.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        if found != digest:
            # Trying another way instead would hide that somebody serves changed files.
            raise ToolError(
                f"{url}: its SHA-256 is not the publisher's, `{digest}`, got: `{found}`",
                hint="the file was changed on its way; run it again, and if this stays, do not use this network",
            )
        if source.members:
            tool, *companions = (member.format(**_NAMES) for member in source.members)
            for member in companions:
                # Not every release has each of them.
                with contextlib.suppress(UnavailableError):
                    _extract(archive, member, file.with_name(member.rsplit("/", 1)[-1]))
            # The tool comes last: it being there means that all of it is.
            _extract(archive, tool, file)
        else:
            archive.chmod(0o755)
            archive.replace(file)
    finally:
        archive.unlink(missing_ok=True)


def _published(url: str, name: str, run: Acquisition) -> str:
    with _open(url, run) as answer:
        sums = answer.read().decode(errors="replace")
    for line in sums.splitlines():
        words = line.split()
        if words and (len(words) == 1 or words[-1].lstrip("*") == name):
            return words[0].lower()
    raise UnavailableError(f"{url} does not name {name}")


def _fetch(url: str, file: Path, run: Acquisition) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            with _open(url, run) as answer, file.open("wb") as output:
                shutil.copyfileobj(answer, output)
                announced = answer.headers.get("Content-Length")
        except (OSError, http.client.HTTPException) as error:
            cut = f"{url} was cut off: {error}"
        else:
            size = file.stat().st_size
            if announced is None or size == int(announced):
                return
            cut = f"{url} was cut off after {size} of {announced} bytes"
        if attempt + 1 == _ATTEMPTS:
            raise UnavailableError(cut)


def _open(url: str, run: Acquisition) -> http.client.HTTPResponse:
    host = urllib.parse.urlsplit(url).netloc
    if host in run.dead_hosts:
        raise UnavailableError(f"{host} does not answer")
    answers: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_STALL_S))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    # In a thread, since resolving a name knows no timeout.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_S)
    except queue.Empty:
        answer = TimeoutError(f"nothing within {_ANSWER_S:.0f} s")
    if isinstance(answer, urllib.error.HTTPError):
        raise UnavailableError(f"{url}: HTTP {answer.code}")
    if isinstance(answer, Exception):
        if host not in run.dead_hosts:
            run.dead_hosts.add(host)
            run.progress.line(f"{host} does not answer; what it offers is built here")
        raise UnavailableError(f"{host} does not answer: {getattr(answer, 'reason', answer)}")
    return answer


def _extract(archive: Path, member: str, file: Path) -> None:
    temporary = partial(file)
    with tarfile.open(archive) as opened:
        try:
            inside = opened.extractfile(member)
        except KeyError:
            inside = None
        if inside is None:
            raise UnavailableError(f"{member} is not in the archive")
        with temporary.open("wb") as output:
            shutil.copyfileobj(inside, output)
    temporary.chmod(0o755)
    temporary.replace(file)
