"""One host process of a cluster, as data: what to start, after what, and when it counts as ready.

Frozen dataclasses rather than pydantic models: no person writes them, and the supervisor that reads them stays resident
once per cluster; with the standard library alone it takes a third of the memory and starts in a fifth of the time.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

# A unit's name is also the name of its files.
NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?$")


@dataclass(frozen=True, kw_only=True)
class HttpReady:
    """Ready when a GET of `url` answers with status `expect`.

    `ca` is a PEM file that signed the server's certificate; `insecure` takes any certificate instead. `cert` and `key`
    are PEM files of a client certificate.
    """

    url: str
    expect: int = 200
    ca: str | None = None
    insecure: bool = False
    cert: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"ready.url must start with http:// or https://, got: `{self.url}`")
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, str(value))

    @property
    def what(self) -> str:
        return f"{self.url} to answer {self.expect}"


@dataclass(frozen=True, kw_only=True)
class TcpReady:
    """Ready when a TCP connection to `host`:`port` opens."""

    host: str
    port: int

    @property
    def what(self) -> str:
        return f"{self.host}:{self.port} to accept connections"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A process that the cluster's supervisor starts and keeps running.

    argv: argv[0] is an absolute path, or is looked up on PATH.
    env: added to a small base (PATH, HOME, locale, FLEET_*); what else the caller's environment holds, secrets
        included, does not reach it. TMPDIR is the unit's own folder.
    cwd: the unit's own tmp folder where None.
    after: units that must be ready before each start of this one.
    ready: None means ready as soon as it runs. Asked until the first good answer, not again before a restart.
    restart: start again when it exits, with pauses from 0.5 s doubling to 10 s.
    stop_timeout_s: seconds between SIGTERM and SIGKILL.
    gives_way: processors go to others first. For control planes: in a fleet they compute on machines of their own, and here
        they should not slow down what serves.
    Whatever the process started and left behind is killed before it is started again.
    """

    name: str
    argv: Sequence[str]
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    after: Sequence[str] = ()
    ready: HttpReady | TcpReady | None = None
    restart: bool = True
    stop_timeout_s: float = 5.0
    gives_way: bool = False

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise ValueError(f"unit name must be lower-case letters, digits, `-` and `.`, got: `{self.name}`")
        if not self.argv:
            raise ValueError(f"unit {self.name}: argv must name a program, got: `[]`")
        object.__setattr__(self, "argv", tuple(str(part) for part in self.argv))
        object.__setattr__(self, "after", tuple(self.after))
        object.__setattr__(self, "env", {str(key): str(value) for key, value in self.env.items()})
        object.__setattr__(self, "cwd", None if self.cwd is None else str(self.cwd))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError where `text` is not what to_json wrote."""
        data: dict[str, Any] = json.loads(text)
        ready = data.pop("ready", None)
        if ready is not None:
            ready = HttpReady(**ready) if "url" in ready else TcpReady(**ready)
        return cls(**data, ready=ready)

    @property
    def digest(self) -> str:
        """Changes when the definition does. A status that carries another digest is about an earlier definition."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class UnitStatus:
    """What the supervisor last saw of a unit.

    pid: None while it does not run. exit_code: of the last run, negative for the signal that ended it, None before the
    first exit. started_at: seconds since the epoch. waiting_for: units that are not ready yet.
    """

    name: str
    digest: str = ""
    pid: int | None = None
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    started_at: float | None = None
    waiting_for: Sequence[str] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


def read_units(folder: Path) -> dict[str, Unit]:
    """All units defined in a cluster's units/ folder, by name. Raises ValueError naming a file that cannot be read."""
    units: dict[str, Unit] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            unit = Unit.from_json(path.read_text())
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: is not a unit: {error}") from None
        units[unit.name] = unit
    return units


def ordered(units: dict[str, Unit]) -> list[Unit]:
    """Units so that each comes behind those it starts after. Members of a circle come last, by name."""
    done: dict[str, Unit] = {}
    left = dict(sorted(units.items()))
    while left:
        free = [unit for unit in left.values() if not any(name in left for name in unit.after)]
        for unit in free or list(left.values()):
            done[unit.name] = left.pop(unit.name)
    return list(done.values())
