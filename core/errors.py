"""Errors that a person reads."""


class FleetError(Exception):
    """Ends a command with exit code 1. Shown as `error: …` and, where there is one, `hint: …`; never as a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
