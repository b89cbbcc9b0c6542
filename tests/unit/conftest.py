"""A registry of the test's own, which nobody is logged in to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.registries import Fake, serving


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def address(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with serving(fake) as found:
        yield found
