"""The offline command plugin under the real engine."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.conftest import wait_until
from tests.offline.conftest import Project
from toolchain import tools

LIFECYCLE = """
made = command.local.Command("made",
    create="echo create $V ${PULUMI_COMMAND_STDOUT:-none} >>LOG; echo out $V; echo err >&2", UPDATE
    delete="echo delete $PULUMI_COMMAND_STDOUT >>LOG", environment={"V": "VALUE"}, triggers=[TRIGGER, {"a": [1]}])
pulumi.export("stdout", made.stdout)
pulumi.export("stderr", made.stderr)
"""


def test_a_command_is_created_updated_replaced_and_deleted(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def write(value: str, trigger: int, update: str = "") -> None:
        program = LIFECYCLE.replace("LOG", str(log)).replace("VALUE", value).replace("TRIGGER", str(trigger))
        project.write(program.replace("UPDATE", f"update={update!r}," if update else ""))

    change = "echo changed $PULUMI_COMMAND_STDOUT"
    write("1", 1)
    project.up().ok()
    assert project.outputs() == {"stdout": "out 1", "stderr": "err"}
    project.quiet()
    write("2", 1)
    assert project.steps() == {"made": "update"}
    project.up().ok()
    write("3", 1, change)
    project.up().ok()
    assert project.outputs() == {"stdout": "changed out 2", "stderr": ""}
    write("3", 2, change)
    assert "replace" in str(project.steps())
    project.up().ok()
    project.destroy().ok()
    assert log.read_text().splitlines() == [
        "create 1 none",
        "create 2 out 1",  # without `update`, a change runs `create` again
        "create 3 none",
        "delete changed out 2",
        "delete out 3",
    ]


def test_a_failing_command_shows_its_error_and_is_not_recorded(project: Project) -> None:
    project.write('command.local.Command("bad", create="echo progress; echo reason why >&2; exit 3")')
    failed = project.up()
    assert failed.code != 0
    assert "command exited with status 3" in failed.output
    assert "reason why" in failed.output
    assert project.resources() == []


def test_stdin_dir_and_interpreter_reach_the_command_and_output_is_streamed(project: Project, tmp_path: Path) -> None:
    project.write(
        f"""
        a = command.local.Command("a", create="cat; pwd", stdin="given", dir={str(tmp_path)!r}, opts=pulumi.ResourceOptions())
        b = command.local.Command("b", create="import sys; print('quiet words')", interpreter=["python3", "-c"], logging="none")
        pulumi.export("a", a.stdout)
        pulumi.export("b", b.stdout)
        pulumi.export("run", command.local.run_output(command="echo ran").stdout)
        """
    )
    done = project.up().ok()
    assert project.outputs() == {"a": f"given{tmp_path}", "b": "quiet words", "run": "ran"}
    assert f"given{tmp_path}" in done.output.partition("Outputs:")[0]
    assert "quiet words" not in done.output.partition("Outputs:")[0]


def test_output_of_a_command_with_a_secret_input_is_secret(project: Project) -> None:
    project.write(
        """
        made = command.local.Command("made", create="echo $TOKEN", environment={"TOKEN": pulumi.Output.secret("hunter2secret")}, logging="none")
        pulumi.export("out", made.stdout)
        """
    )
    done = project.up().ok()
    exported = project.pulumi("stack", "export", "--stack", "test").ok().output
    assert "hunter2secret" not in done.output + exported
    assert project.outputs()["out"] == "hunter2secret"


def test_a_command_that_takes_longer_than_its_custom_timeout_is_ended(project: Project, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    project.write(
        f"""
        command.local.Command("slow", create="echo $$ >{pid}; echo progress; sleep 300 & wait", stdin="x" * 300_000,
            opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="1s")))
        command.local.Command("quick", create="true", opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="60s")))
        """
    )
    failed = project.up()
    assert failed.code != 0
    assert "command did not end within 1 s and was ended" in failed.output
    assert "progress" in failed.output
    assert [each["urn"].rpartition("::")[2] for each in project.resources()] == ["quick"]
    wait_until(lambda: not _runs(int(pid.read_text())), "the command to be ended", timeout_s=20)


def test_what_is_not_covered_is_refused_by_name(project: Project) -> None:
    project.write('command.local.Command("a", create="true", asset_paths=["*"])')
    refused = project.preview()
    assert refused.code != 0
    assert "`assetPaths` is not covered by the offline command plugin" in refused.output
    project.write('command.remote.Command("a", create="true", connection={"host": "127.0.0.1"})')
    refused = project.preview()
    assert refused.code != 0
    assert "`command:remote:Command`" in refused.output
    project.write('command.local.Command("a", create="true", dir="/nowhere")')
    refused = project.up()
    assert refused.code != 0
    assert "No such file or directory: `/nowhere`" in refused.output


def test_a_killed_engine_takes_commands_and_plugins_with_it(project: Project, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    project.write(f'command.local.Command("long", create="echo $$ >{pid}; exec sleep 300")')
    started = subprocess.Popen(
        [str(tools.path("pulumi")), "up", "--yes", "--skip-preview", "--stack", "test", "--non-interactive"],
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: pid.is_file() and bool(pid.read_text().strip()), "the command to start")
    sleeper = int(pid.read_text())
    started.kill()
    started.wait()
    wait_until(lambda: not _runs(sleeper), "the command to be ended", timeout_s=20)
    wait_until(lambda: not _left(project), "plugins and program to end", timeout_s=20)


def test_an_interrupted_update_ends_the_command(project: Project, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    project.write(f'command.local.Command("long", create="echo $$ >{pid}; sleep 300")')
    started = subprocess.Popen(
        [str(tools.path("pulumi")), "up", "--yes", "--skip-preview", "--stack", "test", "--non-interactive"],
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_until(lambda: pid.is_file() and bool(pid.read_text().strip()), "the command to start")
    started.send_signal(signal.SIGINT)
    time.sleep(1)
    started.send_signal(signal.SIGINT)  # the second one cancels at once
    started.communicate(timeout=30)
    wait_until(lambda: not _runs(int(pid.read_text())), "the command to be ended", timeout_s=20)
    wait_until(lambda: not _left(project), "plugins and program to end", timeout_s=20)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _left(project: Project) -> list[int]:
    """Processes that still carry the project's backend in their environment."""
    mark = f"PULUMI_BACKEND_URL={project.environment['PULUMI_BACKEND_URL']}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0") and _runs(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
