"""`fleet preview-change`: every environment that a change may touch, before and after it, each by its own program."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import FleetError
from operations import stack_file
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
    _commit(head, "stacks/Pulumi.local.yaml")
    _commit(head, "stacks/examples/Pulumi.old.yaml")
    _git(head, "worktree", "add", str(base), "HEAD")
    _commit(head, "stacks/Pulumi.prod.yaml")
    _program(head)
    _program(base)
    monkeypatch.setattr(cli.paths, "REPO", head)
    monkeypatch.setenv("FLEET_STATE", "ours")
    return head, base


def _run(base: Path, folder: Path) -> None:
    cli.change(argparse.Namespace(base=base, folder=folder))


def _written(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name != "environments.json")


def _said(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    cli.comment(argparse.Namespace(folder=folder, run_url="", post=None))
    return capsys.readouterr().out


def test_a_changed_environment_is_previewed_before_and_after(clones: tuple[Path, Path], tmp_path: Path) -> None:
    _run(clones[1], tmp_path / "out")
    assert _written(tmp_path / "out") == ["prod.base.json", "prod.head.json"]
    head = json.loads((tmp_path / "out" / "prod.head.json").read_text())
    # The head is told of the base, and neither uses the state of the one that asks.
    assert head["spec"] == {"base": str(tmp_path / "out" / "prod.base.json"), "state": None}


def test_a_base_without_the_command_is_no_failure(clones: tuple[Path, Path], tmp_path: Path) -> None:
    (clones[1] / ".venv" / "bin" / "fleet").write_text(f"#!{sys.executable}\nraise SystemExit(2)\n")
    _run(clones[1], tmp_path / "out")
    assert _written(tmp_path / "out") == ["prod.head.json"]


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


def test_an_environment_that_is_removed_or_renamed_is_told(clones: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _git(clones[0], "mv", "stacks/examples/Pulumi.old.yaml", "stacks/Pulumi.new.yaml")
    _git(clones[0], "commit", "-m", "rename")
    _run(clones[1], tmp_path / "out")
    assert _written(tmp_path / "out") == ["new.base.json", "new.head.json", "old.base.json", "prod.base.json", "prod.head.json"]
    said = _said(tmp_path / "out", capsys)
    assert "| old | gone |" in said
    assert "Its stack file is gone; it declared 0 resources." in said


@pytest.mark.parametrize("name", ["prod.eu", "größe", "--help", "a b", "$(touch x)", "`x`|y", "<b>@team"])
def test_an_odd_name_of_an_environment_is_a_name(clones: tuple[Path, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _commit(clones[0], f"stacks/Pulumi.{name}.yaml")
    _run(clones[1], tmp_path / "out")
    assert json.loads((tmp_path / "out" / f"{name}.head.json").read_text())["stack"] == name
    said = _said(tmp_path / "out", capsys)
    assert "❌" not in said
    assert "<b>" not in said
    assert "@team" not in said
    assert "| `x`|y |" not in said


def test_what_the_planner_chose_is_part_of_its_environment(clones: tuple[Path, Path], tmp_path: Path) -> None:
    _commit(clones[0], "stacks/choices.local.yaml")
    _run(clones[1], tmp_path / "out")
    assert (tmp_path / "out" / "local.head.json").exists()


def test_a_program_that_ends_without_a_word_is_refused_and_told(clones: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clones[0] / ".venv" / "bin" / "fleet").write_text(f"#!{sys.executable}\nraise SystemExit('error: no such thing')\n")
    with pytest.raises(FleetError, match="refused: prod"):
        _run(clones[1], tmp_path / "out")
    said = _said(tmp_path / "out", capsys)
    assert "| prod | ❌ no preview |" in said
    assert "error: no such thing" in said


def test_a_base_of_another_form_is_not_compared(clones: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = clones[1] / "preview.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "form": 99}))
    _run(clones[1], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "prod.head.json").read_text())["spec"]["base"] is None
    assert "It is not known what was declared before." in _said(tmp_path / "out", capsys)


def test_a_run_that_failed_before_the_previews_does_not_pass_for_one_that_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(tmp_path, capsys)
    assert "Fleet preview: failed" in said
    assert "touches no environment" not in said


def test_files_of_an_earlier_run_are_not_taken_for_this_one(clones: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(clones[1], tmp_path / "out")
    (tmp_path / "out" / "local.head.json").write_text((tmp_path / "out" / "prod.head.json").read_text())
    (clones[1] / ".venv" / "bin" / "fleet").write_text(f"#!{sys.executable}\nraise SystemExit(2)\n")
    _run(clones[1], tmp_path / "out")
    assert not (tmp_path / "out" / "prod.base.json").exists()
    assert "### local" not in _said(tmp_path / "out", capsys)


@pytest.mark.parametrize("written", ["x", "[]", '{"touched": 5, "gone": []}', '{"touched": []}'])
def test_a_folder_of_something_else_is_named(tmp_path: Path, written: str) -> None:
    (tmp_path / "environments.json").write_text(written)
    with pytest.raises(FleetError, match="was not written by `fleet preview-change`"):
        cli.comment(argparse.Namespace(folder=tmp_path, run_url="", post=None))


def test_a_preview_is_not_compared_with_one_of_another_environment(tmp_path: Path) -> None:
    Preview(stack="prod-europe", spec={}).write(tmp_path / "base.json")
    with pytest.raises(FleetError, match="is a preview of `prod-europe`, not of `prod-americas`"):
        cli.preview(argparse.Namespace(stack="prod-americas", base=tmp_path / "base.json", json=None))


def test_a_preview_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FleetError, match=r"cannot be written: .*/file/base\.json: "):
        Preview(stack="prod", spec={}).write(tmp_path / "file" / "base.json")


@pytest.mark.parametrize("written", ["config: {}", "config: {fleet:spec: [1]}", "- 1", "{"])
def test_a_file_that_is_no_stack_file_is_named(tmp_path: Path, written: str) -> None:
    file = tmp_path / "Pulumi.odd.yaml"
    file.write_text(written)
    with pytest.raises(FleetError, match=f"{file}: "):
        stack_file.read_spec(file)
