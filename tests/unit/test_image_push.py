"""An image's way to a registry and back: whole, checked, with its list of contents, and no tag where it broke off."""

import json
from pathlib import Path

import pytest

from core.errors import FleetError
from oci import reference
from oci.layout import Layout
from oci.registry import Registry
from runtime_image.image import push, sbom
from tests.unit import layouts
from tests.unit.registries import Fake


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    file = tmp_path / "sbom.cdx.json"
    file.write_text('{"bomFormat": "CycloneDX"}')
    return file


LAYERS = [layouts.archive({"etc/os-release": "ID=x\n"}), layouts.archive({"opt/vllm/bin/vllm": "#!\n" * 1000})]


def send(layout: Path, contents: Path, address: str, tag: str = "v1") -> push.Pushed:
    return push.push(layout, contents, reference.parse(f"{address}:{tag}"), pause=0)


def test_an_image_comes_back_as_it_was(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    root = layouts.image(tmp_path / "layout", LAYERS)
    pushed = send(tmp_path / "layout", contents, address)
    assert pushed.digest == root["digest"]
    push.pull(reference.parse(f"{address}:v1"), tmp_path / "back")
    same = {file.name: file.read_bytes() for file in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "back" / "blobs" / "sha256").iterdir()} == same
    assert Layout(tmp_path / "back").root() == root["digest"]


def test_an_index_with_attestations_is_pushed_whole_and_pulled_for_this_platform(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    root = layouts.attested(tmp_path / "layout", LAYERS)
    assert send(tmp_path / "layout", contents, address).digest == root["digest"]
    blobs = {f"sha256:{file.name}" for file in (tmp_path / "layout" / "blobs" / "sha256").iterdir()}
    assert blobs <= fake.blobs.keys() | fake.manifests.keys()
    push.pull(reference.parse(f"{address}:v1"), tmp_path / "back")
    place = Layout(tmp_path / "back")
    assert [layer.made_by for layer in push.describe(place, place.root()).layers] == ["step 0", "step 1"]


def test_the_list_of_contents_refers_to_the_image(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", LAYERS)
    pushed = send(tmp_path / "layout", contents, address)
    manifest = json.loads(fake.manifests[pushed.sbom][1])
    assert manifest["subject"]["digest"] == pushed.digest
    assert fake.blobs[manifest["layers"][0]["digest"]] == contents.read_bytes()
    with Registry(reference.parse(address)) as registry:
        listed = registry.referrers(pushed.digest)
    assert [(each["digest"], each["artifactType"]) for each in listed] == [(pushed.sbom, sbom.MEDIA_TYPE)]


def test_pushing_again_sends_nothing_and_lists_the_contents_once(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", LAYERS)
    first = send(tmp_path / "layout", contents, address)
    again = send(tmp_path / "layout", contents, address, "v2")
    assert (again.digest, again.sbom, again.sent) == (first.digest, first.sbom, 0)
    with Registry(reference.parse(address)) as registry:
        assert len(registry.referrers(first.digest)) == 1


def test_other_referrers_of_the_image_stay_listed(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    root = layouts.image(tmp_path / "layout", LAYERS)
    other = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{'5' * 64}", "size": 5, "artifactType": "signature"}
    listing = json.dumps({"schemaVersion": 2, "manifests": [other]}).encode()
    fake.manifests[root["digest"].replace(":", "-")] = ("application/vnd.oci.image.index.v1+json", listing)
    send(tmp_path / "layout", contents, address)
    with Registry(reference.parse(address)) as registry:
        assert {each["artifactType"] for each in registry.referrers(root["digest"])} == {"signature", sbom.MEDIA_TYPE}


def test_a_push_that_breaks_off_leaves_no_tag(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", LAYERS)
    fake.cut_patches = [100] * 50
    fake.forgets_uploads = True
    with pytest.raises(FleetError, match="broke off 5 times"):
        send(tmp_path / "layout", contents, address)
    assert not fake.manifests


def test_the_tag_is_the_last_thing_that_is_written(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    layouts.attested(tmp_path / "layout", LAYERS)
    send(tmp_path / "layout", contents, address)
    written = [path.rsplit("/", 1)[1] for method, path in fake.seen if method in {"PUT", "POST", "PATCH"}]
    assert written[-1] == "v1"
    assert written.count("v1") == 1


def test_a_damaged_layer_is_not_pushed(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", LAYERS)
    largest = max((tmp_path / "layout" / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)
    largest.write_bytes(b"x" + largest.read_bytes()[1:])
    with pytest.raises(FleetError, match="digest mismatch"):
        send(tmp_path / "layout", contents, address)
    assert not fake.manifests


def test_a_layer_that_comes_damaged_leaves_nothing(fake: Fake, address: str, contents: Path, tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", LAYERS)
    send(tmp_path / "layout", contents, address)
    name = max(fake.blobs, key=lambda each: len(fake.blobs[each]))
    fake.blobs[name] = b"x" + fake.blobs[name][1:]
    with pytest.raises(FleetError, match="digest mismatch"):
        push.pull(reference.parse(f"{address}:v1"), tmp_path / "back")
    assert [each.name for each in tmp_path.iterdir() if "back" in each.name] == []


def test_an_image_tells_its_layers_with_the_steps_that_made_them(tmp_path: Path) -> None:
    layouts.image(tmp_path / "layout", LAYERS, {"Labels": {"org.opencontainers.image.version": "0.32.0"}})
    place = Layout(tmp_path / "layout")
    found = push.describe(place, place.root())
    assert [(layer.size, layer.made_by) for layer in found.layers] == [(len(LAYERS[0]), "step 0"), (len(LAYERS[1]), "step 1")]
    assert found.size == sum(map(len, LAYERS))
    assert found.labels["org.opencontainers.image.version"] == "0.32.0"


@pytest.mark.parametrize("text", ["registry.example.com/fleet/runtime", "oci://registry.example.com/fleet/runtime"])
def test_a_repository_is_named_with_or_without_the_scheme(text: str) -> None:
    found = push.parse_repository(text)
    assert (found.host, found.repository) == ("registry.example.com", "fleet/runtime")


@pytest.mark.parametrize("text", ["registry.example.com/fleet/runtime:v1", f"oci://h/r@sha256:{'0' * 64}"])
def test_a_repository_has_neither_tag_nor_digest(text: str) -> None:
    with pytest.raises(FleetError, match="without tag and digest"):
        push.parse_repository(text)
