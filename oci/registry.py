"""A registry, spoken to by the OCI distribution specification: blobs and manifests, each checked against its digest.

Streams from and to disk, takes up again what breaks off, and sends a tag last, so that a tag that is there names something whole.
"""

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import httpx

from core.errors import FleetError
from oci import blobs, credentials
from oci.blobs import CHUNK, Blob, Seen
from oci.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Document
from oci.reference import Reference, is_loopback

_TIMEOUT = httpx.Timeout(60, connect=10)
# Of one blob: after how many failures it is given up, and the pause after the n-th in seconds. They are counted from the last time that
# at least so many bytes went through: a long line that breaks now and then is no reason to give up a large blob.
_ATTEMPTS = 5
_PROGRESS = 1 << 20
_PAUSES_S = (0.2, 1, 2, 5)
_ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))
# Of a WWW-Authenticate header.
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_MANIFEST_LIMIT = 4 << 20
"""What registries accept at most, in bytes."""


class _Broken(Exception):
    """An attempt failed in a way that the next one may not."""


class Registry:
    """One repository of a registry. A context manager. All methods raise FleetError."""

    def __init__(self, reference: Reference, pause: float = 1) -> None:
        """pause: factor on the pauses between attempts."""
        self._host = reference.host
        self.repository = reference.repository
        scheme = "http" if is_loopback(self._host) else "https"
        host = "registry-1.docker.io" if self._host == "docker.io" else self._host
        self._base = f"{scheme}://{host}"
        self._pause = pause
        # A proxy of the environment is for the world, not for this machine.
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=scheme == "https", headers={"User-Agent": "inference-fleet"})
        self._credentials: credentials.Credentials | None = None
        self._asked = False
        self._authorization: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    # Reading

    def manifest(self, wanted: str) -> tuple[str, bytes]:
        """(media type, text) of a tag or a digest."""
        answer = self._patient("GET", f"manifests/{wanted}", headers={"Accept": _ACCEPT})
        what = f"{self.repository}{'@' if ':' in wanted else ':'}{wanted}"
        if answer.status_code == 404:
            raise FleetError(f"{self._host} has no {what}", hint="is it pushed, and is the name right?")
        self._expect(answer, 200, f"gives no manifest of {what}")
        if len(answer.content) > _MANIFEST_LIMIT:
            raise FleetError(f"{self._host}: the manifest of {what} must be at most {_MANIFEST_LIMIT} bytes, got: `{len(answer.content)}`")
        told = wanted if ":" in wanted else answer.headers.get("Docker-Content-Digest", "")
        found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        if told.startswith("sha256:") and told != found:
            raise FleetError(f"{self._host}: digest mismatch: the manifest of {what} must be {told}, got: `{found}`")
        return answer.headers.get("Content-Type", "").split(";")[0], answer.content

    def blob(self, digest: str) -> Iterator[bytes]:
        """Its bytes, in order and each once, however often the connection breaks. Their digest is for the caller to check."""
        done, failures, failed_at = 0, 0, 0
        while True:
            try:
                with contextlib.closing(self._open_blob(digest, done)) as answer:
                    skip = done if answer.status_code == 200 else 0
                    for chunk in answer.iter_raw(CHUNK):
                        if skip >= len(chunk):
                            skip -= len(chunk)
                            continue
                        fresh = chunk[skip:]
                        skip = 0
                        done += len(fresh)
                        yield fresh
                return
            except (httpx.HTTPError, _Broken) as error:
                failures = 1 if done - failed_at >= _PROGRESS else failures + 1
                failed_at = done
                self._wait(failures, error, f"{digest} at byte {done}")

    def _open_blob(self, digest: str, offset: int) -> httpx.Response:
        """An answer to read from, of status 200 or 206."""
        url = self._url(f"blobs/{digest}")
        # As it lies there: compressed for the way, its bytes could not be counted.
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        answer = self._open(url, headers)
        if answer.status_code == 401 and self._answer_challenge(answer, "pull"):
            answer.close()
            answer = self._open(url, headers)
        if answer.status_code not in {200, 206}:
            answer.read()
            answer.close()
            if answer.status_code == 404:
                raise FleetError(f"{self._host} has the manifest but not the blob {digest} of {self.repository}", hint="push the artifact again")
            self._expect(answer, 200, f"gives no blob {digest}")
        return answer

    def _open(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        request = self._http.build_request("GET", url, headers={**headers, **self._authorized(url, "pull")})
        return self._http.send(request, stream=True, follow_redirects=True)

    def has_manifest(self, wanted: str) -> bool:
        """Whether there is one under a tag or a digest."""
        answer = self._patient("HEAD", f"manifests/{wanted}", headers={"Accept": _ACCEPT})
        if answer.status_code == 404:
            return False
        self._expect(answer, 200, f"does not say whether it has {self.repository}:{wanted}")
        return True

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`, also from a registry without the referrers API."""
        answer = self._patient("GET", f"referrers/{digest}", headers={"Accept": OCI_INDEX})
        if answer.status_code == 200:
            return answer.json().get("manifests") or []
        # The specification's way before there was an API: an index under a tag made from the digest.
        listing = digest.replace(":", "-")
        return json.loads(self.manifest(listing)[1]).get("manifests") or [] if self.has_manifest(listing) else []

    # Writing

    def push_blob(self, blob: Blob, seen: Seen) -> bool:
        """False where it was there already. Its files are read from where the registry left off, at the latest from their beginning."""
        location, offset, failures = "", 0, 0
        if self._has(blob):
            return False
        while True:
            try:
                if not location:
                    location, offset = self._begin(), 0
                if offset < blob.size:
                    location = self._send(location, blob, offset, seen)
                self._finish(location, blob)
                return True
            except (httpx.HTTPError, _Broken) as error:
                failures += 1
                self._wait(failures, error, f"{blob.name} ({blob.size} bytes)")
                try:
                    if self._has(blob):
                        return True
                    location, held = self._resume(location)
                    failures = 0 if held - offset >= _PROGRESS else failures
                    offset = held
                except (httpx.HTTPError, _Broken):
                    # The pause was too short: the next round begins anew.
                    location, offset = "", 0

    def push_referrer(self, document: Document, subject: str, artifact_type: str) -> None:
        """A manifest whose subject is the digest `subject`, listed as one also where the registry does not do that by itself."""
        if self.push_manifest(document):
            return
        described = document.descriptor(artifactType=artifact_type)
        others = [each for each in self.referrers(subject) if each["digest"] != document.blob.digest]
        listing = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*others, described]}
        text = blobs.of_bytes("list of referrers", json.dumps(listing, sort_keys=True).encode())
        self.push_manifest(Document(OCI_INDEX, text, {}), subject.replace(":", "-"))

    def push_manifest(self, document: Document, name: str = "") -> bool:
        """Under its digest, or under the tag `name`. Returns whether the registry says that it lists it as its subject's referrer."""
        answer = self._patient(
            "PUT", f"manifests/{name or document.blob.digest}", content=b"".join(document.blob.read()), headers={"Content-Type": document.media_type}
        )
        self._expect(answer, 201, f"does not take the {document.blob.name}")
        told = answer.headers.get("Docker-Content-Digest", document.blob.digest)
        if told != document.blob.digest:
            raise FleetError(f"{self._host}: digest mismatch: the {document.blob.name} must be {document.blob.digest}, got: `{told}`")
        return "OCI-Subject" in answer.headers

    def _has(self, blob: Blob) -> bool:
        answer = self._patient("HEAD", f"blobs/{blob.digest}")
        if answer.status_code == 404:
            return False
        self._expect(answer, 200, f"does not say whether it has {blob.digest}")
        return True

    def _begin(self) -> str:
        answer = self._call("POST", self._url("blobs/uploads/"), "pull,push", headers={"Content-Length": "0"})
        self._expect(answer, 202, "begins no upload")
        return self._location(answer)

    def _send(self, location: str, blob: Blob, offset: int, seen: Seen) -> str:
        """One request for all that is left: every registry takes that. Returns where to go on."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size - offset)}
        if offset:
            headers["Content-Range"] = f"{offset}-{blob.size - 1}"

        def body() -> Iterator[bytes]:
            done = offset
            for chunk in blob.read(offset):
                yield chunk
                done += len(chunk)
                seen(done)

        answer = self._http.request("PATCH", location, content=body(), headers={**headers, **self._authorized(location, "pull,push")})
        if answer.status_code in {401, 416}:
            # The token is too old, or the registry counts otherwise: either is mended by asking where the upload stands.
            self._authorization.pop("pull,push", None)
            raise _Broken(self._told(answer))
        self._expect(answer, 202, f"does not take {blob.name}")
        return self._location(answer)

    def _resume(self, location: str) -> tuple[str, int]:
        """Where the upload goes on and from which byte; nothing where it must begin again."""
        if location:
            answer = self._call("GET", location, "pull,push")
            held = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", ""))
            if answer.status_code == 204 and held:
                # `0-0` is what registries say of one byte and of none.
                last = int(held[1])
                return self._location(answer, location), last + 1 if last else 0
        return "", 0

    def _finish(self, location: str, blob: Blob) -> None:
        parts = urlsplit(location)
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", blob.digest)])
        answer = self._call("PUT", urlunsplit(parts._replace(query=query)), "pull,push", headers={"Content-Length": "0"})
        if answer.status_code == 400 and "DIGEST_INVALID" in answer.text:
            # Bytes of two attempts may have been mixed; that does not happen twice, a file that changes is read anew.
            raise _Broken(f"digest mismatch: what arrived of {blob.name} is not {blob.digest}; did the file change?")
        self._expect(answer, 201, f"does not keep {blob.name}")

    # Requests

    def _url(self, path: str) -> str:
        return f"{self._base}/v2/{self.repository}/{path}"

    def _location(self, answer: httpx.Response, default: str = "") -> str:
        found = answer.headers.get("Location", default)
        if not found:
            raise FleetError(f"{self._host} does not say where an upload goes on")
        return urljoin(str(answer.request.url), found)

    def _patient(self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """A request of few bytes, asked again when the connection breaks."""
        failures = 0
        while True:
            try:
                answer = self._call(method, self._url(path), "pull,push" if method == "PUT" else "pull", content, headers)
                if answer.status_code >= 500 or answer.status_code == 429:
                    raise _Broken(self._told(answer))
                return answer
            except (httpx.HTTPError, _Broken) as error:
                failures += 1
                self._wait(failures, error, f"{method} {path}")

    def _call(self, method: str, url: str, actions: str, content: bytes = b"", headers: Mapping[str, str] | None = None) -> httpx.Response:
        def ask() -> httpx.Response:
            sent = {**(headers or {}), **self._authorized(url, actions)}
            return self._http.request(method, url, content=content or None, headers=sent, follow_redirects=method in {"GET", "HEAD"})

        answer = ask()
        return ask() if answer.status_code == 401 and self._answer_challenge(answer, actions) else answer

    def _expect(self, answer: httpx.Response, status: int, what: str) -> None:
        """Raises _Broken for what may pass, FleetError for what will not."""
        if answer.status_code == status:
            return
        told = self._told(answer)
        if answer.status_code in {401, 403}:
            who = "these credentials" if self._credentials else "a client without credentials"
            raise FleetError(f"{self._host} refuses {who} for {self.repository}: {told}", hint=f"docker login {self._host}, or set REGISTRY_AUTH_FILE")
        if answer.status_code >= 500 or answer.status_code == 429:
            raise _Broken(told)
        raise FleetError(f"{self._host} {what}: {told}")

    @staticmethod
    def _told(answer: httpx.Response) -> str:
        """Status and the registry's own words."""
        words = ""
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, httpx.ResponseNotRead):
            words = "; ".join(f"{each.get('code', '')} {each.get('message', '')}".strip() for each in answer.json()["errors"])
        return f"HTTP {answer.status_code}" + (f" {words[:300]}" if words else "")

    def _wait(self, failures: int, error: Exception, what: str) -> None:
        """Until the next attempt. Raises FleetError when there is none."""
        if failures >= _ATTEMPTS:
            told = str(error) or type(error).__name__
            if isinstance(error, httpx.ConnectError):
                raise FleetError(f"{self._host} cannot be reached: {told}", hint="is the registry running, and is the name right?") from None
            raise FleetError(f"{self._host} broke off {failures} times at {what}: {told}", hint="run it again; what arrived whole is not sent twice") from None
        time.sleep(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1] * self._pause)

    # Who we are

    def _authorized(self, url: str, actions: str) -> dict[str, str]:
        """The header for a request. Not for another host: an upload's location may be anywhere."""
        if urlsplit(url).netloc != urlsplit(self._base).netloc or urlsplit(url).scheme != urlsplit(self._base).scheme:
            return {}
        found = self._authorization.get(actions)
        return {"Authorization": found} if found else {}

    def _answer_challenge(self, answer: httpx.Response, actions: str) -> bool:
        """Whether it is worth asking again, with what the registry wants to see."""
        if not self._asked:
            self._credentials, self._asked = credentials.find(self._host), True
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self._credentials and self._credentials.user:
            self._authorization[actions] = _basic(self._credentials)
            return True
        if kind.lower() == "bearer":
            self._authorization[actions] = "Bearer " + self._token(dict(_PARAMETER.findall(rest)), actions)
            return True
        return False

    def _token(self, challenge: Mapping[str, str], actions: str) -> str:
        realm = challenge.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.netloc)):
            raise FleetError(f"{self._host} sends us for a token to `{realm}`, which is not https")
        wanted = {"service": challenge.get("service", ""), "scope": f"repository:{self.repository}:{actions}"}
        found = self._credentials
        if found and found.identity_token:
            form = {**wanted, "grant_type": "refresh_token", "refresh_token": found.identity_token, "client_id": "inference-fleet"}
            answer = self._http.post(realm, data=form)
        else:
            answer = self._http.get(realm, params=wanted, headers={"Authorization": _basic(found)} if found else {})
        self._expect(answer, 200, "gets no token for us")
        try:
            body = answer.json()
            return body.get("token") or body["access_token"]
        except (ValueError, KeyError, AttributeError):
            raise FleetError(f"{self._host}: `{realm}` answers without a token") from None


def _basic(found: credentials.Credentials) -> str:
    return "Basic " + base64.b64encode(f"{found.user}:{found.password}".encode()).decode()
