"""Signatures of images by cosign, which must be on PATH. Only digests are signed and verified: a tag may name something else tomorrow."""

import shutil
import subprocess
from dataclasses import dataclass

from core.errors import FleetError
from oci.reference import Reference, is_loopback


@dataclass(frozen=True)
class Signer:
    """Who signs, or whose signature is wanted: a key (a file, or a key service's address), or an identity and who vouches for it."""

    key: str = ""
    identity: str = ""
    issuer: str = ""


def sign(target: Reference, signer: Signer) -> None:
    """Raises FleetError. Without a key cosign asks for an identity, as in CI."""
    _run("sign", [*(["--key", signer.key] if signer.key else []), "--yes"], target)


def verify(target: Reference, signer: Signer) -> None:
    """Raises FleetError where the digest has no signature of that signer, and where cosign cannot say."""
    if not signer.key and not (signer.identity and signer.issuer):
        raise FleetError("verify needs to know whose signature counts", hint="--key FILE, or --identity WHO --issuer URL")
    wanted = ["--key", signer.key] if signer.key else ["--certificate-identity", signer.identity, "--certificate-oidc-issuer", signer.issuer]
    _run("verify", wanted, target)


def _run(verb: str, options: list[str], target: Reference) -> None:
    if not target.digest:
        raise FleetError(f"{verb} needs a digest, got: `{target}`", hint="fleet image push prints it")
    if shutil.which("cosign") is None:
        done = "nothing was signed" if verb == "sign" else "no signature was looked at"
        raise FleetError(f"cosign is not on PATH: {done}", hint="install cosign of Sigstore")
    plain = ["--allow-http-registry"] if is_loopback(target.host) else []
    command = ["cosign", verb, *options, *plain, f"{target.host}/{target.repository}@{target.digest}"]
    # It may ask for the key's password; what verify prints on stdout is not for the eye.
    finished = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if finished.returncode:
        raise FleetError(f"cosign {verb} failed with exit code {finished.returncode}")
