"""The settings of a shell, and what they point at."""

import shlex
import subprocess
from pathlib import Path

import pytest

from toolchain import env, paths, tools


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path / "a state's folder")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")


def test_a_prepared_shell_prepared_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    once = env.variables()
    monkeypatch.setenv("PATH", once["PATH"])
    assert env.variables() == once
    assert once["PATH"].split(":")[:2] == [str(paths.REPO / ".venv" / "bin"), str(tools.bin_dir())]


def test_two_clones_do_not_share_a_pulumi_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = env.pulumi_home()
    monkeypatch.setattr(paths, "REPO", tmp_path / "other")
    assert env.pulumi_home() != first, "offline plugins hold the path of their clone"


def test_the_state_is_for_its_owner_only_and_made_once() -> None:
    paths.STATE.mkdir(mode=0o755)
    env.prepare()
    passphrase = paths.STATE / "passphrase"
    assert [file.stat().st_mode & 0o777 for file in (paths.STATE, paths.STATE / "pulumi", passphrase)] == [0o700, 0o700, 0o600]
    passphrase.write_text("own")
    env.prepare()
    assert passphrase.read_text() == "own", "a passphrase that encrypts state already must stay"


def test_a_shell_reads_the_lines_back(capsys: pytest.CaptureFixture[str]) -> None:
    env.main()
    script = capsys.readouterr().out + 'printf %s "$PULUMI_BACKEND_URL"\n'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"file://{paths.STATE / 'pulumi'}"
    assert shlex.split(script)[0] == "export"
