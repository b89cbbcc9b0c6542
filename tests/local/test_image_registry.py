"""`fleet image push` and `inspect` against the pinned registry: what a stack would read, and what a second push finds there."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import FleetError
from oci import reference
from oci.registry import Registry
from operations import cli
from runtime_image.image import builders, inputs, sbom
from tests.unit import layouts


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both variants as if they had been built: small images with the labels of the real ones."""
    monkeypatch.setattr(builders, "HOME", tmp_path)
    for variant in inputs.VARIANTS:
        definition = inputs.read(variant)
        folder = builders.place(definition)
        labels = {
            inputs.INPUTS_LABEL: definition.digest,
            inputs.VERSION_LABEL: definition.vllm,
            inputs.TORCH_LABEL: definition.torch,
        }
        layouts.image(folder / builders.LAYOUT, [layouts.archive({f"opt/{variant}": variant * 100})], {"Labels": labels})
        (folder / builders.SBOM).write_text(json.dumps({"bomFormat": "CycloneDX", "components": [{"name": variant}]}))


def fleet(*words: str) -> None:
    arguments = cli.parser().parse_args(["image", *words])
    arguments.run(arguments)


def pushed(registry: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    fleet("push", f"{registry}/fleet/runtime", "--json", *more)
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("built")
def test_a_push_says_all_that_a_stack_needs_and_the_registry_has_it(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = pushed(registry, capsys)
    definitions = inputs.all_variants("", inputs.VARIANTS)
    assert (found["repository"], found["tag"]) == (f"{registry}/fleet/runtime", inputs.tag(definitions))
    assert (found["vllm"], found["torch"]) == (definitions[0].vllm, definitions[0].torch)
    for variant, repository in (("gpu", "fleet/runtime"), ("cpu", "fleet/runtime-cpu")):
        with Registry(reference.parse(f"oci://{registry}/{repository}")) as client:
            assert client.has_manifest(found["tag"])
            assert client.has_manifest(found["digests"][variant])
            listed = client.referrers(found["digests"][variant])
            assert [f"oci://{registry}/{repository}@{each['digest']}" for each in listed] == [found["sbom"][variant]]
            assert listed[0]["artifactType"] == sbom.MEDIA_TYPE


@pytest.mark.usefixtures("built")
def test_what_the_registry_has_from_the_same_inputs_is_neither_built_nor_sent(
    registry: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pushed(registry, capsys)
    # Another machine, with no builder and nothing built.
    monkeypatch.setattr(builders, "HOME", tmp_path / "other")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pushed(registry, capsys) == first
    # Under a tag of one's own it does not know.
    with pytest.raises(FleetError, match="no builder"):
        pushed(registry, capsys, "--tag", "mine")


@pytest.mark.usefixtures("built")
def test_one_variant_goes_alone_and_a_tag_may_be_chosen(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = pushed(registry, capsys, "--variant", "cpu", "--tag", "v9")
    assert (set(found["digests"]), set(found["sbom"]), found["tag"]) == ({"cpu"}, {"cpu"}, "v9")
    with Registry(reference.parse(f"oci://{registry}/fleet/runtime")) as client:
        assert not client.has_manifest("v9")


@pytest.mark.usefixtures("built")
def test_an_image_in_a_registry_says_what_it_is(registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = pushed(registry, capsys)
    fleet("inspect", f"oci://{registry}/fleet/runtime-cpu:{found['tag']}")
    told = capsys.readouterr().out
    assert f"digest      {found['digests']['cpu']}" in told
    assert f"contents    {found['sbom']['cpu'].rpartition('@')[2]}" in told
    assert "user        2000:0" in told
    assert f"inputs      {inputs.read('cpu').digest}" in told


@pytest.mark.usefixtures("built")
def test_an_image_on_this_machine_is_named_by_its_variant(capsys: pytest.CaptureFixture[str]) -> None:
    fleet("inspect", "cpu")
    assert f"inputs      {inputs.read('cpu').digest}" in capsys.readouterr().out


def test_what_is_no_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "HOME", tmp_path)
    with pytest.raises(FleetError, match="is not built here"):
        fleet("inspect", "gpu")
    with pytest.raises(FleetError, match="neither an oci:// reference nor"):
        fleet("inspect", str(tmp_path))
