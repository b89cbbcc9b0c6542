"""`make down` and `fleet down`: what they remove, what they leave alone, and what they refuse. No engine runs here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain import paths


def write(file: Path, text: str = "{}") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder as a fleet leaves it."""
    folder = tmp_path / "state"
    write(folder / "clusters" / "us-east" / "kubeconfig")
    write(folder / "stack", "local")
    for file in ("stacks/fleet/local.json", "stacks/fleet/local.json.bak", "history/fleet/local/local-1.json", "locks/organization/fleet/local/1.json"):
        write(folder / "pulumi" / ".pulumi" / file)
    return folder


def run(state: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "FLEET_"))}
    variables = {**bare, "HOME": str(state.parent / "home"), "FLEET_STATE": str(state), **environment}
    return subprocess.run(command, cwd=paths.REPO, env=variables, capture_output=True, text=True, check=False)


def down(state: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    # Without the virtual environment's packages: it has to work when that is broken.
    return run(state, sys.executable, "-S", "-m", "local.down", **environment)


def test_it_removes_the_folder_and_says_so(state: Path) -> None:
    done = down(state)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped 0 processes, removed state/\n", "")
    assert not state.exists()
    assert down(state).stdout == "nothing to stop\n"


def test_a_stack_that_an_earlier_version_put_there_is_left_alone_and_named(state: Path) -> None:
    kept = [write(state / "pulumi" / ".pulumi" / each) for each in ("stacks/fleet/prod.json", "history/fleet/prod/prod-1.json", "meta.yaml")]
    done = down(state)
    assert done.returncode == 0, done.stderr
    assert f"left alone: stack prod: its state is in {state}/pulumi; docs/state.md says how to move it" in done.stdout
    assert all(each.exists() for each in kept)
    left = {str(file.relative_to(state)) for file in state.rglob("*") if file.is_file()}
    assert left == {str(each.relative_to(state)) for each in kept}, "everything of the stack local is gone"


def test_the_state_of_a_stack_whose_clusters_ran_here_is_named(state: Path) -> None:
    (state / "stack").write_text("dev")
    assert "left alone: the state of stack dev: its clusters that ran here are gone; `pulumi destroy -s dev`" in down(state).stdout


@pytest.mark.parametrize("how", ["environment", "login", "found"])
def test_a_backend_of_the_users_below_the_folder_is_refused_before_anything_is_touched(state: Path, how: str) -> None:
    mine = write(state / "mine" / ("deep" if how != "found" else "") / ".pulumi" / "stacks" / "fleet" / "prod.json")
    folder = mine.parents[3]
    environment: dict[str, str] = {}
    if how == "environment":
        environment["PULUMI_BACKEND_URL"] = f"file://{folder}"
    if how == "login":
        write(state.parent / "home" / ".pulumi" / "credentials.json", json.dumps({"current": "s3://x", "accounts": {f"file://{folder}": {}}}))
    done = down(state, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {folder} is a Pulumi backend of yours")
    assert "nothing was stopped or removed" in done.stderr
    assert mine.exists()
    assert (state / "clusters").exists()


def test_a_folder_that_holds_the_clone_or_the_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for folder in (paths.REPO, paths.REPO.parent):
        refused = run(folder, sys.executable, "-S", "-m", "local.down", HOME=str(tmp_path / "state" / "home"))
        assert (refused.returncode, refused.stderr.split("\n")[0]) == (1, f"error: FLEET_STATE: must not hold this clone, got: `{folder.resolve()}`")
    refused = down(tmp_path / "state", HOME=str(tmp_path / "state" / "home"))
    assert "must not hold your home folder" in refused.stderr
    assert (tmp_path / "state").exists()


def test_fleet_down_is_the_same_and_leaves_another_stack_to_pulumi(state: Path) -> None:
    fleet = str(Path(sys.executable).with_name("fleet"))
    refused = run(state, fleet, "down", "-s", "prod")
    assert refused.returncode == 1
    assert refused.stderr == "error: stack `prod`: `fleet down` removes what runs on this machine, and nothing else\nhint: pulumi destroy -s prod\n"
    assert state.exists()
    assert run(state, fleet, "down").stdout == "stopped 0 processes, removed state/\n"
    assert not state.exists()
