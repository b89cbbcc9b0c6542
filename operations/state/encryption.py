"""How the secrets of a stack are encrypted, checked before anything is written: never with a passphrase that everybody knows."""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import FleetError
from operations.state.backend import commands
from specs import yaml_file
from specs.base import SpecError
from toolchain.backend import LOCAL, PUBLIC_PASSPHRASES, Backend

_PASSPHRASE, _PASSPHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"
# Pulumi's own, sdk/go/common/resource/config/crypt.go.
_ROUNDS, _KEY_BYTES, _KNOWN_TEXT = 1_000_000, 32, b"pulumi"


def provider(stack_file: Path) -> str:
    """`secretsprovider` of a stack file, such as `awskms://…`; empty where it has none, or names the default."""
    named = str(_settings(stack_file).get("secretsprovider") or "")
    return "" if named in ("default", "passphrase") else named


def require(stack: str, stack_file: Path, backend: Backend, environment: Mapping[str, str] = os.environ) -> None:
    """Raises FleetError where a stack other than `local` has no secrets provider, a public passphrase, or is given a wrong one."""
    if stack == LOCAL or provider(stack_file):
        return
    settings = _settings(stack_file)
    salt = str(settings.get("encryptionsalt") or "")
    if backend.is_service and not salt and settings.get("secretsprovider") != "passphrase":
        return
    phrase = passphrase(environment)
    if phrase is None and not salt:
        raise FleetError(f"stack `{stack}`: no secrets provider is chosen, and {backend} has none of its own", hint=commands(stack))
    if phrase in PUBLIC_PASSPHRASES:
        raise FleetError(f"stack `{stack}`: {_PASSPHRASE}: must not be the public passphrase, got: `{phrase}`", hint=commands(stack, initialised=bool(salt)))
    if salt and (phrase is None or not opens(salt, phrase)):
        raise _closed(stack, f"stacks/{stack_file.name}", salt, given=phrase is not None)


def _closed(stack: str, stack_file: str, salt: str, *, given: bool) -> FleetError:
    """Why the passphrase, if one is given, does not open the stack."""
    if any(opens(salt, public) for public in PUBLIC_PASSPHRASES):
        return FleetError(
            f"{stack_file}: encryptionsalt: is of the public passphrase `{LOCAL}`, got: `{salt}`",
            hint=f"a copy of another stack file: delete the line, then\n      {commands(stack)}",
        )
    told = (
        f"{_PASSPHRASE}: wrong passphrase, it does not open encryptionsalt of {stack_file}"
        if given
        else f"encrypted with a passphrase, and neither {_PASSPHRASE} nor {_PASSPHRASE_FILE} is set"
    )
    return FleetError(f"stack `{stack}`: {told}", hint=f"export {_PASSPHRASE_FILE}=FILE with the passphrase that the stack was made with")


def passphrase(environment: Mapping[str, str]) -> str | None:
    """The passphrase as Pulumi reads it: the variable, even an empty one, goes before the file. Raises FleetError."""
    if _PASSPHRASE in environment:
        return environment[_PASSPHRASE]
    if not (file := environment.get(_PASSPHRASE_FILE)):
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{_PASSPHRASE_FILE}: cannot be read: {error}") from None


def opens(salt: str, phrase: str) -> bool:
    """Whether the passphrase is the one of an `encryptionsalt`: v1:<salt>:v1:<nonce>:<ciphertext of a known word>."""
    try:
        version, seed, inner, nonce, sealed = salt.split(":")
        key = hashlib.pbkdf2_hmac("sha256", phrase.encode(), base64.b64decode(seed), _ROUNDS, _KEY_BYTES)
        return (version, inner) == ("v1", "v1") and AESGCM(key).decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None) == _KNOWN_TEXT
    except (ValueError, binascii.Error, InvalidTag):
        return False


def _settings(stack_file: Path) -> dict[str, Any]:
    try:
        read = yaml_file.read(stack_file)
    except SpecError:
        # The program tells every error of the file.
        return {}
    return cast(dict[str, Any], read) if isinstance(read, dict) else {}
