"""What the image is built from, read from docker-bake.json and the files beside it, and digests over all of that.

A digest decides whether something has to be built: it changes when an input does, and with nothing else.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import FleetError
from runtime_image.image import base
from toolchain import paths

BAKE = "runtime_image/docker-bake.json"
CONTAINERFILE = "runtime_image/Containerfile"
IGNOREFILE = f"{CONTAINERFILE}.dockerignore"
GPU, CPU = "gpu", "cpu"
VARIANTS = (GPU, CPU)
# Label of the image: the digest of what it was built from.
INPUTS_LABEL = "dev.inference-fleet.image.inputs"
TORCH_LABEL = "dev.inference-fleet.image.torch"
VERSION_LABEL = "org.opencontainers.image.version"
_SHOWN = 12


@dataclass(frozen=True)
class Definition:
    """One variant. arguments: of the build, without the digest that is made from them. files: what is copied into the build, and the
    recipe itself, by their path in the repository."""

    variant: str
    arguments: Mapping[str, str]
    files: Mapping[str, bytes]

    @property
    def base(self) -> str:
        return self.arguments["BASE"]

    @property
    def vllm(self) -> str:
        return self.arguments["VLLM"]

    @property
    def torch(self) -> str:
        return self.arguments["TORCH"]

    @property
    def digest(self) -> str:
        """sha256 in hexadecimal digits."""
        content = {
            "arguments": dict(self.arguments),
            "files": {name: hashlib.sha256(text).hexdigest() for name, text in self.files.items()},
            # The archive is whatever the mirrors hold on the day; the names of the mirrors are what can be known before.
            **({"sources": base.SOURCES} if self.base == base.NAME else {}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def copied(variant: str) -> tuple[str, ...]:
    """The files that the recipe copies into the build of a variant. The ignore file lets in these and no others."""
    return (
        f"runtime_image/requirements-{variant}.lock",
        "toolchain/arrange.py",
        "runtime_image/image/sbom.py",
        "toolchain/locks/uv.txt",
    )


def read(variant: str, base_image: str = "", root: Path = paths.REPO) -> Definition:
    """base_image: instead of the default one, an image's name or `debian`. Raises FleetError."""
    if base_image == base.NAME and variant != CPU:
        raise FleetError(
            f"a base of Debian's packages can carry the variant {CPU} alone, got: `{variant}`",
            hint=f"the lock of {GPU} is for the Python of its CUDA base; add --variant {CPU}",
        )
    try:
        arguments: dict[str, Any] = json.loads((root / BAKE).read_text())["target"][variant]["args"]
        files = {name: (root / name).read_bytes() for name in (CONTAINERFILE, *copied(variant))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FleetError(f"{BAKE}: the definition of `{variant}` cannot be read: {error}") from None
    found = Definition(variant, {name: value for name, value in arguments.items() if name != "INPUTS"}, files)
    return replace(found, arguments={**found.arguments, "BASE": base_image}) if base_image else found


def together(definitions: Sequence[Definition]) -> str:
    """One digest over several variants."""
    return hashlib.sha256("\n".join(f"{each.variant} {each.digest}" for each in definitions).encode()).hexdigest()


def all_variants(base_image: str, chosen: Sequence[str]) -> tuple[Definition, ...]:
    """Every variant; those chosen have the base. Raises FleetError."""
    return tuple(read(each, base_image if each in chosen else "") for each in VARIANTS)


def tag(definitions: Sequence[Definition]) -> str:
    """The same for all variants, because KServe changes the repository and keeps the tag. Begins with the version of vLLM, by which
    serving arguments are checked."""
    return f"v{definitions[0].vllm}-{together(definitions)[:_SHOWN]}"


def repository(name: str, variant: str) -> str:
    """Where KServe looks for a variant: it appends `-cpu` when a service of the runtime asks for no GPU."""
    return f"{name}-{CPU}" if variant == CPU else name
