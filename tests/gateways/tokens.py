"""An issuer of tokens, and a service that knows callers by keys."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://login.example.test/", "llm"
_BYTES = 32
# What the service knows, and what it says to others.
KEY = "key-of-a-caller"
REFUSAL = {"error": {"message": "no such key", "type": "invalid_request_error", "code": "invalid_api_key"}}


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class Issuer:
    """Signs by ES256 (RFC 7518, section 3.4)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        point = self._key.public_key().public_numbers()
        x, y = (_base64(each.to_bytes(_BYTES)) for each in (point.x, point.y))
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": x, "y": y}]})

    def token(self, **claims: Any) -> str:
        """A good one, but for what `claims` say."""
        said = {"iss": ISSUER, "sub": "caller", "aud": AUDIENCE, "exp": int(time.time()) + 600, **claims}
        text = ".".join(_base64(json.dumps(each).encode()) for each in ({"alg": "ES256", "kid": "one"}, said))
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(_BYTES) + s.to_bytes(_BYTES))}"


class Authorizer:
    """Lets in who has its key. `away`: does not answer for longer than anyone waits."""

    def __init__(self) -> None:
        self.away = threading.Event()
        authorizer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if authorizer.away.is_set():
                    self.close_connection = True
                    return
                known = self.headers.get("authorization") == f"Bearer {KEY}"
                text = b"" if known else json.dumps(REFUSAL).encode()
                self.send_response(200 if known else 401)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
