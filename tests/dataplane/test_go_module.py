"""The Go modules by their own tools: their tests, their formatter, their checks."""

import subprocess
from pathlib import Path

import pytest

from toolchain import golang
from toolchain.catalogue import FAILBACK_FAMILY, OWN_FAMILY

pytestmark = pytest.mark.parametrize("family", [OWN_FAMILY, FAILBACK_FAMILY])


def _go(family: str, *arguments: str) -> str:
    command = [golang.compiler(), *arguments]
    done = subprocess.run(
        command, cwd=golang.module(family), env=golang.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_its_own_tests_pass(family: str) -> None:
    _go(family, "test", "./...")


def test_nothing_in_it_is_suspicious(family: str) -> None:
    _go(family, "vet", "./...")


def test_it_is_formatted(family: str) -> None:
    gofmt = Path(_go(family, "env", "GOROOT").strip()) / "bin" / "gofmt"
    done = subprocess.run([gofmt, "-l", "."], cwd=golang.module(family), capture_output=True, text=True, check=True)
    assert done.stdout == "", "run gofmt -w"
