"""Makes a fresh clone ready: the Python environment and the tools. `python3 -m toolchain.bootstrap`.

Runs with any plain Python, so that one which is too old is told so: nothing in here that Python 3.8 cannot read, and what needs a
newer one is imported after the check. Killed at any point, the next run finishes the work.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
VENV = REPO / ".venv"
LOCK = REPO / "requirements.lock"
UV = REPO / "toolchain" / "locks" / "uv.txt"
# Pulumi's official language host lists the installed packages with it.
PIP = REPO / "toolchain" / "locks" / "pip.txt"
PROJECT = REPO / "pyproject.toml"

# The Python under a virtual environment: in a shell prepared by `make env`, python3 is that of .venv itself, which cannot remake it.
BASE = Path(sys.executable).resolve()


class BootstrapError(Exception):
    """Setting up cannot go on."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _fingerprint() -> str:
    """Changes with all that the environment is made from."""
    digest = hashlib.sha256(f"{sys.version} {BASE} {REPO}".encode())
    for file in (LOCK, UV, PIP, PROJECT):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _run(what: str, *command: str) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        raise BootstrapError(f"{what} failed: {error}", "run it again; what was fetched is kept") from None
    if done.returncode:
        lacks_pip = "ensurepip" in done.stdout
        hint = "on Debian and Ubuntu: apt install python3-venv" if lacks_pip else "run it again; what was fetched is kept"
        raise BootstrapError(f"{what} failed:\n{done.stdout.strip()[-2000:]}", hint)


def python_environment() -> None:
    """The virtual environment, in step with the locks. Quick and silent when it is. Raises BootstrapError."""
    stamp = VENV / ".in-step"
    if stamp.exists() and stamp.read_text() == _fingerprint():
        return
    # Here and not at the top: these need the Python that `main` has checked.
    from toolchain.acquisition import Acquisition, locked, write  # noqa: PLC0415

    with locked(f"venv-{hashlib.sha256(str(REPO).encode()).hexdigest()[:12]}", Acquisition()):
        wanted = _fingerprint()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print("python environment: .venv", flush=True)
        python = str(VENV / "bin" / "python")
        # Without a stamp a run was killed in the middle, and what it left cannot be trusted.
        if not stamp.exists() or subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL, check=False).returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            _run("python -m venv", str(BASE), "-m", "venv", str(VENV))
            _run("installing uv", python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(UV), "-r", str(PIP))
        stamp.unlink(missing_ok=True)
        uv = str(VENV / "bin" / "uv")
        _run(
            "installing requirements.lock",
            *(uv, "pip", "sync", "--quiet", "--python", python, "--compile-bytecode", "--require-hashes", str(LOCK), str(UV), str(PIP)),
        )
        _run(
            "installing this project",
            *(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--offline", "--editable", str(REPO)),
        )
        write(stamp, wanted.encode())


def _clean_cache() -> None:
    """Removes what the toolchain made in its cache, and nothing else that may lie there: FLEET_CACHE can name any folder."""
    from toolchain import paths  # noqa: PLC0415

    for name in ("tools", "share", "wheels", "vllm", "image", "logs", "pulumi-home-*", "bin-*"):
        for folder in paths.CACHE.glob(name):
            shutil.rmtree(folder, ignore_errors=True)
    (paths.CACHE / "last-acquire.json").unlink(missing_ok=True)
    print(f"removed the tools in {paths.CACHE}")


def _fail(message: str, hint: str) -> None:
    sys.exit(f"error: {message}\nhint: {hint}")


def main() -> None:
    # Not outdated: older versions come here to be told.
    if sys.version_info < (3, 11):  # noqa: UP036
        _fail(f"Python 3.11 or newer is needed, got: `{sys.version.split()[0]}` ({sys.executable})", "name another one: make PYTHON=python3.12 up")
    parser = argparse.ArgumentParser(prog="python3 -m toolchain.bootstrap")
    parser.add_argument("--only", choices=["python", "tools", "all"], default="all", help="one part instead of both")
    parser.add_argument("--clean-cache", action="store_true", help="remove the built tools, and stop")
    arguments = parser.parse_args()
    if arguments.clean_cache:
        _clean_cache()
        return
    try:
        if arguments.only != "tools":
            python_environment()
    except BootstrapError as error:
        _fail(str(error), error.hint)
    except KeyboardInterrupt:
        _fail("interrupted", "run it again; what is done is kept")
    if arguments.only != "python":
        # This process becomes that one: a signal sent to it reaches the one that works.
        os.chdir(REPO)
        python = str(VENV / "bin" / "python")
        if not Path(python).exists():
            _fail("there is no .venv yet", "make setup")
        os.execv(python, [python, "-m", "toolchain.prepare"])


if __name__ == "__main__":
    main()
