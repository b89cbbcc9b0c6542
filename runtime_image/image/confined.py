"""Runs a command in a root file system as a container runtime would, in the namespaces that `unshare` made around it.

The root is read-only, /tmp, the home and /dev/shm are empty, the user is any number with the group 0, and has no rights beyond. The
network is this machine's: everything listens on loopback. Standard library only. Takes one argument: a `Container` as JSON.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# linux/prctl.h
_SET_PDEATHSIG, _CAPBSET_DROP, _SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITIES = 64
_HOME, _SCRATCH, _SHARED_MEMORY = "/home/vllm", "/tmp", "/dev/shm"
# Modes are those of an emptyDir.
_EMPTY = {_SCRATCH: "1777", _HOME: "0777", _SHARED_MEMORY: "1777"}
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class Container:
    """volumes: folder in the container → folder of this machine, read-only. command: found by the PATH of its environment."""

    root: str
    user: int
    folder: str
    volumes: Mapping[str, str]
    command: Sequence[str]

    def arguments(self) -> list[str]:
        """What runs it; the environment is given to that process."""
        namespaces = ["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private"]
        return ["unshare", *namespaces, sys.executable, __file__, json.dumps(asdict(self))]


def mounts(container: Container) -> list[list[str]]:
    """In order, as arguments of mount(8)."""
    root = container.root
    return [
        ["--bind", root, root],
        ["-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{root}/proc"],
        # vLLM reads there how many cores there are.
        *_read_only("/sys", f"{root}/sys"),
        # Names of this machine, `localhost` first of all.
        *_read_only("/etc/hosts", f"{root}/etc/hosts"),
        ["-t", "tmpfs", "-o", "mode=755,nosuid", "tmpfs", f"{root}/dev"],
        *(["-t", "tmpfs", "-o", f"mode={mode},nosuid,nodev", "tmpfs", root + place] for place, mode in _EMPTY.items()),
        *(["--bind", f"/dev/{name}", f"{root}/dev/{name}"] for name in _DEVICES),
        *(each for target, folder in container.volumes.items() for each in _read_only(folder, root + target)),
        ["-o", "remount,bind,ro", root],
    ]


def _read_only(source: str, target: str) -> tuple[list[str], list[str]]:
    return ["--rbind", source, target], ["-o", "remount,bind,ro", target]


def _mount(container: Container) -> None:
    for arguments in mounts(container):
        target = Path(arguments[-1])
        if arguments[0].endswith("bind") and Path(arguments[1]).is_char_device():
            target.touch()
        elif not target.exists():
            target.mkdir(parents=True)
        subprocess.run(["mount", *arguments], check=True)


def _give_up_rights(user: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_CAPABILITIES):
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(user, user, user)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("the kernel does not take no_new_privs")
    # As `unshare --kill-child` had it before the kernel forgot it with the change of user.
    libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    container = Container(**json.loads(sys.argv[1]))
    _mount(container)
    os.chroot(container.root)
    os.chdir(container.folder)
    _give_up_rights(container.user)
    os.execvp(container.command[0], list(container.command))


if __name__ == "__main__":
    main()
