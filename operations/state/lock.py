"""Who holds the lock of a stack. Pulumi's backends lock a stack for each update; a killed update leaves its lock in a file backend."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import FleetError

PAGE = "docs/runbooks/locked-stack.md"
# As the CLI lists them: backend/diy/lock.go.
_HOLDER = re.compile(r"created by (?P<user>[^@\s]*)@(?P<host>\S+) \(pid (?P<pid>\d+)\) at (?P<since>\S+)")


@dataclass(frozen=True)
class Lock:
    """One lock: who took it, where and when."""

    user: str
    host: str
    pid: int
    since: str

    @property
    def orphaned(self) -> bool:
        """Whether its process ran on this machine and is gone."""
        return self.host == socket.gethostname() and not _is_engine(self.pid)

    def __str__(self) -> str:
        gone = ", which no longer runs" if self.orphaned else ""
        return f"{self.user}@{self.host} (process {self.pid}{gone}) since {self.since}"


def holders(text: str) -> list[Lock]:
    """Those that an error of the CLI names. Pulumi Cloud names none."""
    return [Lock(each["user"], each["host"], int(each["pid"]), each["since"]) for each in _HOLDER.finditer(text)]


def described(text: str) -> str:
    return ", ".join(map(str, holders(text))) or "another update in the backend"


def refusal(stack: str, text: str) -> FleetError:
    shown = "" if holders(text) else f"`pulumi stack -s {stack}` shows it. "
    return FleetError(
        f"stack `{stack}` is locked by {described(text)}; nothing was changed",
        hint=f"{shown}Wait until it ends. If it is dead: fleet up -s {stack} --break-lock ({PAGE})",
    )


def clear_orphaned(backend: Path, stack: str, say: Callable[[str], None]) -> None:
    """Removes the locks that killed updates of this machine left in its own file backend. Those of living processes stay."""
    for file in sorted((backend / ".pulumi" / "locks").glob(f"**/{stack}/*.json")):
        lock = _read(file)
        if lock is None or lock.orphaned:
            file.unlink(missing_ok=True)
            say(f"  lock of a killed update removed: {lock or 'unreadable'}")


def _read(file: Path) -> Lock | None:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        return Lock(str(read["username"]), str(read["hostname"]), int(read["pid"]), str(read["timestamp"]))
    except (OSError, ValueError, KeyError, TypeError):
        # Cut off while it was written.
        return None


def _is_engine(pid: int) -> bool:
    """Whether the process is a Pulumi CLI: the id may be another program's by now."""
    try:
        return b"pulumi" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
