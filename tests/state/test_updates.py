"""Where the real engine puts state, and what happens where it cannot: locks, lost backends, wrong passphrases, killed updates."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import FleetError
from operations import stack
from tests.conftest import wait_until
from tests.state.conftest import PASSPHRASE, up
from toolchain import env, tools

pytestmark = pytest.mark.integration

HERE = socket.gethostname()


def checkpoint(backend: Path, name: str) -> Path:
    return backend / ".pulumi" / "stacks" / "fleet" / f"{name}.json"


def lock(backend: Path, name: str, **holder: Any) -> Path:
    """The lock of an update, as the engine writes it."""
    file = backend / ".pulumi" / "locks" / "organization" / "fleet" / name / "0f0f.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pid": 4711, "username": "alice", "hostname": "build-7", "timestamp": "2026-11-30T21:04:05.123456789Z", **holder}))
    return file


def interrupt(backend: Path, name: str) -> None:
    """As a killed update leaves the state: an operation was begun, and nothing says how it ended."""
    file = checkpoint(backend, name)
    state = json.loads(file.read_text())
    resource = {"urn": f"urn:pulumi:{name}::fleet::command:local:Command::us-east-cluster", "custom": True, "type": "command:local:Command"}
    state["checkpoint"]["latest"]["pending_operations"] = [{"resource": resource, "type": "creating"}]
    file.write_text(json.dumps(state))


def marks(backend: Path, name: str) -> list[Any]:
    return json.loads(checkpoint(backend, name).read_text())["checkpoint"]["latest"].get("pending_operations") or []


def gone() -> int:
    """The id of a process that ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    return ended.pid


class TestWhereStateGoes:
    def test_the_backend_and_the_passphrase_are_the_users(self, clone: Path, own: Path) -> None:
        up("prod")
        state = checkpoint(own, "prod").read_text()
        assert json.loads(state)["checkpoint"]["latest"]["secrets_providers"]["type"] == "passphrase"
        assert "hidden" not in state
        assert {key: value.value for key, value in stack.deployed("prod").items()} == {"secret": "hidden", "answer": 42}
        assert not (clone / ".fleet").exists(), "nothing of this stack belongs to this machine"

    def test_it_is_still_there_after_make_down(self, clone: Path, prod: Path, local: Path) -> None:
        assert checkpoint(local, "local").exists(), "brought up beside it: local keeps to its own, whatever the shell says"
        before = checkpoint(prod, "prod").read_bytes()
        repo = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-m", "local.down"], cwd=repo, env={**os.environ, "FLEET_STATE": str(clone / ".fleet")}, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("stopped 0 processes, removed .fleet/"), done.stdout
        assert checkpoint(prod, "prod").read_bytes() == before
        assert stack.deployed("prod")["answer"].value == 42

    def test_pulumi_login_is_heard(self, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "by login"
        folder.mkdir()
        subprocess.run(
            [tools.path("pulumi"), "login", f"file://{folder}"], env={**os.environ, "PULUMI_HOME": str(tmp_path / "unused")}, check=True, capture_output=True
        )
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
        up("prod")
        assert checkpoint(folder, "prod").exists()
        assert env.of_stack("prod")["PULUMI_CREDENTIALS_PATH"] == str(tmp_path / "login")

    def test_looking_makes_nothing(self, clone: Path, own: Path) -> None:
        with pytest.raises(FleetError, match="stack `prod` has nothing deployed in file://"):
            stack.deployed("prod")
        assert stack.deployed_or_nothing("prod") == {}
        assert not checkpoint(own, "prod").exists()


class TestLocks:
    def test_a_lock_of_another_is_told_with_who_and_since_when_and_stays(self, prod: Path) -> None:
        file = lock(prod, "prod")
        before = checkpoint(prod, "prod").read_bytes()
        with pytest.raises(
            FleetError, match=r"stack `prod` is locked by alice@build-7 \(process 4711\) since 2026-11-30T21:04:05Z; nothing was changed"
        ) as refused:
            up("prod")
        assert "fleet up -s prod --break-lock" in refused.value.hint
        assert file.exists()
        assert checkpoint(prod, "prod").read_bytes() == before

    def test_break_lock_is_the_way_past_it_and_says_whose_it_was(self, prod: Path) -> None:
        file = lock(prod, "prod")
        said = up("prod", break_lock=True)
        assert said[0].startswith("  lock broken: alice@build-7 (process 4711) since 2026-11-30")
        assert not file.exists()

    def test_break_lock_without_a_lock_breaks_nothing(self, prod: Path) -> None:
        assert not any("lock" in line for line in up("prod", break_lock=True))

    def test_even_a_dead_lock_of_this_machine_stays_where_the_backend_is_the_users(self, prod: Path) -> None:
        file = lock(prod, "prod", hostname=HERE, pid=gone())
        with pytest.raises(FleetError, match="which no longer runs"):
            up("prod")
        assert file.exists()

    def test_a_killed_update_of_local_goes_on_by_itself(self, local: Path) -> None:
        file, torn = lock(local, "local", hostname=HERE, username="me", pid=gone()), local / ".pulumi/locks/organization/fleet/local/torn.json"
        torn.write_text("")
        interrupt(local, "local")
        said = up("local")
        assert any(line.startswith("  lock of a killed update removed: me@") for line in said), said
        assert "  an earlier run was interrupted; done again: creating us-east-cluster" in said
        assert not file.exists()
        assert not torn.exists()
        assert marks(local, "local") == []

    def test_a_living_update_of_local_is_left_to_end(self, local: Path) -> None:
        with subprocess.Popen(["pulumi up", "60"], executable="/bin/sleep") as other:
            try:
                file = lock(local, "local", hostname=HERE, username="me", pid=other.pid)
                with pytest.raises(FleetError, match=rf"stack `local` is locked by me@{HERE} \(process {other.pid}\) since"):
                    up("local")
                assert file.exists()
            finally:
                other.kill()

    def test_a_process_of_another_program_under_the_same_id_is_not_taken_for_it(self, local: Path) -> None:
        file = lock(local, "local", hostname=HERE, pid=os.getpid())
        up("local")
        assert not file.exists()


class TestKilledUpdates:
    def test_marks_of_another_stack_stay_until_a_person_has_looked(self, prod: Path) -> None:
        interrupt(prod, "prod")
        said = up("prod")
        assert "  warning: an earlier update was cut off while creating us-east-cluster; `pulumi refresh -s prod` in a terminal" in "\n".join(said)
        assert len(marks(prod, "prod")) == 1, "no update edits what another left"
        assert stack.deployed("prod")["answer"].value == 42, "and it goes on"


class TestBadInput:
    def test_a_backend_that_is_away_is_named_and_comes_back_with_its_state(self, prod: Path) -> None:
        prod.rename(prod.with_name("away"))
        for action in (lambda: up("prod"), lambda: stack.deployed("prod"), lambda: stack.deployed_or_nothing("prod")):
            with pytest.raises(
                FleetError, match=rf"stack `prod`: its backend file://{prod} \(chosen by PULUMI_BACKEND_URL\) does not answer:\n.*no such file"
            ) as told:
                action()
            assert "nothing was changed" in told.value.hint
        prod.with_name("away").rename(prod)
        up("prod")

    # The engine tries for half a minute to save.
    def test_a_backend_that_is_lost_in_the_middle_keeps_what_it_had_and_the_next_run_goes_on(self, clone: Path, prod: Path) -> None:
        program = (clone / "__main__.py").read_text()
        # A file in its place: nothing can be written there.
        lose = f"import pathlib\nwhere = pathlib.Path({str(prod)!r})\nwhere.rename({str(prod.with_name('away'))!r})\nwhere.touch()\n"
        (clone / "__main__.py").write_text(program + lose)
        with pytest.raises(FleetError, match="pulumi up failed"):
            up("prod")
        prod.unlink()
        prod.with_name("away").rename(prod)
        (clone / "__main__.py").write_text(program)
        # The lock of the update that could not take it back.
        up("prod", break_lock=True)
        assert stack.deployed("prod")["answer"].value == 42

    def test_a_service_that_is_away_is_named(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            monkeypatch.setenv("PULUMI_BACKEND_URL", url)
            monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "pul-0000")
            with pytest.raises(FleetError, match=rf"stack `prod`: its backend {url} \(chosen by PULUMI_BACKEND_URL\) does not answer"):
                up("prod")

    def test_a_wrong_passphrase_is_told_before_anything_is_touched(self, prod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = checkpoint(prod, "prod").read_bytes()
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another word")
        with pytest.raises(FleetError, match=r"wrong passphrase, it does not open encryptionsalt of stacks/Pulumi\.prod\.yaml"):
            up("prod")
        with pytest.raises(FleetError, match="passphrase") as told:
            stack.deployed("prod")
        assert "PULUMI_CONFIG_PASSPHRASE_FILE" in told.value.hint
        assert checkpoint(prod, "prod").read_bytes() == before
        monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
        up("prod")

    def test_a_service_without_a_login_is_told_so(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULUMI_BACKEND_URL", "http://127.0.0.1:1")
        with pytest.raises(FleetError, match=r"stack `prod`: not logged in to http://127\.0\.0\.1:1") as told:
            up("prod")
        assert told.value.hint == "pulumi login http://127.0.0.1:1"


class TestTwoAtOnce:
    def test_the_second_is_told_who_is_at_work_and_the_first_ends_well(self, clone: Path, prod: Path) -> None:
        begun, go = clone / "begun", clone / "go"
        (clone / "__main__.py").write_text(
            f"import pathlib, time\nimport pulumi\npathlib.Path({str(begun)!r}).touch()\n"
            f"while not pathlib.Path({str(go)!r}).exists():\n    time.sleep(0.05)\npulumi.export('answer', 43)\n"
        )
        command = [tools.path("pulumi"), "up", "--yes", "--skip-preview", "-s", "prod", "--non-interactive"]
        with subprocess.Popen(
            command, cwd=clone, env={**os.environ, **env.of_stack("prod")}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as first:
            try:
                wait_until(lambda: begun.exists() or first.poll() is not None, "the first update to begin", 120)
                with pytest.raises(FleetError, match=rf"stack `prod` is locked by \S+@{HERE} \(process {first.pid}\) since "):
                    up("prod")
            finally:
                go.touch()
                output = first.communicate(timeout=120)[0]
        assert first.returncode == 0, output
        assert stack.deployed("prod")["answer"].value == 43
