"""The artifact of a model: the same bytes wherever it is packed, an image and a ModelPack manifest over the same blobs."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import FleetError
from local import registry, tiny_model
from oci import blobs, image, layout, model, transfer
from oci.image import Artifact, Document
from tests.unit.models import TENSORS, names_in, safetensors, write_model
from toolchain import paths


def body(document: Document) -> dict[str, Any]:
    return json.loads(b"".join(document.blob.read()))


def blob_of(artifact: Artifact, digest: str) -> bytes:
    return b"".join(next(each for each in artifact.blobs if each.digest == digest).read())


def test_packing_twice_gives_the_same_digest_whatever_owner_time_mode_and_order_the_files_have(tmp_path: Path) -> None:
    first = write_model(tmp_path / "one" / "m", files={"sub/extra.json": b"{}"})
    second = tmp_path / "two" / "m"
    second.mkdir(parents=True)
    for name in ("tokenizer.json", "sub/extra.json", "LICENSE", "model.safetensors", "tokenizer_config.json", "config.json"):
        (second / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(first / name, second / name)
        (second / name).chmod(0o600)
        os.utime(second / name, (1, 1))
    assert transfer.pack(first)[0].digest == transfer.pack(second)[0].digest


def test_one_changed_byte_of_a_weight_changes_the_digest_and_its_layer_alone(tmp_path: Path) -> None:
    shards = {"a.safetensors": safetensors({"model.embed_tokens.weight": TENSORS["model.embed_tokens.weight"]}), "model.safetensors": None}
    rest = {name: shape for name, shape in TENSORS.items() if "embed" not in name}
    index = {"weight_map": {name: "a.safetensors" if "embed" in name else "b.safetensors" for name in TENSORS}}
    files = {**shards, model.INDEX: json.dumps(index).encode()}
    before, _ = transfer.pack(write_model(tmp_path / "x" / "m", files={**files, "b.safetensors": safetensors(rest)}))
    after, _ = transfer.pack(write_model(tmp_path / "y" / "m", files={**files, "b.safetensors": safetensors(rest, fill=1)}))
    assert before.digest != after.digest
    layers = [{each["digest"] for each in body(each.manifests[0])["layers"]} for each in (before, after)]
    assert len(layers[0]) == 4
    assert len(layers[0] - layers[1]) == 1


def test_container_runtimes_find_an_image_for_their_platform_with_the_model_below_models(tmp_path: Path) -> None:
    artifact, _ = transfer.pack(write_model(tmp_path / "m"))
    entries = body(artifact.index)["manifests"]
    assert [each["platform"] for each in entries] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
        # Taken by no runtime.
        {"architecture": "unknown", "os": "unknown"},
    ]
    for architecture, document in zip(("amd64", "arm64"), artifact.manifests, strict=False):
        manifest = body(document)
        config = json.loads(blob_of(artifact, manifest["config"]["digest"]))
        assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        assert config["architecture"] == architecture
        # containerd compares the digest of every unpacked layer with these.
        assert config["rootfs"]["diff_ids"] == [each["digest"] for each in manifest["layers"]]
        assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
        names: dict[str, tarfile.TarInfo] = {}
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob_of(artifact, layer["digest"]))) as archive:
                names |= {member.name: member for member in archive}
        assert set(names) == {"models", *(f"models/{name}" for name in names_in(tmp_path / "m"))}
        assert {(each.uid, each.gid, each.mtime, each.mode) for each in names.values()} == {(0, 0, 0, 0o644), (0, 0, 0, 0o755)}


def test_modelpack_is_a_second_manifest_over_the_same_blobs(tmp_path: Path) -> None:
    artifact, _ = transfer.pack(write_model(tmp_path / "m"))
    manifest = body(artifact.modelpack)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert [each["digest"] for each in manifest["layers"]] == [each["digest"] for each in body(artifact.manifests[0])["layers"]]
    assert [each["mediaType"] for each in manifest["layers"]] == [
        "application/vnd.cncf.model.weight.config.v1.tar",
        "application/vnd.cncf.model.doc.v1.tar",
        "application/vnd.cncf.model.weight.v1.tar",
    ]
    assert manifest["layers"][-1]["annotations"]["org.cncf.model.filepath"] == "model.safetensors"
    config = json.loads(blob_of(artifact, manifest["config"]["digest"]))
    assert config["config"]["format"] == "safetensors"
    assert config["config"]["paramSize"] == "0.2k"
    assert config["modelfs"] == {"type": "layers", "diffIds": [each["digest"] for each in manifest["layers"]]}


def test_raw_modelpack_layers_are_the_files_themselves_under_their_paths(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", files={"sub/extra.json": b"{}"})
    artifact, _ = transfer.pack(folder, raw=True)
    for layer in body(artifact.modelpack)["layers"]:
        path = layer["annotations"]["org.cncf.model.filepath"]
        assert layer["mediaType"].endswith(".v1.raw")
        assert blob_of(artifact, layer["digest"]) == (folder / path).read_bytes()
    assert {each["annotations"]["org.cncf.model.filepath"] for each in body(artifact.modelpack)["layers"]} == set(model.scan(folder))


def test_the_facts_are_written_on_every_manifest_and_on_the_image(tmp_path: Path) -> None:
    artifact, found = transfer.pack(write_model(tmp_path / "m"))
    config = json.loads(blob_of(artifact, body(artifact.manifests[0])["config"]["digest"]))
    for notes in (*(body(each)["annotations"] for each in (artifact.index, *artifact.manifests)), config["config"]["Labels"]):
        assert json.loads(notes[image.FACTS]) == found.facts


def test_a_file_of_more_than_eight_gigabytes_gets_a_header_that_readers_of_layers_know(tmp_path: Path) -> None:
    size = 9 << 30
    archive = blobs.tar("x", [("models/x.safetensors", tmp_path / "x", size)])
    head = io.BytesIO(b"".join(each.content for each in archive.segments if isinstance(each.content, bytes)))
    with tarfile.open(fileobj=head, mode="r|") as found:
        assert [(each.name, each.size) for each in (found.next(), found.next()) if each] == [("models", 0), ("models/x.safetensors", size)]
    assert archive.size > size


def test_a_blob_is_read_from_any_byte_on(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    archive = blobs.tar("x", [("models/config.json", folder / "config.json", (folder / "config.json").stat().st_size)])
    whole = b"".join(archive.read())
    assert len(whole) == archive.size
    assert all(b"".join(archive.read(offset)) == whole[offset:] for offset in (1, 511, 512, 700, 1100, archive.size - 1, archive.size))


def test_a_layout_is_read_back_as_the_same_artifact(tmp_path: Path) -> None:
    artifact, _ = transfer.pack(write_model(tmp_path / "m"))
    layout.write(artifact, tmp_path / "layout")
    again = transfer.from_layout(tmp_path / "layout")
    assert again.digest == artifact.digest
    assert {each.digest for each in again.blobs} == {each.digest for each in artifact.blobs}
    for file in (tmp_path / "layout" / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "must have `manifests`, each with its `digest`"),
        ('{"manifests": [5]}', "must have `manifests`, each with its `digest`"),
        ('{"manifests": []}', "must hold one artifact, got: `0`"),
    ],
)
def test_a_layout_with_another_index_is_refused(tmp_path: Path, index: str, told: str) -> None:
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(FleetError, match=re.escape(told)):
        layout.Layout(tmp_path).root()


def test_a_layout_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    artifact, _ = transfer.pack(folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(FleetError, match="became shorter while it was read"):
        layout.write(artifact, tmp_path / "layout")
    assert names_in(tmp_path) == ["m"]


def test_a_directory_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    artifact, _ = transfer.pack(write_model(tmp_path / "m"))
    with pytest.raises(FleetError, match="is there already"):
        layout.write(artifact, tmp_path / "m")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    artifact, _ = transfer.pack(write_model(tmp_path / "m"))
    layout.write(artifact, tmp_path / "layout")
    return tmp_path / "layout"


def _largest(folder: Path) -> Path:
    return max((folder / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)


def test_verify_reads_every_byte(packed: Path) -> None:
    assert transfer.verify(str(packed)).found.licences == ("LICENSE",)
    file = _largest(packed)
    whole = file.read_bytes()
    # A number, the header of the weight file, the header of the archive: each makes what comes after it unreadable in its own way.
    for place in (-1600, 1030, 20):
        content = bytearray(whole)
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(FleetError, match="digest mismatch"):
            transfer.verify(str(packed))
    with pytest.raises(FleetError, match="digest mismatch"):
        transfer.from_layout(packed)


def test_nothing_of_a_damaged_artifact_is_kept_by_pull(packed: Path, tmp_path: Path) -> None:
    transfer.pull(str(packed), tmp_path / "whole")
    assert {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()} == {file.name: file.read_bytes() for file in (tmp_path / "m").iterdir()}
    file = _largest(packed)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FleetError, match="digest mismatch"):
        transfer.pull(str(packed), tmp_path / "damaged")
    assert names_in(tmp_path) == ["layout", "m", "whole"]


def test_a_missing_blob_is_told(packed: Path) -> None:
    _largest(packed).unlink()
    with pytest.raises(FleetError, match="lacks the blob sha256:"):
        transfer.verify(str(packed))


def test_verify_refuses_a_model_without_a_licence_unless_told(tmp_path: Path) -> None:
    artifact, _ = transfer.pack(write_model(tmp_path / "m", files={"LICENSE": None}))
    layout.write(artifact, tmp_path / "layout")
    with pytest.raises(FleetError, match="has no licence file"):
        transfer.verify(str(tmp_path / "layout"))
    transfer.verify(str(tmp_path / "layout"), licence_needed=False)


def test_verify_finds_facts_that_are_not_those_of_the_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    files = model.scan(folder)
    honest = model.examine(model.contents_of(folder, files))
    lying = model.Model({**honest.facts, "layers": 99}, (), ())
    layout.write(image.build("m", files, lying), tmp_path / "layout")
    with pytest.raises(FleetError, match="layers: is `2`, written is: `99`"):
        transfer.verify(str(tmp_path / "layout"))


@pytest.mark.parametrize("name", ["models/../../evil", "models/a/../../../evil"])
def test_a_layer_cannot_write_outside_the_model(tmp_path: Path, name: str) -> None:
    header = tarfile.TarInfo(name)
    header.size = 1
    _image_of(tmp_path, header.tobuf(tarfile.PAX_FORMAT) + b"x" + bytes(511) + bytes(1024))
    with pytest.raises(FleetError, match="must have a path inside the model"):
        transfer.pull(str(tmp_path / "layout"), tmp_path / "out")
    assert names_in(tmp_path) == ["layout"]


def test_a_link_in_a_layer_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("models/config.json")
    header.type, header.linkname = tarfile.SYMTYPE, "/etc/passwd"
    _image_of(tmp_path, header.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(FleetError, match="must be a regular file in its layer"):
        transfer.pull(str(tmp_path / "layout"), tmp_path / "out")


def _image_of(tmp_path: Path, content: bytes) -> None:
    """A layout whose image has one layer of these bytes, all digests right."""
    layer = blobs.of_bytes("layer", content)
    config = blobs.of_bytes("config", b"{}")
    described = {"mediaType": image.OCI_LAYER, "digest": layer.digest, "size": layer.size}
    manifest = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": {"mediaType": image.OCI_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [described],
    }
    document = Document(image.OCI_MANIFEST, blobs.of_bytes("manifest", json.dumps(manifest).encode()), {})
    layout.write(Artifact(document, (), document, (layer, config)), tmp_path / "layout")


def test_the_local_stack_names_the_digest_of_the_model_that_is_made_here(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / tiny_model.NAME)
    digest = transfer.pack(tmp_path / tiny_model.NAME)[0].digest
    stack = yaml.safe_load((paths.REPO / "stacks" / "Pulumi.local.yaml").read_text())
    (source,) = (each["source"] for each in stack["config"]["fleet:spec"]["models"] if each["name"] == tiny_model.NAME)
    assert source == f"oci://{registry.HOST}/models/{tiny_model.NAME}@{digest}", "tiny-chat or its artifact changed: write the new digest into the stack file"
