"""A clone with a small program, whose stacks the real engine brings up in backends of this machine."""

import os
from pathlib import Path

import pytest

from core.progress import Progress
from operations import stack, stack_file
from pulumi_offline import install
from toolchain import env, paths, tools

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pulumi-home")
    install.install(tools.path("pulumi"), home, official=False)
    return home


@pytest.fixture
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pulumi_home: Path) -> Path:
    """With stack files `local` and `prod`, and a user who chose nothing."""
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    # What `select` puts there goes with the test.
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for name in ("PULUMI_HOME", "PULUMI_SKIP_UPDATE_CHECK", "PULUMI_ERROR_OUTPUT_STRING"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    monkeypatch.setenv("PULUMI_CREDENTIALS_PATH", str(tmp_path / "login"))
    repo = tmp_path / "clone"
    (repo / "stacks").mkdir(parents=True)
    (repo / "Pulumi.yaml").write_text("name: fleet\nruntime: python\nstackConfigDir: stacks/\n")
    (repo / "__main__.py").write_text('import pulumi\npulumi.export("secret", pulumi.Output.secret("hidden"))\npulumi.export("answer", 42)\n')
    for name, driver in (("local", "local"), ("prod", "existing")):
        spec = f"{{hub: {{driver: {{kind: {driver}}}}}, clusters: [{{driver: {{kind: {driver}}}}}]}}"
        (repo / "stacks" / f"Pulumi.{name}.yaml").write_text(f"config:\n  fleet:spec: {spec}\n")
    venv = paths.REPO / ".venv"
    (repo / ".venv").symlink_to(venv)
    cli = tools.path("pulumi")
    # They follow from files of the real clone.
    monkeypatch.setattr(tools, "bin_dir", lambda: cli.parent)
    monkeypatch.setattr(tools, "path", lambda _: cli)
    monkeypatch.setattr(paths, "REPO", repo)
    monkeypatch.setattr(paths, "STATE", repo / ".fleet")
    monkeypatch.setattr(stack_file, "FOLDER", repo / "stacks")
    monkeypatch.setattr(env, "pulumi_home", lambda: pulumi_home)
    return repo


@pytest.fixture
def own(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file backend that the user chose for this shell, with a passphrase of their own."""
    folder = clone / "state-of-the-team"
    folder.mkdir()
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{folder}")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    return folder


class Lines(Progress):
    """Progress kept for a look."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def up(name: str, *, break_lock: bool = False) -> list[str]:
    """What `fleet up` does with the engine. Returns what was said."""
    lines = Lines()
    stack.run_up(stack.select(name), lines, break_lock=break_lock)
    return lines.said
