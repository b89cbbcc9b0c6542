"""Who we are to a registry: what `docker login`, `podman login` and their helpers have written. Read-only, and never printed."""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from core.errors import FleetError

# The name that Docker writes for its own registry.
_DOCKER_HUB = {"docker.io", "registry-1.docker.io", "index.docker.io"}
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
# A helper may ask a cloud's service.
_HELPER_S = 30


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or instead of them a token that is exchanged for others."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def files() -> list[Path]:
    """Where credentials may be, the first that exists counts."""
    home = Path.home()
    if explicit := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(explicit)]
    docker = Path(os.environ.get("DOCKER_CONFIG", home / ".docker")) / "config.json"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [docker, *([Path(runtime) / "containers" / "auth.json"] if runtime else []), home / ".config" / "containers" / "auth.json"]


def find(host: str) -> Credentials | None:
    """For a registry, None where there are none. Raises FleetError for a file or a helper that cannot be understood."""
    for file in files():
        if not file.exists():
            continue
        try:
            content = json.loads(file.read_text())
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
            found = _of_file(cast("Mapping[str, Any]", content), host)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            # Not the error's own text: a decoder may quote what it read.
            raise FleetError(
                f"{file}: the credentials of {host} cannot be read ({type(error).__name__})", hint="log in again, e.g. with docker login"
            ) from None
        if found is not None:
            return found
    return None


def _of_file(content: Mapping[str, Any], host: str) -> Credentials | None:
    keys = [_DOCKER_HUB_KEY, "docker.io"] if host in _DOCKER_HUB else [host, f"https://{host}", f"https://{host}/v2/", f"https://{host}/v1/"]
    helpers = content.get("credHelpers") or {}
    for key in keys:
        if key in helpers:
            return _ask_helper(helpers[key], key)
    for key in keys:
        entry = (content.get("auths") or {}).get(key)
        if not entry:
            continue
        if entry.get("identitytoken"):
            return Credentials(identity_token=entry["identitytoken"])
        if entry.get("auth"):
            try:
                user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise ValueError("auth") from None
            return Credentials(user, password.rstrip("\0"))
    if store := content.get("credsStore"):
        return _ask_helper(store, keys[0])
    return None


def _ask_helper(name: str, key: str) -> Credentials | None:
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run([program, "get"], input=key, capture_output=True, text=True, timeout=_HELPER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"the credential helper {program} does not answer ({type(error).__name__})", hint="install it, or log in without it") from None
    if done.returncode:
        # Helpers end like this when they know no such registry.
        return None
    answer = json.loads(done.stdout)
    if answer.get("Username") == "<token>":
        return Credentials(identity_token=answer["Secret"])
    return Credentials(answer["Username"], answer["Secret"])
