"""The Go module by its own tools: its tests, its formatter, its checks."""

import subprocess
from pathlib import Path

from toolchain import golang
from toolchain.catalogue import OWN_FAMILY

_MODULE = golang.module(OWN_FAMILY)


def _go(*arguments: str) -> str:
    command = [golang.compiler(), *arguments]
    done = subprocess.run(command, cwd=_MODULE, env=golang.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_its_own_tests_pass() -> None:
    _go("test", "./...")


def test_nothing_in_it_is_suspicious() -> None:
    _go("vet", "./...")


def test_it_is_formatted() -> None:
    gofmt = Path(_go("env", "GOROOT").strip()) / "bin" / "gofmt"
    done = subprocess.run([gofmt, "-l", "."], cwd=_MODULE, capture_output=True, text=True, check=True)
    assert done.stdout == "", "run gofmt -w"
