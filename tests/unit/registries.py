"""A registry of the test's own, which breaks off, refuses and lies where a test wants it. The real one: tests/local/test_artifact_registry.py."""

import base64
import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD, TOKEN = "robot", "s3cret-password", "t0ken-of-the-realm"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Fake:
    """What it holds, and how it shall behave."""

    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])
    uploads: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    seen: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    patched: int = 0
    """Bytes of all uploads that arrived."""
    cut_patches: list[int] = field(default_factory=list[int])
    """The next PATCH is cut after so many bytes; what arrived is kept."""
    cut_gets: list[int] = field(default_factory=list[int])
    forgets_uploads: bool = False
    asks: str = ""
    """basic or bearer."""
    realm: str = ""
    status: dict[str, int] = field(default_factory=dict[str, int])
    """Answers to every request of a method."""
    host: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args

    def _say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            # Untold, the next request may go into a connection that is just being closed.
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self._say(status, body=json.dumps({"errors": [{"code": code, "message": "told by the registry"}]}).encode())

    def _admitted(self) -> bool:
        wanted = {"basic": BASIC, "bearer": f"Bearer {TOKEN}", "": None}[self.fake.asks]
        if wanted is None or self.headers.get("Authorization") == wanted:
            return True
        realm = self.fake.realm or f"http://{self.fake.host}/token"
        challenge = {"basic": 'Basic realm="x"', "bearer": f'Bearer realm="{realm}",service="here",scope="repository:models/m:pull"'}
        # The body is not read: a client that sends one is told at the next request.
        self.close_connection = True
        self._say(401, {"WWW-Authenticate": challenge[self.fake.asks]})
        return False

    def _handle(self) -> None:
        fake, parts = self.fake, urlsplit(self.path)
        fake.seen.append((self.command, parts.path))
        if parts.path == "/token":
            if self.headers.get("Authorization") == BASIC:
                self._say(200, body=json.dumps({"token": TOKEN}).encode())
            else:
                self._error(401, "UNAUTHORIZED")
        elif self._admitted():
            if self.command in fake.status:
                self.close_connection = True
                self._error(fake.status[self.command], "DENIED" if fake.status[self.command] == 403 else "UNKNOWN")
            elif "/blobs/uploads/" in parts.path:
                self._upload(parts.path.rsplit("/", 1)[1], parse_qs(parts.query))
            elif "/referrers/" in parts.path:
                self._error(404, "UNSUPPORTED")
            elif "/blobs/" in parts.path:
                self._blob(parts.path.rsplit("/", 1)[1])
            else:
                self._manifest(parts.path.rsplit("/", 1)[1])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _handle  # noqa: N815

    def _upload(self, name: str, query: dict[str, list[str]]) -> None:
        fake = self.fake
        if self.command == "POST":
            name = str(len(fake.uploads) + 1)
            fake.uploads[name] = bytearray()
            self._say(202, {"Location": f"/v2/models/m/blobs/uploads/{name}"})
        elif name not in fake.uploads:
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "PATCH":
            self._patch(name)
        elif self.command == "PUT":
            content = bytes(fake.uploads.pop(name))
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != query["digest"][0]:
                self._error(400, "DIGEST_INVALID")
                return
            fake.blobs[query["digest"][0]] = content
            self._say(201)
        else:
            self._say(204, {"Range": f"0-{max(len(fake.uploads[name]) - 1, 0)}", "Location": self.path})

    def _patch(self, name: str) -> None:
        fake, length = self.fake, int(self.headers["Content-Length"])
        held = fake.uploads[name]
        told = self.headers.get("Content-Range")
        if held and told != f"{len(held)}-{len(held) + length - 1}":
            self.close_connection = True
            self._error(416, "RANGE_INVALID")
            return
        if fake.cut_patches:
            count = fake.cut_patches.pop(0)
            held += self.rfile.read(count)
            fake.patched += count
            if fake.forgets_uploads:
                del fake.uploads[name]
            self.close_connection = True
            self.connection.close()
            return
        held += self.rfile.read(length)
        fake.patched += length
        self._say(202, {"Location": f"/v2/models/m/blobs/uploads/{name}"})

    def _blob(self, digest: str) -> None:
        content = self.fake.blobs.get(digest)
        if content is None:
            self._error(404, "BLOB_UNKNOWN")
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        part = content[start:]
        if self.command == "GET" and self.fake.cut_gets:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: self.fake.cut_gets.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self._say(206 if start else 200, body=part)

    def _manifest(self, name: str) -> None:
        if self.command == "PUT":
            content = self.rfile.read(int(self.headers["Content-Length"]))
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            for key in {name, digest}:
                self.fake.manifests[key] = (self.headers["Content-Type"], content)
            self._say(201, {"Docker-Content-Digest": digest})
        elif name in self.fake.manifests:
            media_type, content = self.fake.manifests[name]
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self._say(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, content)
        else:
            self._error(404, "MANIFEST_UNKNOWN")


@contextmanager
def serving(fake: Fake) -> Generator[str]:
    """`oci://` address of the repository models/m on it."""
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"oci://{fake.host}/models/m"
    finally:
        server.shutdown()
        server.server_close()
