"""oci://HOST/REPOSITORY:TAG@DIGEST, as a person writes it."""

import ipaddress
import re
from dataclasses import dataclass

from core.errors import FleetError

SCHEME = "oci://"
# The distribution specification's own grammar. A host is told from a repository by its place alone: it is never left out.
_PATTERN = re.compile(
    r"oci://(?P<host>(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d+)?)/(?P<repository>[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Reference:
    """host: with its port. tag and digest may both be there: then the digest counts."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.repository}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or "latest"


def parse(text: str) -> Reference:
    """Raises FleetError."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise FleetError(f"is not a valid oci:// reference, got: `{text}`", hint="it looks like oci://registry.example.com/models/name:tag")
    return Reference(found["host"], found["repository"], found["tag"] or "", found["digest"] or "")


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine. Only such a registry is spoken to without TLS."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
