"""Which of the engine's remarks people are shown during `fleet up`."""

import pytest
from pulumi.automation import events

from core.progress import Progress
from operations.stack import Printer

MODEL = "urn:pulumi:prod::fleet::kubernetes:serving.kserve.io/v1beta1:InferenceService::tiny-chat"


def told(severity: str, message: str) -> Printer:
    printer = Printer("prod", Progress())
    diagnostic = events.DiagnosticEvent(message=message, color="never", severity=severity, urn=MODEL)
    printer(events.EngineEvent(sequence=1, timestamp=0, diagnostic_event=diagnostic))
    return printer


def test_a_model_that_no_controller_has_looked_at_yet_is_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    printer = told("warning", "Has no .status.conditions\n")
    assert (capsys.readouterr().err, printer.failures) == ("", [])


def test_every_other_warning_is_told_with_its_resource(capsys: pytest.CaptureFixture[str]) -> None:
    told("warning", "something else")
    assert "warning: tiny-chat: something else" in capsys.readouterr().err


def test_a_wait_that_ends_so_is_an_error() -> None:
    assert told("error", "timed out: Has no .status.conditions").failures == ["tiny-chat: timed out: Has no .status.conditions"]
