"""Host processes of containers: started so that they can be found again, told apart, and ended with all they started.

A container is a process group of its own plus whatever carries its markers in the environment, the counterpart of a
cgroup where none may be made. It outlives the agent, as a container outlives its kubelet.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local import processes as host
from local.down import CELL

# Uid of the pod and name of the container that a process belongs to. Written here, inherited by all descendants.
POD, CONTAINER = "FLEET_POD", "FLEET_CONTAINER"

_LISTENING = "0A"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time in clock ticks since boot; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return fields[0], int(fields[19])


@dataclass
class Running:
    """A container's main process. `start_ticks` tells it from a later process of the same id."""

    pid: int
    start_ticks: int
    # None where an earlier agent started it: then nobody can learn its exit code.
    child: "subprocess.Popen[bytes] | None" = None

    def poll(self) -> tuple[bool, int | None]:
        """(still runs, exit code if it can be known); a code below zero is the signal that ended it."""
        if self.child is not None:
            code = self.child.poll()
            return code is None, code
        return alive(self.pid, self.start_ticks), None


def alive(pid: int, start_ticks: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX" and stat[1] == start_ticks


def start(argv: Sequence[str], environment: Mapping[str, str], cwd: str, log: int, pod: str, container: str) -> Running:
    """Starts a container's process in a session of its own. `log` is a descriptor. Raises OSError.

    Nothing of the agent's environment is inherited but the cluster's marker, by which a region is killed as one.
    """
    marked = {**environment, POD: pod, CONTAINER: container}
    if CELL in os.environ:
        marked[CELL] = os.environ[CELL]
    # Libraries that set the process title (vLLM does) write over the environment that /proc shows, markers included,
    # unless they are told not to.
    marked["SPT_NOENV"] = "1"
    child = subprocess.Popen(list(argv), env=marked, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    stat = _stat(child.pid)
    return Running(child.pid, stat[1] if stat else 0, child)


def adopt(pid: int, start_ticks: int) -> Running | None:
    """The process that an earlier agent started, if it still runs."""
    return Running(pid, start_ticks) if alive(pid, start_ticks) else None


def members(pod: str, container: str | None = None) -> list[int]:
    """Living processes of a pod, or of one of its containers."""
    pids = host.find(host.equals(POD, pod))
    if container is None:
        return pids
    own = set(host.find(host.equals(CONTAINER, container)))
    return [pid for pid in pids if pid in own]


def pods_of(cell: str) -> dict[str, list[int]]:
    """Pod uid → its living processes, of all pods that this cluster's agents started."""
    found: dict[str, list[int]] = {}
    for pid in host.find(host.equals(CELL, cell)):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if variable.startswith(f"{POD}=".encode()):
                found.setdefault(variable.partition(b"=")[2].decode(), []).append(pid)
    return found


def signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill_group(pid: int) -> None:
    signal_group(pid, signal.SIGKILL)


def kill_rest(pod: str, container: str | None = None, timeout_s: float = 10) -> None:
    """SIGKILLs what is left of a container, or of a pod: also what left the process group. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while left := members(pod, container):
        host.signal_all(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of pod {pod} do not end: {' '.join(map(str, left))}")
        time.sleep(0.02)


def started_at(running: Running) -> float:
    """When the process started, in seconds since the epoch."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + running.start_ticks / _CLOCK_TICKS


def listeners(pids: Iterable[int]) -> list[tuple[str, int]]:
    """Addresses and ports at which these processes accept TCP connections."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found: list[tuple[str, int]] = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] in inodes:
                address, _, number = fields[1].partition(":")
                found.append((kernel_address(address), int(number, 16)))
    return found


def _sockets(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    inodes: set[str] = set()
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return inodes
    for entry in entries:
        # A busy server closes some while they are read.
        with suppress(OSError):
            link = str(entry.readlink())
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    return inodes


def kernel_address(text: str) -> str:
    """An address of /proc/net/tcp{,6}: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[index : index + 8])[::-1] for index in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 16 and raw[:12] == bytes(10) + b"\xff\xff":
        raw = raw[12:]
    if len(raw) == 4:
        return ".".join(map(str, raw))
    return "::1" if raw == bytes(15) + b"\x01" else raw.hex()


def beyond_loopback(pids: Iterable[int]) -> str | None:
    """The first listener that other machines could reach, as `address:port`; None where all is well."""
    for address, number in listeners(pids):
        if not address.startswith("127.") and address != "::1":
            return f"{address}:{number}"
    return None
