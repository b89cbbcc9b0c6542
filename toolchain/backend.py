"""Which Pulumi backend holds the state of a stack.

The stack `local` has one of its own below .fleet/. For every other stack it is what the user chose, looked up in the order in which
the Pulumi CLI does: PULUMI_BACKEND_URL, `backend` in Pulumi.yaml, `pulumi login`.

Standard library only: `make down` reads this with a broken virtual environment.
"""

import json
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from toolchain import paths

LOCAL = "local"
"""The stack whose state, clusters and secrets are all of this machine."""

# A known word keeps the committed stack file the same on every machine: docs/decisions/0007-local-secrets.md.
LOCAL_PASSPHRASE = "local"
PUBLIC_PASSPHRASES = (LOCAL_PASSPHRASE, "")

BACKEND_URL = "PULUMI_BACKEND_URL"
_SERVICE = "https://api.pulumi.com"


@dataclass(frozen=True)
class Backend:
    """One backend, and where it was chosen."""

    url: str
    source: str

    @property
    def folder(self) -> Path | None:
        """Where a file backend lies; None for any other."""
        return folder(self.url)

    @property
    def is_service(self) -> bool:
        """Whether it is Pulumi Cloud or a server like it, which encrypts secrets itself."""
        return self.url.startswith(("https://", "http://"))

    def __str__(self) -> str:
        """Fit for a log: without the user name and password that a URL may hold."""
        return re.sub(r"(?<=://)[^/@]*@", "", self.url)


def local_folder() -> Path:
    """The backend of the stack `local`."""
    return paths.STATE / "pulumi"


def local_url() -> str:
    return f"file://{local_folder()}"


def folder(url: str) -> Path | None:
    """The folder of a file:// URL, read as the CLI reads it in the clone."""
    if not url.startswith("file://"):
        return None
    written = urllib.parse.unquote(url.removeprefix("file://").split("?", 1)[0])
    return Path(os.path.normpath(paths.REPO / Path(written).expanduser()))


def below_state(where: Path) -> bool:
    """Whether `make down` would remove it."""
    return where.resolve().is_relative_to(paths.STATE.resolve())


def credentials_folder(ours: Path, environment: Mapping[str, str]) -> Path:
    """Where `pulumi login` of the user keeps what it is told. `ours` is this clone's own PULUMI_HOME, where no login is looked for."""
    if named := environment.get("PULUMI_CREDENTIALS_PATH"):
        return Path(named)
    home = environment.get("PULUMI_HOME", "")
    return Path(home) if home and Path(home) != ours else Path("~/.pulumi").expanduser()


def logins(credentials: Path) -> tuple[str, frozenset[str]]:
    """The backend that `pulumi login` made the current one, empty where there is none; and every backend that it knows."""
    try:
        read: Any = json.loads((credentials / "credentials.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", frozenset()
    if not isinstance(read, dict):
        return "", frozenset()
    found = cast(dict[str, Any], read)
    known = {str(url) for key in ("accessTokens", "accounts") for url in found.get(key) or {}}
    current = str(found.get("current") or "")
    return current, frozenset({*known, *([current] if current else [])})


def chosen(environment: Mapping[str, str], project: str, credentials: Path) -> Backend | None:
    """What the user chose for stacks other than `local`. None where nothing is chosen.

    project: `backend.url` of Pulumi.yaml, empty where it has none.
    """
    if url := environment.get(BACKEND_URL):
        return Backend(url, BACKEND_URL)
    if project:
        return Backend(project, "Pulumi.yaml")
    if url := logins(credentials)[0]:
        return Backend(url, "pulumi login")
    if environment.get("PULUMI_ACCESS_TOKEN"):
        # As in CI: the CLI takes a token for a login to the service.
        return Backend(environment.get("PULUMI_API") or _SERVICE, "PULUMI_ACCESS_TOKEN")
    return None
