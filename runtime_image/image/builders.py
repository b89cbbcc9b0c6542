"""The programs that build the image, whichever the machine has: docker buildx or buildah.

Both read the one Containerfile; buildx reads docker-bake.json itself, for buildah the same is said by options.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import FleetError
from core.progress import Progress
from oci.layout import Layout
from runtime_image.image import base, inputs
from runtime_image.image.inputs import Definition
from toolchain import paths
from toolchain.acquisition import need_space

HOME = paths.CACHE / "image"
"""What was built, and buildah's own store. Removing it costs time only."""
LOG = HOME / "build.log"
LAYOUT, SBOM, SECONDS = "layout", "sbom.cdx.json", "seconds.json"
_SBOM_IN_IMAGE = "runtime.cdx.json"
# Measured for the CPU variant: what was installed, the layers made of it, and the compressed image.
_GIB = 20
_TELL_EVERY_S = 20.0
_TAIL = 12
# What builders say when an image cannot be had.
_NO_PULL = ("pinging container registry", "failed to resolve source metadata", "initializing source", "dial tcp")


@dataclass(frozen=True)
class Built:
    """One variant in a folder: an OCI layout, its list of contents, and how long it took by stage; empty where it was there already."""

    definition: Definition
    folder: Path
    seconds: Mapping[str, float]

    @property
    def layout(self) -> Path:
        return self.folder / LAYOUT

    @property
    def sbom(self) -> Path:
        return self.folder / SBOM


class Builder(Protocol):
    @property
    def name(self) -> str: ...

    def build(self, definition: Definition, folder: Path, secrets: Mapping[str, Path], progress: Progress) -> None:
        """Writes the layout and the list of contents into `folder`. Raises FleetError."""
        ...

    def forget(self) -> None:
        """Frees the room that steps of a finished build take."""
        ...


def find(name: str = "") -> Builder:
    """The builder of that name, else the first that works here. Raises FleetError."""
    builders: dict[str, Builder] = {each.name: each for each in (Buildx(), Buildah())}
    if name:
        return builders[name]
    if _works("docker", "buildx", "inspect"):
        return builders["docker"]
    if shutil.which("buildah"):
        return builders["buildah"]
    raise FleetError(
        "no builder of images works here: neither `docker buildx` nor `buildah`",
        hint="apt-get install buildah, or start Docker; a stack may also name an image that others built, by its digest",
    )


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def place(definition: Definition) -> Path:
    """Where a variant lies once it is built."""
    return HOME / f"{definition.variant}-{definition.digest[:16]}"


def ensure(definition: Definition, builder: str, progress: Progress) -> Built:
    """Builds what is not there yet. Raises FleetError, and ToolError where the disk is too small."""
    folder = place(definition)
    if folder.exists():
        progress.say(f"{definition.variant}: nothing it is built from has changed")
        return Built(definition, folder, {})
    chosen = find(builder)
    need_space(_GIB, HOME, "building the runtime image")
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    LOG.unlink(missing_ok=True)
    before = len(progress.stages)
    try:
        with secrets() as found:
            chosen.build(definition, fresh, found, progress)
        seconds = dict(progress.stages[before:])
        (fresh / SECONDS).write_text(json.dumps(seconds))
        for older in HOME.glob(f"{definition.variant}-*"):
            shutil.rmtree(older)
        fresh.rename(folder)
        # Half of it is what was installed, the other half copies of that. A base that is made anew has the packages of its day.
        chosen.forget()
        shutil.rmtree(HOME / "base", ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Built(definition, folder, seconds)


# How this machine reaches package registries


@contextmanager
def secrets() -> Generator[dict[str, Path]]:
    """Certificates and settings of pip and uv by the secret's id in the Containerfile: what the steps may read and no layer keeps."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "certificates": _first(os.environ.get("SSL_CERT_FILE")),
            "pip": _first(os.environ.get("PIP_CONFIG_FILE"), "~/.config/pip/pip.conf", "~/.pip/pip.conf", "/etc/pip.conf"),
            "uv": _first(os.environ.get("UV_CONFIG_FILE"), "~/.config/uv/uv.toml", "/etc/uv/uv.toml"),
        }
        # An index in the environment counts before one in a file, as it does for pip and uv.
        if index := os.environ.get("PIP_INDEX_URL"):
            found["pip"] = _written(Path(folder, "pip.conf"), f"[global]\nindex-url = {index}\n")
        if index := os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL"):
            found["uv"] = _written(Path(folder, "uv.toml"), f"index-url = {json.dumps(index)}\n")
        yield {name: file for name, file in found.items() if file is not None}


def _first(*candidates: str | None) -> Path | None:
    files = [Path(each).expanduser() for each in candidates if each]
    return next((file for file in files if file.is_file()), None)


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


# Builders


@dataclass(frozen=True)
class Buildx:
    """docker buildx, whose attestations of provenance and contents go into the layout too."""

    name: str = "docker"

    def build(self, definition: Definition, folder: Path, secrets: Mapping[str, Path], progress: Progress) -> None:
        with tempfile.TemporaryDirectory() as made:
            below = base.make(HOME / "base", LOG, progress) if definition.base == base.NAME else None
            with progress.stage(f"{definition.variant}: docker buildx"):
                _run(self.command(definition, secrets, below, f"type=oci,dest={folder / LAYOUT},tar=false,compression=zstd,oci-mediatypes=true"), progress)
                _run([*self.command(definition, secrets, below, f"type=local,dest={made}"), "--set", f"{definition.variant}.target=sbom"], progress)
            shutil.move(Path(made, _SBOM_IN_IMAGE), folder / SBOM)

    def forget(self) -> None:
        """Nothing: the builder has its own limits, and other images."""

    @staticmethod
    def command(definition: Definition, secrets: Mapping[str, Path], below: Path | None, output: str) -> list[str]:
        variant = definition.variant
        said = [f"{variant}.output={output}", f"{variant}.args.INPUTS={definition.digest}", f"{variant}.args.BASE={definition.base}"]
        # A named context stands for the image of that name.
        said += [f"{variant}.contexts.{base.NAME}=oci-layout://{below}@{Layout(below).root()}"] if below else []
        said += [f"{variant}.secrets+=type=file,id={name},src={file}" for name, file in secrets.items()]
        return ["docker", "buildx", "bake", "--file", inputs.BAKE, "--progress", "plain", variant, *(part for each in said for part in ("--set", each))]


@dataclass(frozen=True)
class Buildah:
    """buildah with a store of its own. Steps run in a chroot: that works inside containers too, where CI often is."""

    name: str = "buildah"

    def build(self, definition: Definition, folder: Path, secrets: Mapping[str, Path], progress: Progress) -> None:
        if shutil.which("buildah") is None:
            raise FleetError("buildah is missing", hint="apt-get install buildah")
        name = f"localhost/inference-fleet/runtime:{definition.variant}"
        with tempfile.TemporaryDirectory() as made:
            if definition.base == base.NAME:
                below = base.make(HOME / "base", LOG, progress)
                # It makes a name of the path, and not every path can be one.
                _run([*self.front(), "pull", "--quiet", f"oci:{below.name}"], progress, below.parent)
                _run([*self.front(), "tag", f"localhost/{below.name}", base.REFERENCE], progress)
            with progress.stage(f"{definition.variant}: buildah"):
                _run(self.command(definition, secrets, "runtime", ["--tag", name]), progress)
                _run(self.command(definition, secrets, "sbom", ["--output", f"type=local,dest={made}"]), progress)
            with progress.stage(f"{definition.variant}: compressing"):
                _run([*self.front(), "push", "--quiet", "--compression-format", "zstd", name, f"oci:{folder / LAYOUT}"], progress)
            shutil.move(Path(made, _SBOM_IN_IMAGE), folder / SBOM)

    def forget(self) -> None:
        subprocess.run([*self.front(), "rmi", "--all", "--force"], stdin=subprocess.DEVNULL, capture_output=True, check=False)

    @staticmethod
    def front() -> list[str]:
        store = HOME / "buildah"
        return ["buildah", "--root", str(store / "storage"), "--runroot", str(store / "run")]

    def command(self, definition: Definition, secrets: Mapping[str, Path], target: str, more: Sequence[str]) -> list[str]:
        arguments = {**definition.arguments, "BASE": _named(definition.base), "INPUTS": definition.digest}
        options = ["--isolation", "chroot", "--network", "host", "--format", "oci", "--layers", "--platform", "linux/amd64"]
        said = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        said += [part for key, file in secrets.items() for part in ("--secret", f"id={key},src={file}")]
        files = ["--ignorefile", inputs.IGNOREFILE, "--file", inputs.CONTAINERFILE]
        return [*self.front(), "build", *options, *said, *files, "--target", target, *more, "."]


def _named(name: str) -> str:
    """The base's name for buildah; one of our own is known to this machine alone."""
    return base.REFERENCE if name == base.NAME else name


def _run(command: list[str], progress: Progress, folder: Path = paths.REPO) -> None:
    """Says now and then how far it is. Raises FleetError with the end of what the builder said."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    temporary = HOME / "tmp"
    temporary.mkdir(exist_ok=True)
    begun = LOG.stat().st_size if LOG.exists() else 0
    with LOG.open("ab") as stream:
        # buildah keeps its caches in TMPDIR.
        running = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(temporary)}
        )
        try:
            _watch(running, progress)
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait()
    if running.returncode:
        lines = LOG.read_bytes()[begun:].decode(errors="replace").strip().splitlines()[-_TAIL:]
        unreachable = any(word in line for line in lines for word in _NO_PULL)
        hint = f"--base {base.NAME} --variant {inputs.CPU} makes a base from distribution packages" if unreachable else f"all it said: {LOG}"
        raise FleetError(f"{command[0]} failed:\n" + "\n".join(f"  {line[:300]}" for line in lines), hint=hint)


def _watch(running: subprocess.Popen[bytes], progress: Progress) -> None:
    told, at = "", time.monotonic()
    while True:
        try:
            running.wait(1)
            return
        except subprocess.TimeoutExpired:
            pass
        steps = [line for line in LOG.read_text(errors="replace").splitlines() if "STEP " in line or line.startswith("#")]
        now = steps[-1][:110] if steps else ""
        if now != told and time.monotonic() - at > _TELL_EVERY_S:
            progress.say(f"  {now}")
            told, at = now, time.monotonic()
