"""What the API server asks a kubelet: container logs, for `kubectl logs`. HTTPS on loopback, client certificate required.

exec, attach and port-forward answer 501: they need a container to enter, and a local pod is processes of the host.
"""

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from local.node_agent import logs
from local.node_agent.containers import Container
from local.node_agent.pods import Pod

_NOT_HERE = (
    "a local pod is processes of this machine, there is no container to enter: run the command in a shell, or send "
    "requests to the pod's loopback address (`kubectl get workloadentry` tells it)\n"
)
# A client that stops reading must not hold its thread for ever.
_SEND_TIMEOUT_S = 60.0
Find = Callable[[str, str], "Pod | None"]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    find: Find
    server_version = "node-agent"
    timeout = _SEND_TIMEOUT_S

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["healthz"]:
                self._answer(200, "ok")
            case ["containerLogs", namespace, pod, container]:
                self._logs(namespace, pod, container, {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()})
            case ["exec" | "attach" | "portForward" | "run", *_]:
                self._answer(501, _NOT_HERE)
            case _:
                self._answer(404, "404 page not found\n")

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the names of http.server
        """Nothing: the agent's log is about pods."""

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _logs(self, namespace: str, name: str, container_name: str, query: dict[str, str]) -> None:
        pod = self.find(namespace, name)
        container = pod.log_of(container_name) if pod else None
        if pod is None or container is None:
            self._answer(404, f'container "{container_name}" of pod "{namespace}/{name}" does not run on this node\n')
            return
        restart = container.record.restarts - (1 if query.get("previous") == "true" else 0)
        path = logs.file(pod.folder, container_name, restart)
        if not path.exists():
            before = "previous terminated " if query.get("previous") == "true" else ""
            self._answer(400, f'{before}container "{container_name}" in pod "{name}" has no log\n')
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in _pieces(path, pod, container, query):
                if piece:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                elif self._left():
                    self.close_connection = True
                    return
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # The reader went away.
            self.close_connection = True

    def _left(self) -> bool:
        """Whether a reader that follows has closed its end."""
        self.connection.settimeout(0.0)
        try:
            return self.connection.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.connection.settimeout(_SEND_TIMEOUT_S)


def _pieces(path: Path, pod: Pod, container: Container, query: dict[str, str]) -> Iterator[bytes]:
    end = path.stat().st_size
    timestamps = query.get("timestamps") == "true"
    tail, limit = query.get("tailLines"), query.get("limitBytes")
    yield from logs.read(path, tail=int(tail) if tail else None, since=_since(query), timestamps=timestamps, limit=int(limit) if limit else None, end=end)
    if query.get("follow") == "true":
        yield from logs.follow(path, end, lambda: pod.gone.is_set() or container.log_path != path or not container.running, timestamps=timestamps)


def _since(query: dict[str, str]) -> float | None:
    if query.get("sinceSeconds"):
        return time.time() - float(query["sinceSeconds"])
    if query.get("sinceTime"):
        return datetime.fromisoformat(query["sinceTime"]).timestamp()
    return None


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[_Handler], context: ssl.SSLContext) -> None:
        super().__init__(address, handler)
        self._context = context

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = self.socket.accept()
        connection.settimeout(_SEND_TIMEOUT_S)
        # The handshake waits for the thread of the connection: one silent client must not block the others.
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a caller without a good certificate is its own log."""


def serve(port: int, cert: Path, key: Path, client_ca: Path, find: Find) -> None:
    """Serves in the background. Raises OSError where the port is taken or a certificate cannot be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(client_ca)
    # Only the cluster's own authority signs; the API server presents its kubelet client certificate.
    context.verify_mode = ssl.CERT_REQUIRED
    handler = type("Handler", (_Handler,), {"find": staticmethod(find)})
    server = _Server(("127.0.0.1", port), handler, context)
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
