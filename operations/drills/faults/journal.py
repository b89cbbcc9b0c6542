"""What is left to undo of a drill, in a file that is written before anything is touched.

So whatever ends a drill, a SIGKILL too, the next `fleet drill` or `fleet up` undoes what is left.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from core.files import write_atomically
from kube.client import KubeError
from local.host_cluster import UnitError
from operations.drills.faults import undo
from operations.drills.faults.errors import FaultError, Say, Step
from toolchain import paths


class Journal:
    """What is left to undo, oldest first."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or paths.STATE / "drill" / "undo.json"

    def steps(self) -> list[Step]:
        try:
            return json.loads(self.path.read_text())
        except FileNotFoundError:
            return []

    def note(self, *steps: Step) -> None:
        """Before the first of what they undo is done."""
        self._write([*self.steps(), *(step for step in steps if step not in self.steps())])

    def undo(self, steps: Sequence[Step] | None = None, say: Say = lambda _: None) -> None:
        """Undoes these steps, all without, the newest first. What cannot be undone stays noted: then FaultError says what."""
        failed: list[str] = []
        for step in reversed(self.steps() if steps is None else list(steps)):
            try:
                if told := undo.UNDO[step["undo"]](step):
                    say(told)
            except (OSError, KubeError, UnitError, FaultError, TimeoutError, subprocess.SubprocessError) as error:
                failed.append(f"{_subject(step)}: {error}")
                continue
            self._write([each for each in self.steps() if each != step])
        if failed:
            error = FaultError("failed to undo the faults of a drill:\n" + "\n".join(failed))
            error.hint = f"`make up` tries again; what is left is in {self.path}"
            raise error

    def _write(self, steps: Sequence[Step]) -> None:
        if not steps:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps(steps, indent=1))


def _subject(step: Step) -> str:
    return " ".join(str(step[key]) for key in ("undo", "cluster", "unit", "path") if key in step and not isinstance(step[key], dict))


def heal_left_over(say: Say) -> None:
    """Undoes what an interrupted drill left. Whoever calls holds the fleet's lock. Raises FaultError."""
    journal = Journal()
    if steps := journal.steps():
        say(f"an interrupted drill left {len(steps)} faults to undo")
        journal.undo(say=lambda told: say(f"  {told}"))
