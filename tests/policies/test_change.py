"""`fleet preview-change`: every environment that a change may touch, before and after it, each by its own program."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from operations import stack_file
from operations.errors import FleetError
from operations.preview import cli
from operations.preview.result import Preview

# Stands for `fleet` of a commit: it declares what lies in `declares`, is refused where `refused` lies, and knows no `plan`.
_FLEET = """#!{python}
import argparse, json, os, sys
from pathlib import Path
if sys.argv[1] != "preview":
    sys.exit(2)
parser = argparse.ArgumentParser()
parser.add_argument("command")
for name in ("--stack", "--json", "--base"):
    parser.add_argument(name)
given = parser.parse_args()
told = json.loads(Path("preview.json").read_text())
told["stack"] = given.stack
told["spec"] = {{"base": given.base, "state": os.environ.get("FLEET_STATE")}}
Path(given.json).write_text(json.dumps(told))
sys.exit(Path("refused").exists())
"""


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.com", *arguments], check=True, capture_output=True)


def _commit(clone: Path, file: str) -> None:
    (clone / file).parent.mkdir(parents=True, exist_ok=True)
    (clone / file).write_text("changed")
    _git(clone, "add", "-A")
    _git(clone, "commit", "-m", file)


def _program(clone: Path) -> None:
    fleet = clone / ".venv" / "bin" / "fleet"
    fleet.parent.mkdir(parents=True)
    fleet.write_text(_FLEET.format(python=sys.executable))
    fleet.chmod(0o755)
    Preview(stack="", spec={}).write(clone / "preview.json")


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A clone with a change, and a worktree of the commit before."""
    head, base = tmp_path / "head", tmp_path / "base"
    head.mkdir()
    _git(head, "init")
    (head / ".gitignore").write_text(".venv/\npreview.json\nrefused\n")
    _commit(head, "README.md")
    _git(head, "worktree", "add", str(base), "HEAD")
    _commit(head, "stacks/Pulumi.prod.yaml")
    _program(head)
    _program(base)
    monkeypatch.setattr(cli.paths, "REPO", head)
    monkeypatch.setattr(cli.stack_file, "stacks", lambda: ["local", "prod"])
    monkeypatch.setenv("FLEET_STATE", "ours")
    return head, base


def _run(base: Path, folder: Path) -> None:
    cli.change(argparse.Namespace(base=base, folder=folder))


def test_a_changed_environment_is_previewed_before_and_after(clones: tuple[Path, Path], tmp_path: Path) -> None:
    _run(clones[1], tmp_path / "out")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["prod.base.json", "prod.head.json"]
    head = json.loads((tmp_path / "out" / "prod.head.json").read_text())
    # The head is told of the base, and neither uses the state of the one that asks.
    assert head["spec"] == {"base": str(tmp_path / "out" / "prod.base.json"), "state": None}


def test_a_base_without_the_command_is_no_failure(clones: tuple[Path, Path], tmp_path: Path) -> None:
    (clones[1] / ".venv" / "bin" / "fleet").write_text(f"#!{sys.executable}\nraise SystemExit(2)\n")
    _run(clones[1], tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["prod.head.json"]


def test_a_refusal_fails_after_all_were_written(clones: tuple[Path, Path], tmp_path: Path) -> None:
    (clones[0] / "refused").touch()
    with pytest.raises(FleetError, match="refused: prod"):
        _run(clones[1], tmp_path / "out")
    assert (tmp_path / "out" / "prod.head.json").exists()


def test_a_refusal_before_the_change_is_not_this_changes(clones: tuple[Path, Path], tmp_path: Path) -> None:
    (clones[1] / "refused").touch()
    _run(clones[1], tmp_path / "out")


def test_a_base_that_was_not_set_up_says_what_to_do(clones: tuple[Path, Path], tmp_path: Path) -> None:
    (clones[1] / ".venv" / "bin" / "fleet").unlink()
    with pytest.raises(FleetError, match="cannot be started") as refused:
        _run(clones[1], tmp_path / "out")
    assert refused.value.hint == f"make -C {clones[1]} setup"


@pytest.mark.parametrize("written", ["config: {}", "config: {fleet:spec: [1]}", "- 1", "{"])
def test_a_file_that_is_no_stack_file_is_named(tmp_path: Path, written: str) -> None:
    file = tmp_path / "Pulumi.odd.yaml"
    file.write_text(written)
    with pytest.raises(FleetError, match=f"{file}: "):
        stack_file.read_spec(file)
