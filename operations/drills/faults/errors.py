"""Why a fault cannot be made or undone, and the types that faults share."""

from collections.abc import Callable
from typing import Any

from core.errors import FleetError

Step = dict[str, Any]
"""One entry of the journal, as JSON: `undo` names how, the rest says what."""
Say = Callable[[str], None]
Mark = Callable[[str], None]
"""Notes a moment of the drill by its name."""


class FaultError(FleetError):
    """A fault cannot be made here, or not be undone. The message says why."""
