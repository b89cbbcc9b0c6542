"""The settings of a shell, and what they point at."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from toolchain import env, paths, tools


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path / "a state's folder")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    for name in [name for name in os.environ if name.startswith(("PULUMI_", "KUBECONFIG"))]:
        monkeypatch.delenv(name)


def shell(stack: str, ask: str, **environment: str) -> str:
    """What `ask` prints in a shell that evaluated the lines for `stack`."""
    script = "\n".join([*env.lines(stack), ask])
    return subprocess.run(["/bin/sh", "-c", script], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=True).stdout


SHOW = 'printf "%s|%s|%s" "${PULUMI_BACKEND_URL-none}" "${PULUMI_CONFIG_PASSPHRASE-none}" "${KUBECONFIG-none}"'


def test_a_prepared_shell_prepared_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for stack in ("", "local", "prod"):
        once = env.lines(stack)
        for line in once:
            name, value = shlex.split(line)[1].split("=", 1)
            monkeypatch.setenv(name, value)
        assert [line for line in env.lines(stack) if line.startswith("export")] == once, stack
        assert env.tooling()["PATH"].split(":")[:2] == [str(paths.REPO / ".venv" / "bin"), str(tools.bin_dir())]
        for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "KUBECONFIG"):
            monkeypatch.delenv(name, raising=False)


def test_two_clones_do_not_share_a_pulumi_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = env.pulumi_home()
    monkeypatch.setattr(paths, "REPO", tmp_path / "other")
    assert env.pulumi_home() != first, "offline plugins hold the path of their clone"


def test_the_state_is_for_its_owner_only() -> None:
    paths.STATE.mkdir(mode=0o755)
    env.prepare()
    assert [file.stat().st_mode & 0o777 for file in (paths.STATE, paths.STATE / "pulumi")] == [0o700, 0o700]


def test_only_the_stack_local_names_a_backend_a_passphrase_and_a_kubeconfig() -> None:
    assert shell("local", SHOW) == f"file://{paths.STATE / 'pulumi'}|local|{paths.STATE / 'kubeconfig'}"
    for stack in ("", "prod"):
        assert shell(stack, SHOW) == "none|none|none"
    own = {"PULUMI_BACKEND_URL": "s3://team", "PULUMI_CONFIG_PASSPHRASE": "word", "KUBECONFIG": "/k"}
    assert shell("prod", SHOW, **own) == "s3://team|word|/k", "what the user set stays"


def test_settings_of_local_are_taken_back_for_another_stack_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"PULUMI_BACKEND_URL": f"file://{paths.STATE / 'pulumi'}", "PULUMI_CONFIG_PASSPHRASE": "local", "KUBECONFIG": "/the/user's"}
    for name, value in held.items():
        monkeypatch.setenv(name, value)
    assert shell("prod", SHOW, **held) == "none|none|/the/user's"


def test_the_engine_of_another_stack_sees_the_users_login_and_that_of_local_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home of the user"))
    assert env.of_stack("prod")["PULUMI_CREDENTIALS_PATH"] == str(tmp_path / "home of the user")
    assert env.of_stack("prod")["PULUMI_HOME"] == str(env.pulumi_home()), "offline plugins stay out of the user's home"
    assert "PULUMI_CREDENTIALS_PATH" not in env.of_stack("local")
    monkeypatch.setenv("PULUMI_HOME", str(env.pulumi_home()))
    assert env.of_stack("prod")["PULUMI_CREDENTIALS_PATH"] == str(Path("~/.pulumi").expanduser())


def test_make_hands_a_stack_on_only_where_one_is_named() -> None:
    def recipe(*arguments: str) -> str:
        return subprocess.run(
            ["make", "-n", "env", *arguments], cwd=paths.REPO, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
        ).stdout

    assert recipe().splitlines()[-1].strip() == ".venv/bin/python -m toolchain.env"
    assert recipe("STACK=local").splitlines()[-1].strip() == ".venv/bin/python -m toolchain.env local"
