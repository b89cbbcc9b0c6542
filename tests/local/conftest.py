"""A state folder of a test's own, and a registry of a module's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import processes
from local.down import of_fleet
from operations.image import cli as image_cli
from toolchain import paths


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    yield tmp_path
    processes.kill_all(of_fleet(tmp_path))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of the pinned one."""
    with image_cli.own_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found
