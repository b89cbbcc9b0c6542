"""What the client does when a connection breaks before the answer: what may run twice is sent again, and nothing else."""

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from kube.client import Kube, Unreachable
from kube.kubeconfig import Connection


class Breaking:
    """An HTTP server that carries out every request, and answers only from the second on."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                self.received.append(head.split(b" ", 1)[0].decode())
                if len(self.received) > 1:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Breaking]:
    made = Breaking()
    yield made
    made.close()


@pytest.fixture
def api(server: Breaking) -> Iterator[Kube]:
    with Kube(Connection(server.url, None, {})) as made:
        yield made


APPLY, MERGE, JSON_PATCH = "application/apply-patch+yaml", "application/merge-patch+json", "application/json-patch+json"


@pytest.mark.parametrize(
    ("method", "headers", "params"),
    [
        ("GET", {}, {}),
        ("PUT", {}, {}),
        ("DELETE", {}, {}),
        ("PATCH", {"Content-Type": APPLY}, {}),
        ("PATCH", {"Content-Type": MERGE}, {}),
        ("POST", {}, {"dryRun": "All"}),
    ],
    ids=["get", "put", "delete", "apply", "merge patch", "dry run of a create"],
)
def test_what_may_run_twice_is_sent_again(server: Breaking, api: Kube, method: str, headers: dict[str, str], params: dict[str, str]) -> None:
    assert api.request(method, "/api", headers=headers, params=params).status_code == 200
    assert server.received == [method, method]


@pytest.mark.parametrize(("method", "headers"), [("POST", {}), ("PATCH", {"Content-Type": JSON_PATCH})], ids=["create", "json patch"])
def test_what_may_have_been_carried_out_is_not_sent_again(server: Breaking, api: Kube, method: str, headers: dict[str, str]) -> None:
    with pytest.raises(Unreachable, match="cut the connection"):
        api.request(method, "/api", headers=headers)
    assert server.received == [method]


@pytest.mark.parametrize("error", [httpx.ReadError, httpx.WriteError])
def test_a_connection_that_is_reset_is_tried_once_more(error: type[httpx.TransportError], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.method)
        if len(sent) < 2 or request.url.path == "/gone":
            raise error("", request=request)
        return httpx.Response(200, json={})

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=httpx.MockTransport(answer), base_url=options["base_url"]))
    with Kube(Connection("http://server", None, {})) as kube:
        kube.request("GET", "/api")
        assert sent == ["GET", "GET"]
        with pytest.raises(Unreachable, match=f"cut the connection: {error.__name__}"):
            kube.request("GET", "/gone")
    assert len(sent) == 4
