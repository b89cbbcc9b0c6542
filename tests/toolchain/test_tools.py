"""Which copy of a tool is taken, and what a failed or killed run leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolchain import golang, paths, tools
from toolchain.acquisition import Acquisition, Progress, ToolError, UnavailableError, locked, need_space, told
from toolchain.catalogue import OWN_FAMILY, OWN_VERSION, GoBuild, Tool

TOOL = Tool("kubectl", "1.36.3", ("version",), build=GoBuild("kubernetes", "k8s.io/kubernetes/cmd/kubectl", 1))


OWN = Tool("fleet-relay", OWN_VERSION, build=GoBuild(OWN_FAMILY, "inference-fleet/dataplane/cmd/fleet-relay", 1))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(tools, "_BY_NAME", {TOOL.name: TOOL, OWN.name: OWN})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def run() -> Acquisition:
    return Acquisition(say=lambda _: None, offline=True)


def script(file: Path, version: str) -> None:
    file.write_text(f"#!/bin/sh\necho {version}\n")
    file.chmod(0o755)


def builds(version: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the compiler; returns the list in which builds are counted."""
    built: list[str] = []

    def build(name: str, _source: GoBuild, file: Path, _run: Acquisition, _label: str) -> None:
        built.append(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        script(file, version)

    monkeypatch.setattr(golang, "build", build)
    return built


@pytest.mark.parametrize("printed", ["v1.36.3", "1.36.3", "Kubernetes v1.36.3", '"gitVersion": "v1.36.3",', "abc/1.36.3/Clean"])
def test_exactly_the_pinned_version_fits(printed: str) -> None:
    assert tools.fits("1.36.3", printed)


@pytest.mark.parametrize("printed", ["v1.36.30", "v11.36.3", "v1.36.3-dispatcher", "v1.32.4-dispatcher", "1.36", "", "v1.36.3-rc.1"])
def test_another_version_does_not_fit(printed: str) -> None:
    assert not tools.fits("1.36.3", printed)


def test_a_copy_on_path_of_the_pinned_version_is_taken(run: Acquisition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = builds("v1.36.3", monkeypatch)
    script(tmp_path / "bin" / "kubectl", "v1.36.3")
    assert tools.acquire("kubectl", run).resolve() == tmp_path / "bin" / "kubectl"
    assert not built


def test_a_copy_on_path_that_was_replaced_is_looked_at_again(run: Acquisition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = builds("v1.36.3", monkeypatch)
    script(tmp_path / "bin" / "kubectl", "v1.36.3")
    tools.acquire("kubectl", run)
    script(tmp_path / "bin" / "kubectl", "v1.99.99")
    tools.acquire("kubectl", run)
    assert built == ["kubectl"]


def test_a_copy_of_another_version_is_passed_over(run: Acquisition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = builds("v1.36.3", monkeypatch)
    script(tmp_path / "bin" / "kubectl", "v1.32.4-dispatcher")
    file = tools.acquire("kubectl", run)
    assert built == ["kubectl"]
    assert tools.path("kubectl") == file
    assert (tools.bin_dir() / "kubectl").resolve() == file
    tools.acquire("kubectl", run)
    assert built == ["kubectl"], "what is there is not made again"


def test_a_built_tool_of_another_version_is_not_kept(run: Acquisition, monkeypatch: pytest.MonkeyPatch) -> None:
    builds("v0.0.0", monkeypatch)
    with pytest.raises(ToolError, match=r"must be version 1\.36\.3, got: `v0\.0\.0`"):
        tools.acquire("kubectl", run)
    with pytest.raises(ToolError, match="not here yet"):
        tools.path("kubectl")


def test_a_failure_tells_every_way_in_order(run: Acquisition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise UnavailableError("go failed: no space (log: somewhere)")

    monkeypatch.setattr(golang, "build", fail)
    script(tmp_path / "bin" / "kubectl", "v1.0.0")
    with pytest.raises(ToolError) as failed:
        tools.acquire("kubectl", run)
    told = str(failed.value)
    assert told.index("on this machine: ") < told.index("built: go failed: no space (log: somewhere)")
    assert failed.value.hint


def test_a_name_that_is_no_tool_is_named_with_those_there_are() -> None:
    with pytest.raises(ToolError, match="got: `kubctl`") as refused:
        tools.path("kubctl")
    assert "kubectl" in refused.value.hint


def test_what_a_killed_build_left_is_removed_and_the_tool_is_made(run: Acquisition, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    builds("v1.36.3", monkeypatch)
    made = tools.acquire("kubectl", run)
    made.unlink()
    left = made.with_name(".kubectl.4711.partial")
    left.write_bytes(b"half")
    with pytest.raises(ToolError, match="not here yet"):
        tools.path("kubectl")
    tools.acquire("kubectl", run)
    assert not left.exists()
    assert cache in tools.path("kubectl").parents


@pytest.fixture
def own_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A clone that has nothing but a Go module of its own."""
    folder = tmp_path / "clone" / OWN_FAMILY
    (folder / "cmd" / "fleet-relay").mkdir(parents=True)
    (folder / "go.mod").write_text("module inference-fleet/dataplane\n")
    (folder / "cmd" / "fleet-relay" / "main.go").write_text("package main\n")
    monkeypatch.setattr(paths, "REPO", tmp_path / "clone")
    return folder


@pytest.mark.usefixtures("own_sources")
def test_a_tool_of_our_own_is_not_made_again_while_its_sources_stay(run: Acquisition, monkeypatch: pytest.MonkeyPatch) -> None:
    built = builds("", monkeypatch)
    assert tools.acquire("fleet-relay", run) == tools.acquire("fleet-relay", run) == tools.path("fleet-relay")
    assert built == ["fleet-relay"]


@pytest.mark.parametrize("change", ["cmd/fleet-relay/main.go", "internal/new.go", "go.mod"])
def test_a_changed_source_makes_another_tool_and_leaves_the_old_one_to_who_runs_it(
    change: str, own_sources: Path, run: Acquisition, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds("", monkeypatch)
    old = tools.acquire("fleet-relay", run)
    (own_sources / change).parent.mkdir(exist_ok=True)
    (own_sources / change).write_text("changed\n")
    with pytest.raises(ToolError, match="not here yet"):
        tools.path("fleet-relay")
    assert tools.acquire("fleet-relay", run) != old
    assert old.exists()


def test_a_changed_test_of_our_own_module_makes_no_other_tool(own_sources: Path, run: Acquisition, monkeypatch: pytest.MonkeyPatch) -> None:
    builds("", monkeypatch)
    made = tools.acquire("fleet-relay", run)
    (own_sources / "cmd" / "fleet-relay" / "main_test.go").write_text("package main\n")
    assert tools.path("fleet-relay") == made


def test_our_own_module_builds_without_the_space_that_downloaded_modules_take(run: Acquisition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[float] = []

    def need(gib: float, _folder: Path, _what: str) -> None:
        asked.append(gib)
        raise ToolError("enough is known")

    monkeypatch.setattr(golang, "need_space", need)
    monkeypatch.setattr(golang, "compiler", lambda: "go")
    monkeypatch.setattr(golang, "_module_cache", lambda _go: tmp_path / "none")
    for tool in (OWN, TOOL):
        assert tool.build is not None
        with pytest.raises(ToolError):
            golang.build(tool.name, tool.build, tmp_path / "x", run, "x")
    assert asked[0] < asked[1]


def test_a_second_run_waits_for_the_lock_of_the_first(cache: Path) -> None:
    code = f"""
import time
from pathlib import Path
from toolchain import paths
from toolchain.acquisition import Acquisition, locked
paths.CACHE = Path({str(cache)!r})
with locked("kubectl", Acquisition()):
    print("held", flush=True)
    time.sleep(1)
    (paths.CACHE / "made").touch()
"""
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=paths.REPO)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    said: list[str] = []
    with locked("kubectl", Acquisition(say=said.append)):
        assert (cache / "made").exists(), "the second run must not start before the first is done"
    assert first.wait() == 0
    assert said == ["kubectl: another run is making it, waiting"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux only")
def test_a_long_command_ends_with_a_killed_run(cache: Path, tmp_path: Path) -> None:
    number = tmp_path / "pid"
    code = f"""
import os
from pathlib import Path
from toolchain.acquisition import Acquisition
command = ["/bin/sh", "-c", "echo $$ > {number}.new; mv {number}.new {number}; exec sleep 60"]
Acquisition().command("x", command, Path("/"), dict(os.environ), Path({str(cache / "log")!r}), 1)
"""
    environment = {**os.environ, "PATH": os.defpath}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=paths.REPO, env=environment, stdout=subprocess.DEVNULL)
    _until(number.exists)
    child = int(number.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(holds: object, seconds: float = 20) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come to be in time"
        time.sleep(0.02)


APISERVER, SCHEDULER = (
    Tool(name, "1.36.3", ("--version",), build=GoBuild("kubernetes", "inference-fleet/toolchain/kubernetes", 190, binary="kubernetes"))
    for name in ("kube-apiserver", "kube-scheduler")
)


def test_tools_of_one_binary_are_built_once_and_keep_their_names(run: Acquisition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_BY_NAME", {APISERVER.name: APISERVER, SCHEDULER.name: SCHEDULER})
    built = builds("v1.36.3", monkeypatch)
    first, second = tools.acquire("kube-apiserver", run), tools.acquire("kube-scheduler", run)
    assert built == ["kubernetes"]
    # The binary acts by its name, also for whoever resolves the path first.
    assert [file.resolve().name for file in (first, second)] == ["kube-apiserver", "kube-scheduler"]
    assert first.samefile(second)
    first.unlink()
    tools.acquire("kube-apiserver", run)
    assert built == ["kubernetes"], "the binary is still there"


def test_a_shared_binary_of_another_version_is_not_kept(run: Acquisition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_BY_NAME", {APISERVER.name: APISERVER})
    builds("v0.0.0", monkeypatch)
    with pytest.raises(ToolError, match="must be version"):
        tools.acquire("kube-apiserver", run)
    built = builds("v1.36.3", monkeypatch)
    tools.acquire("kube-apiserver", run)
    assert built == ["kubernetes"], "a wrong one that stayed would be linked again"


PLUGIN = Tool("pulumi-resource-kubernetes", "4.34.2", build=GoBuild("pulumi-kubernetes", "inference-fleet/toolchain/pulumi-kubernetes", 300), plugin=True)


def test_a_plugin_that_pulumi_installed_under_the_pinned_version_is_taken(run: Acquisition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "_BY_NAME", {PLUGIN.name: PLUGIN})
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "pulumi"))
    built = builds("", monkeypatch)
    for version, expected in (("4.34.1", [PLUGIN.name]), ("4.34.2", [])):
        built.clear()
        file = tmp_path / "pulumi" / "plugins" / f"resource-kubernetes-v{version}" / PLUGIN.name
        file.parent.mkdir(parents=True)
        script(file, version)
        taken = tools.acquire(PLUGIN.name, run)
        assert built == expected
        taken.unlink()
    assert not (tools.bin_dir() / PLUGIN.name).exists(), "the engine warns of plugins on PATH"


def test_a_plugin_of_our_own_folder_is_not_taken_for_the_users(run: Acquisition, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(tools, "_BY_NAME", {PLUGIN.name: PLUGIN})
    monkeypatch.setenv("PULUMI_HOME", str(cache / "pulumi-home-1"))
    file = cache / "pulumi-home-1" / "plugins" / "resource-kubernetes-v4.34.2" / PLUGIN.name
    file.parent.mkdir(parents=True)
    script(file, "offline plugin of an older clone")
    built = builds("", monkeypatch)
    tools.acquire(PLUGIN.name, run)
    assert built == [PLUGIN.name]


def test_estimates_follow_what_this_run_measured() -> None:
    progress = Progress(lambda _: None)
    assert progress.expected(100) == 100
    progress.finished(usual_s=50, took_s=150)
    progress.finished(usual_s=2, took_s=90)
    assert progress.expected(100) == 300, "a short build says nothing of the pace"
    progress.finished(usual_s=150, took_s=150)
    assert progress.expected(100) == 150


def test_what_takes_longer_than_expected_is_not_promised_an_end() -> None:
    assert told(60, 192, 192) == "60 s of about 192 s"
    assert told(480, 192, 192) == "480 s, longer than the usual 192 s: this machine or its network is busy"


def test_too_little_disk_is_said_before_the_work(cache: Path) -> None:
    with pytest.raises(ToolError, match="needs about 1000000 GiB") as refused:
        need_space(1_000_000, cache, "building everything")
    assert "FLEET_CACHE" in refused.value.hint
