"""The machine that something is measured on."""

import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Machine:
    cores: int
    memory_gib: float
    system: str
    loads: tuple[float, float, float]
    """Of the last one, five and fifteen minutes."""

    def __str__(self) -> str:
        loads = ", ".join(f"{each:.2f}" for each in self.loads)
        return f"{self.cores} cores, {self.memory_gib:.0f} GiB, {self.system}; load before the drill {loads}"


def here() -> Machine:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return Machine(cores=os.cpu_count() or 1, memory_gib=memory, system=f"{platform.system()} {platform.release()}", loads=os.getloadavg())
