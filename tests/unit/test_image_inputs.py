"""The digest of the inputs changes with each of them and only then, and says what a variant is called."""

import json
import shutil
from pathlib import Path

import pytest

from core.errors import FleetError
from operations import cli
from runtime_image.image import inputs
from toolchain import paths


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The inputs alone, to be changed."""
    for name in {inputs.BAKE, inputs.CONTAINERFILE, *inputs.copied("gpu"), *inputs.copied("cpu")}:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths.REPO / name, target)
    return tmp_path


def digest(clone: Path, variant: str = "cpu", base: str = "") -> str:
    return inputs.read(variant, base, clone).digest


def test_the_same_inputs_give_the_same_digest_anywhere(clone: Path) -> None:
    assert digest(clone) == inputs.read("cpu").digest


@pytest.mark.parametrize("name", [inputs.CONTAINERFILE, *inputs.copied("cpu")])
def test_each_file_that_is_built_from_changes_the_digest(clone: Path, name: str) -> None:
    before = digest(clone)
    with (clone / name).open("a") as stream:
        stream.write("# changed\n")
    assert digest(clone) != before


@pytest.mark.parametrize("argument", ["BASE", "PACKAGES", "VLLM", "TORCH"])
def test_each_argument_changes_the_digest(clone: Path, argument: str) -> None:
    before = digest(clone)
    bake = json.loads((clone / inputs.BAKE).read_text())
    bake["target"]["cpu"]["args"][argument] += "x"
    (clone / inputs.BAKE).write_text(json.dumps(bake))
    assert digest(clone) != before


def test_another_base_changes_the_digest(clone: Path) -> None:
    assert len({digest(clone), digest(clone, base="debian"), digest(clone, base="registry.example.com/debian@sha256:1")}) == 3


def test_what_is_not_built_from_changes_nothing(clone: Path) -> None:
    before = digest(clone)
    bake = json.loads((clone / inputs.BAKE).read_text())
    bake["variable"]["TAG"]["default"] = "other"
    bake["target"]["gpu"]["args"]["PACKAGES"] = "other"
    (clone / inputs.BAKE).write_text(json.dumps(bake, indent=8))
    (clone / "runtime_image" / "requirements-gpu.lock").write_text("other")
    (clone / "runtime_image" / "scan-ignore.toml").write_text("other")
    assert digest(clone) == before


def test_both_variants_have_one_tag_that_changes_with_either(clone: Path) -> None:
    both = [inputs.read(each, "", clone) for each in inputs.VARIANTS]
    before = inputs.tag(both)
    (clone / "runtime_image" / "requirements-gpu.lock").write_text("other")
    assert inputs.tag([inputs.read(each, "", clone) for each in inputs.VARIANTS]) != before
    assert before.startswith(f"v{both[0].vllm}-")


def test_a_service_without_a_gpu_finds_its_variant_where_kserve_looks() -> None:
    # KServe's controller makes `repository-cpu:tag` of `repository:tag`.
    assert inputs.repository("fleet/runtime", "gpu") == "fleet/runtime"
    assert inputs.repository("fleet/runtime", "cpu") == "fleet/runtime-cpu"


def test_a_base_of_debian_is_refused_for_the_gpu_variant() -> None:
    with pytest.raises(FleetError, match="cpu alone, got: `gpu`"):
        inputs.read("gpu", "debian")


def test_a_definition_that_cannot_be_read_is_named(clone: Path) -> None:
    (clone / inputs.BAKE).write_text("{}")
    with pytest.raises(FleetError, match=r"docker-bake\.json: the definition of `cpu` cannot be read"):
        inputs.read("cpu", "", clone)


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = cli.parse(["image", "inputs", "--json"])
    arguments.run(arguments)
    found = json.loads(capsys.readouterr().out)
    assert found["tag"] == f"v{found['vllm']}-{found['digest'][:12]}"
    assert {name: each["digest"] for name, each in found["variants"].items()} == {name: inputs.read(name).digest for name in inputs.VARIANTS}
