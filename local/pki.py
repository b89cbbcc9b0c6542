"""Certificates of one local cluster: an authority, and what it signs.

Everything lives in the cluster's pki/ folder, keys readable by their owner only, made once and reused. The authority
serves this one cluster on loopback; it is not for clusters that anyone else reaches.
"""

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = dt.timedelta(days=3650)


class HasFolder(Protocol):
    """What this module needs of a HostCluster."""

    @property
    def dir(self) -> Path: ...


@dataclass(frozen=True)
class ServingCertificate:
    """A certificate for 127.0.0.1 with its key, as files, and the authority that callers check it against."""

    directory: Path
    cert: Path
    key: Path
    ca_pem: bytes


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a run killed here must not leave half a key that the next run takes for a good one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    temporary.replace(path)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional form: kube-apiserver and etcd read it for TLS and for service account keys alike.
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    # An hour back: a clock that is set right after a start must not make the certificates invalid.
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
    return builder.not_valid_after(now + _VALID)


def _name(common_name: str, organization: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def authority(cluster: HasFolder) -> Path:
    """The authority's certificate file; its key lies beside it as ca.key."""
    folder = cluster.dir / "pki"
    cert, key_file = folder / "ca.crt", folder / "ca.key"
    if not cert.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, name = _new_key(), _name("inference-fleet local cluster")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = _builder(name, name, key).add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        _write(key_file, _pem(key))
        # The certificate last: its presence says that the pair is whole.
        _write(cert, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return cert


def _sign(cluster: HasFolder, folder: Path, stem: str, subject: x509.Name, dns: list[str] | None) -> None:
    """Makes <stem>.crt and <stem>.key in `folder`; with `dns` names for serving on 127.0.0.1 too, else for clients only."""
    cert = folder / f"{stem}.crt"
    if cert.exists():
        return
    issuer = x509.load_pem_x509_certificate(authority(cluster).read_bytes())
    issuer_key = serialization.load_pem_private_key((cluster.dir / "pki" / "ca.key").read_bytes(), None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{cluster.dir / 'pki' / 'ca.key'}: is not an elliptic curve key")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _new_key()
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(subject, issuer.subject, key)
    if dns is not None:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.DNSName(name) for name in ("localhost", *dns)]
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *names]), False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
    _write(folder / f"{stem}.key", _pem(key))
    _write(cert, builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def client_certificate(cluster: HasFolder, stem: str, common_name: str, organization: str = "") -> tuple[Path, Path]:
    """Certificate and key files that identify a client as `common_name` in group `organization`."""
    folder = cluster.dir / "pki"
    _sign(cluster, folder, stem, _name(common_name, organization), None)
    return folder / f"{stem}.crt", folder / f"{stem}.key"


def serving_certificate(cluster: HasFolder, name: str, dns: list[str]) -> ServingCertificate:
    """A certificate for 127.0.0.1, localhost and `dns`, in a folder of its own as tls.crt and tls.key.

    It proves a client too: etcd and the aggregated API server use one certificate in both roles.
    """
    folder = cluster.dir / "pki" / name
    _sign(cluster, folder, "tls", _name(name), dns)
    return ServingCertificate(folder, folder / "tls.crt", folder / "tls.key", authority(cluster).read_bytes())


def service_account_key(cluster: HasFolder) -> Path:
    """The key that signs service account tokens."""
    path = cluster.dir / "pki" / "service-account.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, _pem(_new_key()))
    return path
