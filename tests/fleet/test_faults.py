"""What is refused before anything starts, and what a run leaves that was cut off in the middle."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.conftest import BROKEN_STACK, BROKEN_STACK_FILE, FOLDER, STACK_FILE, Fleet

# Long enough for a busy machine: the first cluster's processes come some ten seconds after the start.
_FIRST_PROCESSES_S = 90.0


def test_a_wrong_stack_file_is_told_at_once_and_starts_nothing(spare: Fleet) -> None:
    own = FOLDER / "own-backend"
    own.mkdir(exist_ok=True)
    spare.environment.update(PULUMI_BACKEND_URL=f"file://{own}", PULUMI_CONFIG_PASSPHRASE="a word of our own")
    document: dict[str, Any] = yaml.safe_load(STACK_FILE.read_text())
    del document["encryptionsalt"]
    spec = document["config"]["fleet:spec"]
    spec["models"][0]["placement"]["clusters"][1]["name"] = "us-wset"
    spec["models"][1]["accelerator"]["count"] = 3
    spec["models"][2]["repliacs"] = 2
    BROKEN_STACK_FILE.write_text(yaml.safe_dump(document))
    refused = spare.fleet("up", "-s", BROKEN_STACK, check=False)
    assert refused.code == 1, refused.text
    file = f"stacks/{BROKEN_STACK_FILE.name}"
    assert f"{file}: models[0].placement.clusters[1].name: no such cluster in `clusters`, got: `us-wset`\n  hint: did you mean `us-west`?\n" in refused.err
    assert f"{file}: models[1].accelerator.count: must divide the model's 64 attention heads, got: `3`\n  hint: " in refused.err
    assert f"{file}: models[2].repliacs: unknown field, got: `repliacs`\n  hint: did you mean `replicas`?\n" in refused.err
    # Not the engine's words about itself.
    assert "Traceback" not in refused.err
    assert "unhandled" not in refused.err
    assert not (spare.state / "clusters").exists()
    assert not spare.processes()
    # The stack is known where the user said, and nowhere else.
    assert [file.stem for file in (own / ".pulumi" / "stacks").rglob("*.json")] == [BROKEN_STACK]
    assert not (spare.state / "pulumi").exists()


def test_a_stack_without_a_backend_of_its_own_is_refused_with_the_two_commands(spare: Fleet) -> None:
    BROKEN_STACK_FILE.write_text(STACK_FILE.read_text())
    spare.environment.update(PULUMI_CREDENTIALS_PATH=str(FOLDER / "nobody"))
    for command in ("up", "status"):
        refused = spare.fleet(command, "-s", BROKEN_STACK, check=False)
        assert refused.code == 1
        assert refused.err.startswith(f"error: stack `{BROKEN_STACK}`: no backend is chosen"), refused.text
        assert "pulumi login" in refused.err
        assert f"pulumi stack init {BROKEN_STACK} --secrets-provider=" in refused.err


def test_a_stack_without_a_file_is_refused_with_those_that_there_are(spare: Fleet) -> None:
    refused = spare.fleet("up", "-s", "nowhere", check=False)
    assert refused.code == 1
    assert refused.err.startswith("error: no stack file for `nowhere`: stacks/Pulumi.nowhere.yaml\nhint: ")
    assert "local" in refused.err.splitlines()[1]


def test_without_a_fleet_status_says_how_to_get_one(spare: Fleet) -> None:
    for command in ("status", "outputs"):
        refused = spare.fleet(command, check=False)
        assert (refused.code, refused.err) == (1, "error: no fleet is up in spare/\nhint: make up\n")


def _mentioning(state: Path) -> list[str]:
    """Command lines of processes that know the folder, by whatever variable: more than `make down` goes by."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(state) in (entry / "environ").read_bytes():
                found.append(f"{entry.name} {(entry / 'cmdline').read_text().replace(chr(0), ' ')[:200]}")
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_down_removes_all_of_a_run_that_was_cut_off(spare: Fleet, how: signal.Signals) -> None:
    with spare.begin("up") as up:
        deadline = time.monotonic() + _FIRST_PROCESSES_S
        while len(spare.processes()) < 8 and up.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert up.poll() is None
        if how is signal.SIGINT:
            # As a terminal does it: every process of the group.
            os.killpg(up.pid, how)
            told, _ = up.communicate(timeout=120)
            assert up.returncode == 130, told
            assert "re-run `make up` to resume, `make down` removes everything" in told
            assert "Traceback" not in told
        else:
            # The run alone: its engine lives on, as an orphan that still makes clusters.
            up.kill()
            up.wait(10)
    done = spare.down()
    assert done.out.startswith("stopped "), done.text
    assert not spare.state.exists()
    assert not _mentioning(spare.state)
    assert spare.down().out == "nothing to stop\n"
