"""A clone with a small program, whose stacks the real engine brings up in backends of this machine."""

import os
import shutil
from pathlib import Path

import pytest

from core.progress import Progress
from operations import stack, stack_file
from pulumi_offline import install
from toolchain import env, paths, tools

_EXISTING = "{kind: existing, kubeconfigPath: k, frontDoor: {url: 'https://llm.example'}, regionalGateway: {address: 192.0.2.1, port: 80}}"
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pulumi-home")
    install.install(tools.path("pulumi"), home, official=False)
    return home


def lay(monkeypatch: pytest.MonkeyPatch, repo: Path, pulumi_home: Path) -> None:
    """A clone with stack files `local` and `prod`, and a user who chose nothing."""
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    # What `select` puts there goes with the test.
    for name in ("PATH", "PULUMI_HOME", "PULUMI_SKIP_UPDATE_CHECK", "PULUMI_ERROR_OUTPUT_STRING"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    monkeypatch.setenv("PULUMI_CREDENTIALS_PATH", str(repo.parent / "login"))
    (repo / "stacks").mkdir(parents=True)
    (repo / "Pulumi.yaml").write_text("name: fleet\nruntime: python\nstackConfigDir: stacks/\n")
    (repo / "__main__.py").write_text('import pulumi\npulumi.export("secret", pulumi.Output.secret("hidden"))\npulumi.export("answer", 42)\n')
    for name, driver in (("local", "{kind: local}"), ("prod", _EXISTING)):
        spec = f"{{hub: {{driver: {driver}}}, clusters: [{{driver: {driver}}}]}}"
        (repo / "stacks" / f"Pulumi.{name}.yaml").write_text(f"config:\n  fleet:spec: {spec}\n")
    (repo / ".venv").symlink_to(paths.REPO / ".venv")
    cli = tools.path("pulumi")
    # They follow from files of the real clone.
    monkeypatch.setattr(tools, "bin_dir", lambda: cli.parent)
    monkeypatch.setattr(tools, "path", lambda _: cli)
    monkeypatch.setattr(paths, "REPO", repo)
    monkeypatch.setattr(paths, "STATE", repo / ".fleet")
    monkeypatch.setattr(stack_file, "FOLDER", repo / "stacks")
    monkeypatch.setattr(env, "pulumi_home", lambda: pulumi_home)


@pytest.fixture
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pulumi_home: Path) -> Path:
    repo = tmp_path / "clone"
    lay(monkeypatch, repo, pulumi_home)
    return repo


@pytest.fixture
def own(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file backend that the user chose for this shell, with a passphrase of their own."""
    return choose(monkeypatch, clone)


def choose(monkeypatch: pytest.MonkeyPatch, clone: Path) -> Path:
    folder = clone / "state-of-the-team"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{folder}")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    return folder


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, pulumi_home: Path) -> Path:
    """A clone in which `local` and `prod` were brought up once."""
    repo = tmp_path_factory.mktemp("both") / "clone"
    with pytest.MonkeyPatch.context() as monkeypatch:
        lay(monkeypatch, repo, pulumi_home)
        choose(monkeypatch, repo)
        up("local")
        up("prod")
    return repo


@pytest.fixture
def prod(own: Path, clone: Path, both: Path) -> Path:
    """The user's backend with the stack `prod` in it."""
    shutil.copytree(both / own.name, own, dirs_exist_ok=True)
    shutil.copytree(both / "stacks", clone / "stacks", dirs_exist_ok=True)
    return own


@pytest.fixture
def local(clone: Path, both: Path) -> Path:
    """The backend of the stack `local` with that stack in it."""
    shutil.copytree(both / ".fleet", clone / ".fleet")
    shutil.copytree(both / "stacks", clone / "stacks", dirs_exist_ok=True)
    return clone / ".fleet" / "pulumi"


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
