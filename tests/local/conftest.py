"""A state folder of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import processes
from local.down import of_fleet
from toolchain import paths


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    yield tmp_path
    processes.kill_all(of_fleet(tmp_path))
