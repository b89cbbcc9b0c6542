"""Progress of a long command: stages with elapsed time, for a terminal and for a log alike."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Prints to stderr, so that stdout stays the command's result."""

    started: float = field(default_factory=time.monotonic)
    stages: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def say(self, text: str) -> None:
        elapsed = time.monotonic() - self.started
        print(f"[{elapsed:6.1f}s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Names what is being done; its seconds are kept for `make bench-up`, also when it fails."""
        begun = time.monotonic()
        self.say(name)
        try:
            yield
        finally:
            self.stages.append((name, time.monotonic() - begun))
