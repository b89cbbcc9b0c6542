"""Official downloads, from a publisher on loopback."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from toolchain import download
from toolchain.acquisition import Acquisition, ToolError, UnavailableError
from toolchain.catalogue import Download


@dataclass
class Publisher:
    """Serves files. short: names whose body ends before the length that was announced."""

    base: str
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    short: set[str] = field(default_factory=set[str])
    asked: list[str] = field(default_factory=list[str])


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            offered.asked.append(name)
            body = offered.files.get(name)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if name in offered.short else body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Quiet."""

        def log_error(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offered = Publisher(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield offered
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run() -> Acquisition:
    return Acquisition(say=lambda _: None, offline=False)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_with_the_published_checksum_becomes_the_tool(publisher: Publisher, run: Acquisition, tmp_path: Path) -> None:
    publisher.files = {"tool": b"binary", "tool.sha256": digest(b"binary").encode()}
    download.install(Download(f"{publisher.base}/tool", f"{publisher.base}/tool.sha256"), tmp_path / "tool", run)
    assert (tmp_path / "tool").read_bytes() == b"binary"
    assert (tmp_path / "tool").stat().st_mode & 0o111, "a tool that cannot be executed is of no use"
    assert [file.name for file in tmp_path.iterdir()] == ["tool"]


def test_a_file_with_another_checksum_is_refused_and_not_kept(publisher: Publisher, run: Acquisition, tmp_path: Path) -> None:
    publisher.files = {"tool": b"changed", "tool.sha256": digest(b"binary").encode()}
    with pytest.raises(ToolError, match="SHA-256 is not the publisher's") as refused:
        download.install(Download(f"{publisher.base}/tool", f"{publisher.base}/tool.sha256"), tmp_path / "tool", run)
    assert refused.value.hint
    assert not list(tmp_path.iterdir())


def test_the_tool_and_those_companions_that_there_are_come_out_of_an_archive(publisher: Publisher, run: Acquisition, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name in ("d/tool", "d/companion", "d/other"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    packed = data.getvalue()
    publisher.files = {"a.tar.gz": packed, "SUMS": f"{digest(b'')}  b.tar.gz\n{digest(packed)}  a.tar.gz\n".encode()}
    source = Download(f"{publisher.base}/a.tar.gz", f"{publisher.base}/SUMS", ("d/tool", "d/companion", "d/absent"))
    download.install(source, tmp_path / "tool", run)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"tool": "d/tool", "companion": "d/companion"}


def test_a_download_cut_off_is_tried_once_more_and_then_named(publisher: Publisher, run: Acquisition, tmp_path: Path) -> None:
    publisher.files = {"tool": b"binary" * 100, "tool.sha256": digest(b"binary" * 100).encode()}
    publisher.short = {"tool"}
    with pytest.raises(UnavailableError, match="cut off"):
        download.install(Download(f"{publisher.base}/tool", f"{publisher.base}/tool.sha256"), tmp_path / "tool", run)
    assert publisher.asked.count("tool") == 2
    assert not list(tmp_path.iterdir())


def test_a_missing_file_does_not_make_its_host_dead(publisher: Publisher, run: Acquisition, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="HTTP 404"):
        download.install(Download(f"{publisher.base}/none", f"{publisher.base}/none.sha256"), tmp_path / "tool", run)
    assert not run.dead_hosts


def test_a_host_that_does_not_answer_is_asked_once_in_a_run(monkeypatch: pytest.MonkeyPatch, run: Acquisition, tmp_path: Path) -> None:
    asked: list[str] = []

    def never(url: str, timeout: float) -> None:
        del timeout
        asked.append(url)
        released.wait()

    released = threading.Event()
    monkeypatch.setattr(download, "_ANSWER_S", 0.1)
    monkeypatch.setattr(download.urllib.request, "urlopen", never)
    try:
        for name in ("one", "two"):
            with pytest.raises(UnavailableError, match="does not answer"):
                download.install(Download(f"http://silent.test/{name}", f"http://silent.test/{name}.sha256"), tmp_path / name, run)
    finally:
        released.set()
    assert len(asked) == 1
    assert run.dead_hosts == {"silent.test"}
