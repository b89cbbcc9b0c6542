"""Signing: by digest alone, by cosign alone, and never pretended."""

from pathlib import Path

import pytest

from core.errors import FleetError
from oci import reference
from runtime_image.image import sign
from runtime_image.image.sign import Signer

DIGEST = f"sha256:{'0' * 64}"
REMOTE = reference.parse(f"oci://registry.example.com/fleet/runtime@{DIGEST}")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cosign that writes down what it is asked, and fails where the key says so."""
    program = tmp_path / "bin" / "cosign"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\ncase "$*" in *wrong.pub*) exit 3;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path / "told"


def test_a_digest_is_signed_with_a_key(told: Path) -> None:
    sign.sign(REMOTE, Signer("cosign.key"))
    assert told.read_text().split() == ["sign", "--key", "cosign.key", "--yes", f"registry.example.com/fleet/runtime@{DIGEST}"]


def test_a_signature_is_wanted_of_an_identity(told: Path) -> None:
    sign.verify(REMOTE, Signer(identity="ci@example.com", issuer="https://issuer.example.com"))
    assert told.read_text().split()[1:5] == ["--certificate-identity", "ci@example.com", "--certificate-oidc-issuer", "https://issuer.example.com"]


def test_only_a_registry_on_this_machine_is_spoken_to_without_tls(told: Path) -> None:
    sign.sign(reference.parse(f"oci://127.0.0.1:5000/fleet/runtime@{DIGEST}"), Signer("k"))
    assert "--allow-http-registry" in told.read_text()


def test_a_tag_is_neither_signed_nor_verified(told: Path) -> None:
    tag = reference.parse("oci://registry.example.com/fleet/runtime:v1")
    for act in (sign.sign, sign.verify):
        with pytest.raises(FleetError, match="needs a digest"):
            act(tag, Signer("k"))
    assert not told.exists()


def test_a_signature_of_just_anybody_is_not_verified(told: Path) -> None:
    for signer in (Signer(), Signer(identity="ci@example.com")):
        with pytest.raises(FleetError, match="whose signature counts"):
            sign.verify(REMOTE, signer)
    assert not told.exists()


def test_what_cosign_refuses_is_refused(told: Path) -> None:
    with pytest.raises(FleetError, match="cosign verify failed with exit code 3"):
        sign.verify(REMOTE, Signer("wrong.pub"))


def test_without_cosign_nothing_is_pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FleetError, match="nothing was signed"):
        sign.sign(REMOTE, Signer("k"))
    with pytest.raises(FleetError, match="no signature was looked at"):
        sign.verify(REMOTE, Signer("k"))
