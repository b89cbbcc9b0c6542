"""A fault: what makes it, how long it lasts, what undoes it. The faults themselves are one module per cluster driver."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from local.host_cluster import HostCluster
from operations.drills.faults.errors import Mark, Say, Step
from operations.drills.faults.journal import Journal


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a fault is made of."""

    journal: Journal
    victim: HostCluster
    members: tuple[HostCluster, ...]
    """Every cluster with a front door."""
    serving: tuple[HostCluster, ...]
    """Those that serve the model."""
    hub: HostCluster
    model: str
    """The model whose engines may be frozen, empty where mock engines serve it."""


class Fault(ABC):
    """One fault: `prepare` before the moment counts, `inject`, then `last` until `heal` undoes it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.noted: list[Step] = []

    @abstractmethod
    def steps(self) -> list[Step]:
        """What undoes it; undone from the last to the first."""

    @abstractmethod
    def act(self) -> None: ...

    def prepare(self, mark: Mark) -> None:
        """What takes time and harms no request. Raises FaultError where the fault cannot be made."""
        del mark

    def inject(self) -> None:
        self.noted = self.steps()
        self.journal.note(*self.noted)
        self.act()

    def last(self, seconds: float, mark: Mark) -> None:
        """Lets the fault last."""
        del mark
        time.sleep(max(0.0, seconds))

    def heal(self, say: Say = lambda _: None) -> None:
        """May be called again and again."""
        self.journal.undo(self.noted, say)
