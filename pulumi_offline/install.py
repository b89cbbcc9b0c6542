"""Puts the language host and the `command` plugin in place, ours only where the official ones cannot be had.

Ours are scripts that lead back into this clone, so a change of their code needs no new installation. This module is all that the
toolchain imports; the plugins run in processes of their own.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pulumi_offline import COMMAND_VERSION, LANGUAGE_HOST_VERSION

_REPO = Path(__file__).resolve().parents[1]
_DOWNLOADS = "https://get.pulumi.com"
_ANSWER_S = 4.0
# Official plugins are tens of megabytes.
_DOWNLOAD_S = 300

# How a launcher of ours is told from an official binary.
_MARK = "# offline stand-in written by pulumi_offline"


class OfflineError(Exception):
    """A plugin could neither be had nor put in place. The message says which and why."""


@dataclass(frozen=True)
class Plugin:
    kind: str
    name: str
    version: str
    module: str

    @property
    def file(self) -> str:
        return f"pulumi-{self.kind}-{self.name}"


COMMAND = Plugin("resource", "command", COMMAND_VERSION, "command_provider")
LANGUAGE_HOST = Plugin("language", "python", LANGUAGE_HOST_VERSION, "language_host")


def install(pulumi: Path, pulumi_home: Path, *, official: bool = True) -> list[str]:
    """Makes Python programs with command resources run with this engine. Returns lines for the user.

    `pulumi_home` should be the fleet's own: the engine cannot tell a stand-in from the official plugin of that
    version. With `official` false the official plugin is not asked for. Quick and silent once all is in place.
    Raises OfflineError.
    """
    lines: list[str] = []
    # The official language host comes with the CLI and lies beside it; the engine looks there before the plugin cache.
    if not (pulumi.resolve().parent / LANGUAGE_HOST.file).is_file() and _write(_installed(pulumi_home, LANGUAGE_HOST), _launcher(LANGUAGE_HOST)):
        lines.append(f"{LANGUAGE_HOST.file} {LANGUAGE_HOST.version}: offline language host in use, the official one is not beside the CLI")
    if _official(pulumi_home, COMMAND) or _read(_installed(pulumi_home, COMMAND)) == _launcher(COMMAND):
        return lines
    if official and _reachable() and _download(pulumi, pulumi_home, COMMAND):
        return [*lines, f"{COMMAND.file} {COMMAND.version}: official plugin installed"]
    _install(pulumi, pulumi_home, COMMAND)
    why = f", {_DOWNLOADS} cannot be reached" if official else ""
    return [*lines, f"{COMMAND.file} {COMMAND.version}: offline plugin in use{why}"]


def _launcher(plugin: Plugin) -> str:
    """A script for one plugin. -P keeps the program's folder, where the engine starts it, off the import path."""
    code = f"import sys; sys.path.insert(0, {str(_REPO)!r}); from pulumi_offline.{plugin.module} import main; main()"
    return f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(sys.executable)} -P -c {shlex.quote(code)} "$@"\n'


def _installed(pulumi_home: Path, plugin: Plugin) -> Path:
    return pulumi_home / "plugins" / f"{plugin.kind}-{plugin.name}-v{plugin.version}" / plugin.file


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _MARK.encode() in file.read(200)
    except OSError:
        return False


def _official(pulumi_home: Path, plugin: Plugin) -> bool:
    path = _installed(pulumi_home, plugin)
    return path.is_file() and not _ours(path)


def _write(path: Path, text: str) -> bool:
    """Whether the file had to be written. A running engine never sees half of it."""
    if _read(path) == text and os.access(path, os.X_OK):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as error:
        raise OfflineError(f"cannot be written: {error.strerror}: `{path}`") from None
    return True


def _reachable() -> bool:
    """Whether Pulumi's download host answers, within seconds. Any HTTP answer counts."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(_DOWNLOADS, method="HEAD"), timeout=_ANSWER_S):
                answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, socket.gaierror, ValueError):
            return

    # A thread, because looking up a host name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_S + 1)
    return bool(answers)


def _environment(pulumi_home: Path) -> dict[str, str]:
    return {**os.environ, "PULUMI_HOME": str(pulumi_home), "PULUMI_SKIP_UPDATE_CHECK": "true"}


def _download(pulumi: Path, pulumi_home: Path, plugin: Plugin) -> bool:
    shutil.rmtree(_installed(pulumi_home, plugin).parent, ignore_errors=True)
    command = [str(pulumi), "plugin", "install", "resource", plugin.name, plugin.version]
    try:
        done = subprocess.run(command, env=_environment(pulumi_home), stdin=subprocess.DEVNULL, capture_output=True, timeout=_DOWNLOAD_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and _official(pulumi_home, plugin)


def _install(pulumi: Path, pulumi_home: Path, plugin: Plugin) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / plugin.file, _launcher(plugin))
        command = [str(pulumi), "plugin", "install", "resource", plugin.name, plugin.version, "--file", folder, "--reinstall"]
        try:
            done = subprocess.run(command, env=_environment(pulumi_home), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OfflineError(f"{plugin.file}: offline plugin cannot be installed: {error}") from None
    if done.returncode or _read(_installed(pulumi_home, plugin)) != _launcher(plugin):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise OfflineError(f"{plugin.file}: offline plugin cannot be installed: {last}")
