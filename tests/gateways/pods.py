"""A pod of a model as a regional gateway sees it: an HTTP server that answers as the engine watchdog does."""

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "f00dcafe"


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    length: int


@dataclass
class Pod:
    """`full`: refuses with 429. `stalled`: gives requests back and fails the active health check. Both can be changed at any time."""

    name: str
    full: bool = False
    stalled: bool = False
    seconds: float = 0.0
    seen: list[Seen] = field(default_factory=list[Seen])

    def __post_init__(self) -> None:
        pod = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Otherwise an answer waits for the acknowledgement of its headers.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if self.path == "/fleet/ready":
                    self._answer(503 if pod.stalled else 200, {"status": "stalled" if pod.stalled else "ready"})
                else:
                    self._asked(0)

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                left = length
                while left:
                    left -= len(self.rfile.read(min(left, 1 << 20)))
                self._asked(length)

            def _asked(self, length: int) -> None:
                pod.seen.append(Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, length))
                if pod.stalled:
                    self._answer(503, _error("engine_stalled", 503), {"x-fleet-reason": "engine-stalled"})
                elif pod.full:
                    self._answer(429, _error("overloaded", 429), {"retry-after": "1"})
                else:
                    time.sleep(pod.seconds)
                    self._answer(200, {"pod": pod.name, "length": length})

            def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", "x-fleet-revision": REVISION, **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # As many callers as there are may come at one moment.
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A gateway that is killed breaks its connections."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def well(self) -> None:
        """Back to a pod that answers."""
        self.full, self.stalled, self.seconds = False, False, 0.0
        self.seen.clear()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _error(kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": f"{kind} on purpose", "type": kind, "code": code}}
