"""What the registry client does when a registry breaks off, refuses or lies, and to whom it tells a password."""

import base64
import json
import os
from pathlib import Path

import pytest

from core.errors import FleetError
from oci import credentials, reference, transfer
from oci.image import Artifact
from oci.registry import Registry
from tests.unit.models import names_in, write_model
from tests.unit.registries import BASIC, PASSWORD, TOKEN, USER, Fake

_NO_PAUSE = 0.0


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return transfer.pack(write_model(tmp_path / "m"))[0]


def push(artifact: Artifact, address: str) -> int:
    return transfer.push(artifact, reference.parse(f"{address}:v1"), pause=_NO_PAUSE)


def log_in(tmp_path: Path, fake: Fake) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {fake.host: {"auth": auth}}}))


def largest(artifact: Artifact) -> int:
    return max(blob.size for blob in artifact.blobs)


def test_what_is_there_is_not_sent_again(fake: Fake, address: str, artifact: Artifact) -> None:
    assert push(artifact, address) == sum(blob.size for blob in artifact.blobs)
    assert push(artifact, address) == 0


def test_an_upload_that_breaks_off_goes_on_where_the_registry_left_off(fake: Fake, address: str, artifact: Artifact) -> None:
    fake.cut_patches = [1000]
    push(artifact, address)
    assert fake.patched == sum(blob.size for blob in artifact.blobs)
    assert all(fake.blobs[blob.digest] == b"".join(blob.read()) for blob in artifact.blobs)


def test_an_upload_that_the_registry_has_forgotten_begins_again(fake: Fake, address: str, artifact: Artifact) -> None:
    fake.cut_patches, fake.forgets_uploads = [1000], True
    push(artifact, address)
    assert fake.patched == sum(blob.size for blob in artifact.blobs) + 1000


def test_a_push_that_breaks_off_for_good_says_so_and_leaves_no_tag(fake: Fake, address: str, artifact: Artifact) -> None:
    fake.cut_patches = [100] * 100
    with pytest.raises(FleetError, match=r"broke off 5 times at .* bytes") as raised:
        push(artifact, address)
    assert fake.manifests == {}
    assert raised.value.hint == "run it again; what arrived whole is not sent twice"


def test_the_tag_is_the_last_thing_that_is_sent(fake: Fake, address: str, artifact: Artifact) -> None:
    push(artifact, address)
    puts = [path.rsplit("/", 1)[1] for method, path in fake.seen if method == "PUT" and "/manifests/" in path]
    assert puts == [*(each.blob.digest for each in artifact.manifests), "v1-modelpack", "v1"]
    assert [method for method, path in fake.seen if "/manifests/" in path][-1] == fake.seen[-1][0]


def test_a_download_that_breaks_off_goes_on_where_it_was(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    push(artifact, address)
    fake.cut_gets = [700, 50]
    transfer.pull(f"{address}:v1", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "m" / "model.safetensors").read_bytes()


def test_a_blob_that_is_not_what_its_digest_says_is_refused_and_nothing_is_kept(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    push(artifact, address)
    layer = max(fake.blobs, key=lambda digest: len(fake.blobs[digest]))
    fake.blobs[layer] = fake.blobs[layer][:-1] + b"x"
    with pytest.raises(FleetError, match="digest mismatch"):
        transfer.pull(f"{address}:v1", tmp_path / "out")
    assert names_in(tmp_path) == ["m"]


def test_a_manifest_that_is_not_what_was_asked_for_is_refused(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    push(artifact, address)
    fake.manifests[artifact.digest] = fake.manifests[artifact.manifests[0].blob.digest]
    with pytest.raises(FleetError, match="digest mismatch: the manifest of models/m@sha256"):
        transfer.pull(f"{address}@{artifact.digest}", tmp_path / "out")


def test_a_tag_that_is_not_there_is_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="has no models/m:v7"):
        transfer.pull(f"{address}:v7", tmp_path / "out")


def test_a_file_that_changes_between_digest_and_upload_never_gets_a_tag(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(bytes([7]) * weights.stat().st_size)
    with pytest.raises(FleetError, match="did the file change"):
        push(artifact, address)
    assert fake.manifests == {}


@pytest.mark.parametrize("asks", ["basic", "bearer"])
def test_the_credentials_of_docker_login_are_used(fake: Fake, address: str, artifact: Artifact, tmp_path: Path, asks: str) -> None:
    fake.asks = asks
    log_in(tmp_path, fake)
    push(artifact, address)
    transfer.pull(f"{address}:v1", tmp_path / "out")
    assert "v1" in fake.manifests


@pytest.mark.parametrize("asks", ["basic", "bearer"])
def test_a_registry_that_wants_credentials_that_we_lack_is_told_as_such(fake: Fake, address: str, artifact: Artifact, asks: str) -> None:
    fake.asks = asks
    with pytest.raises(FleetError, match=r"refuses a client without credentials for models/m: HTTP 401") as raised:
        push(artifact, address)
    assert "docker login" in raised.value.hint


def test_a_refusal_tells_the_registrys_words_and_never_the_password(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    fake.asks, fake.status = "bearer", {"POST": 403}
    log_in(tmp_path, fake)
    with pytest.raises(FleetError) as raised:
        push(artifact, address)
    told = f"{raised.value} {raised.value.hint}"
    assert "refuses these credentials for models/m: HTTP 403 DENIED told by the registry" in told
    for secret in (PASSWORD, TOKEN, BASIC.removeprefix("Basic ")):
        assert secret not in told
    assert PASSWORD not in repr(credentials.find(fake.host))


def test_a_password_is_not_sent_to_a_realm_without_tls(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    fake.asks, fake.realm = "bearer", "http://registry.example.com/token"
    log_in(tmp_path, fake)
    with pytest.raises(FleetError, match=r"`http://registry.example.com/token`, which is not https"):
        push(artifact, address)


def test_credentials_that_cannot_be_read_are_told_without_their_content(fake: Fake, address: str, artifact: Artifact, tmp_path: Path) -> None:
    fake.asks = "basic"
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {fake.host: {"auth": "s3cret but no base64"}}}))
    with pytest.raises(FleetError) as raised:
        push(artifact, address)
    assert "auth.json: the credentials of 127.0.0.1" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-ours"
    helper.write_text('#!/bin/sh\nread host; echo "{\\"Username\\": \\"u-$host\\", \\"Secret\\": \\"p\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    (tmp_path / "auth.json").write_text(json.dumps({"credHelpers": {"registry.example.com": "ours"}}))
    assert credentials.find("registry.example.com") == credentials.Credentials("u-registry.example.com", "p")
    assert credentials.find("other.example.com") is None


def test_a_server_error_is_asked_again_and_then_told(fake: Fake, address: str) -> None:
    fake.status = {"GET": 503}
    with pytest.raises(FleetError, match="broke off 5 times at GET manifests/v1: HTTP 503"), Registry(reference.parse(f"{address}:v1"), _NO_PAUSE) as registry:
        registry.manifest("v1")


@pytest.mark.parametrize(
    "text",
    ["registry/x:v1", "oci://", "oci://registry", "oci://Registry/UPPER:v1", "oci://r/x:", "oci://r/x@sha256:12", "oci://r/../x", "https://r/x"],
)
def test_what_is_no_reference_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(FleetError) as raised:
        reference.parse(text)
    assert raised.value.hint == "it looks like oci://registry.example.com/models/name:tag"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1:5000", True), ("localhost", True), ("[::1]:5000", True), ("127.0.0.1.example.com", False), ("10.0.0.1:5000", False)],
)
def test_only_this_machine_is_spoken_to_without_tls(host: str, loopback: bool) -> None:
    assert reference.is_loopback(host) is loopback


@pytest.mark.parametrize("text", ["oci://r.example.com/m", f"oci://r.example.com/m:v1@sha256:{'0' * 64}"])
def test_push_needs_a_tag(artifact: Artifact, text: str) -> None:
    with pytest.raises(FleetError, match="push needs a tag and no digest"):
        transfer.push(artifact, reference.parse(text))
