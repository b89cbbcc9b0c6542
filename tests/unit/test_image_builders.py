"""The builders: what they are asked to do, what they get to know of this machine's network, and what a person is told when they fail."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import FleetError
from core.progress import Progress
from runtime_image.image import base, builders, inputs
from runtime_image.image.builders import Buildah, Buildx
from tests.unit import layouts
from toolchain.acquisition import ToolError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the machine's own settings, and a store of the test's own."""
    folder = tmp_path / "image"
    monkeypatch.setattr(builders, "HOME", folder)
    monkeypatch.setattr(builders, "LOG", folder / "build.log")
    # What is built here has no size.
    monkeypatch.setattr(builders, "_GIB", 0)
    for name in ("SSL_CERT_FILE", "PIP_CONFIG_FILE", "PIP_INDEX_URL", "UV_CONFIG_FILE", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a shell script on a PATH that has the system's own programs but no builder. Returns the file of its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "mkdir", "echo", "cat", "touch"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> Path:
        calls = tmp_path / f"{name}.calls"
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
        (folder / name).chmod(0o755)
        return calls

    return put


# A buildah that writes what it is asked to write.
_BUILDS = """
for last; do :; done
case "$*" in
  *" push "*) mkdir -p "${last#oci:}"; echo '{}' > "${last#oci:}/oci-layout";;
  *"--target sbom"*) for each; do case "$each" in type=local,dest=*) echo '{}' > "${each#type=local,dest=}/runtime.cdx.json";; esac; done;;
esac
"""


def options(command: list[str], name: str) -> list[str]:
    return [value for key, value in itertools.pairwise(command) if key == name]


def test_both_builders_are_asked_for_the_same(tmp_path: Path) -> None:
    definition = inputs.read("gpu")
    secrets = {"certificates": tmp_path / "ca.pem"}
    buildah = Buildah().command(definition, secrets, "runtime", [])
    assert dict(each.split("=", 1) for each in options(buildah, "--build-arg")) == {**definition.arguments, "INPUTS": definition.digest}
    assert options(buildah, "--secret") == [f"id=certificates,src={tmp_path}/ca.pem"]
    buildx = Buildx.command(definition, secrets, None, "type=oci,dest=x")
    # The rest of the arguments it reads from the bake file itself.
    assert f"gpu.args.INPUTS={definition.digest}" in options(buildx, "--set")
    assert f"gpu.secrets+=type=file,id=certificates,src={tmp_path}/ca.pem" in options(buildx, "--set")


def test_a_base_of_our_own_is_named_so_that_no_builder_looks_for_it_elsewhere(tmp_path: Path) -> None:
    definition = inputs.read("cpu", base.NAME)
    assert f"BASE=localhost/inference-fleet/debian:{base.SUITE}" in options(Buildah().command(definition, {}, "runtime", []), "--build-arg")
    root = layouts.image(tmp_path / "base", [])
    said = options(Buildx.command(definition, {}, tmp_path / "base", "x"), "--set")
    assert f"cpu.contexts.debian=oci-layout://{tmp_path}/base@{root['digest']}" in said


def test_buildah_takes_a_base_of_our_own_from_any_folder(program: Callable[[str, str], Path], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It makes an image's name of the path that it is given, and refuses one that cannot be a name.
    calls = program("buildah", _BUILDS)

    def made(folder: Path, log: Path, progress: Progress) -> Path:
        folder.mkdir(parents=True)
        return folder

    monkeypatch.setattr(base, "make", made)
    builders.ensure(inputs.read("cpu", base.NAME), "buildah", Progress())
    assert any(line.endswith("pull --quiet oci:base") for line in calls.read_text().splitlines())
    # The next image has the packages of its own day.
    assert not (home / "base").exists()


def test_what_was_built_is_not_built_again(program: Callable[[str, str], Path], home: Path) -> None:
    calls = program("buildah", _BUILDS)
    definition = inputs.read("cpu")
    built = builders.ensure(definition, "buildah", Progress())
    assert (built.layout / "oci-layout").exists()
    assert built.sbom.exists()
    count = len(calls.read_text().splitlines())
    assert builders.ensure(definition, "buildah", Progress()).folder == built.folder
    assert len(calls.read_text().splitlines()) == count


def test_a_new_image_takes_the_place_of_the_variants_last_one(program: Callable[[str, str], Path], home: Path) -> None:
    program("buildah", _BUILDS)
    builders.ensure(inputs.read("gpu"), "buildah", Progress())
    for image in ("registry.example.com/a@sha256:1", "registry.example.com/a@sha256:2"):
        built = builders.ensure(inputs.read("cpu", image), "buildah", Progress())
    assert sorted(each.name.split("-")[0] for each in home.glob("?pu-*")) == ["cpu", "gpu"]
    assert built.folder.exists()


def test_too_little_disk_is_said_before_the_work(program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = program("buildah", _BUILDS)
    monkeypatch.setattr(builders, "_GIB", 1e9)
    with pytest.raises(ToolError, match="building the runtime image needs about"):
        builders.ensure(inputs.read("cpu"), "buildah", Progress())
    assert not calls.exists()


def test_a_build_that_fails_leaves_nothing_that_the_next_one_would_trust(program: Callable[[str, str], Path], home: Path) -> None:
    program("buildah", 'echo "step 1"; echo "E: no such package"; exit 7')
    with pytest.raises(FleetError, match="no such package") as raised:
        builders.ensure(inputs.read("cpu"), "buildah", Progress())
    assert str(builders.LOG) in raised.value.hint
    assert not builders.place(inputs.read("cpu")).exists()
    assert list(home.glob(".*partial")) == []


def test_where_the_base_cannot_be_pulled_another_way_is_named(program: Callable[[str, str], Path]) -> None:
    program("buildah", 'echo "Error: creating build container: initializing source docker://debian: pinging container registry: EOF"; exit 125')
    with pytest.raises(FleetError) as raised:
        builders.ensure(inputs.read("cpu"), "buildah", Progress())
    assert "--base debian --variant cpu" in raised.value.hint


def test_docker_is_taken_where_it_works_else_buildah(program: Callable[[str, str], Path]) -> None:
    program("buildah", "")
    assert builders.find() == Buildah()
    program("docker", "exit 1")
    assert builders.find() == Buildah()
    program("docker", "")
    assert builders.find() == Buildx()
    assert builders.find("buildah") == Buildah()


def test_without_a_builder_it_is_said_what_to_install(program: Callable[[str, str], Path]) -> None:
    with pytest.raises(FleetError, match="neither `docker buildx` nor `buildah`") as raised:
        builders.find()
    assert "apt-get install buildah" in raised.value.hint


def test_without_mmdebstrap_it_is_said_what_to_install(program: Callable[[str, str], Path], tmp_path: Path) -> None:
    with pytest.raises(FleetError) as raised:
        base.make(tmp_path / "base", tmp_path / "log", Progress())
    assert raised.value.hint == "apt-get install mmdebstrap"


def test_steps_get_certificates_and_indexes_of_this_machine_and_no_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:word@index.example.com/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:word@index.example.com/simple")
    with builders.secrets() as found:
        assert found["certificates"] == tmp_path / "ca.pem"
        assert "index-url = https://user:word@index.example.com/simple" in found["pip"].read_text()
        assert 'index-url = "https://user:word@index.example.com/simple"' in found["uv"].read_text()
        kept = found["pip"].parent
        assert kept.stat().st_mode & 0o077 == 0
        command = Buildah().command(inputs.read("cpu"), found, "runtime", [])
    assert not kept.exists()
    # Who lists processes sees commands.
    assert not [each for each in command if "word" in each]
