"""Artifacts against the pinned registry itself, also over a line that breaks, and the commands of `fleet model`."""

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from core.errors import FleetError
from local import tiny_model
from oci import blobs, image, reference, transfer
from operations import cli
from tests.conftest import free_port


@dataclass
class Line:
    """A way to the registry. cuts: after so many bytes the next connections that carry data break; an empty list: none does."""

    port: int
    cuts: list[int] = field(default_factory=list[int])
    broken: int = 0
    carried: int = 0
    """Bytes to the registry."""


@pytest.fixture
def line(registry: str) -> Iterator[Line]:
    with _breaking(registry) as found:
        yield found


@contextlib.contextmanager
def _breaking(target: str) -> Generator[Line]:
    """A TCP relay to the registry. A connection is cut once it has carried as many bytes as the first of `cuts`, which is a large request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Line(server.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                host, _, port = target.partition(":")
                upstream = socket.create_connection((host, int(port)))
                threading.Thread(target=forward, args=(client, upstream, True), daemon=True).start()
                threading.Thread(target=forward, args=(upstream, client, False), daemon=True).start()

        def forward(source: socket.socket, sink: socket.socket, counted: bool) -> None:
            carried = 0
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    carried += len(data)
                    found.carried += len(data) if counted else 0
                    if counted and found.cuts and carried > found.cuts[0]:
                        found.cuts.pop(0)
                        found.broken += 1
                        break
                    sink.sendall(data)
            for each in (source, sink):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                # Or a client in the midst of sending would wait for room instead of hearing of it.
                each.close()

        threading.Thread(target=serve, daemon=True).start()
        yield found
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    tiny_model.write(folder)
    (folder / "LICENSE").write_text("All may use it.\n")
    return folder


def _tags(registry: str, repository: str) -> list[str]:
    answer = httpx.get(f"http://{registry}/v2/{repository}/tags/list", trust_env=False)
    return sorted(answer.json().get("tags") or []) if answer.status_code == 200 else []


def test_a_model_comes_back_from_the_registry_as_it_went(registry: str, tiny_chat: Path, tmp_path: Path) -> None:
    artifact, _ = transfer.pack(tiny_chat)
    target = f"oci://{registry}/models/whole"
    transfer.push(artifact, reference.parse(f"{target}:v1"))
    assert _tags(registry, "models/whole") == ["v1", "v1-modelpack"]
    transfer.pull(f"{target}@{artifact.digest}", tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {file.name: file.read_bytes() for file in tiny_chat.iterdir()}
    assert transfer.verify(f"{target}:v1").digest == artifact.digest
    # By the ModelPack manifest too.
    transfer.pull(f"{target}:v1-modelpack", tmp_path / "packed")
    assert (tmp_path / "packed" / "model.safetensors").read_bytes() == (tiny_chat / "model.safetensors").read_bytes()


def test_an_upload_that_breaks_off_in_the_middle_goes_on_from_there(registry: str, line: Line, tiny_chat: Path) -> None:
    artifact, _ = transfer.pack(tiny_chat)
    line.cuts = [2_000_000, 3_000_000]
    transfer.push(artifact, reference.parse(f"oci://127.0.0.1:{line.port}/models/broken:v1"), pause=0.1)
    assert line.broken == 2
    # What the registry had was not sent again, but for what was on its way when the line broke.
    assert line.carried < 1.4 * sum(blob.size for blob in artifact.blobs)
    assert transfer.verify(f"oci://{registry}/models/broken:v1").digest == artifact.digest


def test_a_push_over_a_line_that_breaks_for_good_leaves_no_tag_and_the_next_one_goes_on(registry: str, line: Line, tiny_chat: Path) -> None:
    artifact, _ = transfer.pack(tiny_chat)
    line.cuts = [600_000] * 50
    target = reference.parse(f"oci://127.0.0.1:{line.port}/models/given-up:v1")
    with pytest.raises(FleetError, match=r"broke off 5 times at model.safetensors"):
        transfer.push(artifact, target, pause=0)
    assert _tags(registry, "models/given-up") == []
    line.cuts = []
    # What arrived whole before is not sent again.
    assert transfer.push(artifact, target) < sum(blob.size for blob in artifact.blobs)
    assert _tags(registry, "models/given-up") == ["v1", "v1-modelpack"]


def test_what_a_registry_has_is_neither_packed_nor_pushed_again(registry: str, tiny_chat: Path, tmp_path: Path) -> None:
    artifact, _ = transfer.pack(tiny_chat)
    source = f"oci://{registry}/models/ensured@{artifact.digest}"
    assert transfer.ensure(tiny_chat, source)
    assert transfer.verify(source).digest == artifact.digest
    # With a tag, or a registry would remove it as rubbish.
    assert artifact.digest[7:19] in _tags(registry, "models/ensured")
    # Not even read: the next machine may not have it.
    assert not transfer.ensure(tmp_path / "absent", source)


def test_a_directory_that_is_not_what_the_digest_says_is_not_pushed(registry: str, tiny_chat: Path) -> None:
    artifact, _ = transfer.pack(tiny_chat)
    source = f"oci://{registry}/models/other@sha256:{'0' * 64}"
    with pytest.raises(FleetError, match=f"digest mismatch: .* packs to `{artifact.digest}`"):
        transfer.ensure(tiny_chat, source)
    assert _tags(registry, "models/other") == []


def test_a_registry_that_is_not_there_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.registry._PAUSES_S", (0.0,))
    with pytest.raises(FleetError, match="cannot be reached"):
        transfer.pull(f"oci://127.0.0.1:{free_port()}/models/x:v1", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_image_with_a_shell_goes_below_the_model_where_a_modelcar_needs_one(registry: str, tiny_chat: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "layer", "wb") as stream:
        stream.write(b"".join(blobs.tar("shell", [("bin/sh", tiny_chat / "LICENSE", (tiny_chat / "LICENSE").stat().st_size)]).read()))
    layer = blobs.of_file(tmp_path / "layer")
    settings = {"Entrypoint": ["/entry"], "Env": ["PATH=/bin"]}
    config = {"os": "linux", "architecture": "amd64", "config": settings, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]}}
    told = blobs.of_bytes("config", json.dumps(config).encode())
    described = [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": layer.digest, "size": layer.size}]
    body: dict[str, Any] = {"schemaVersion": 2, "mediaType": image.OCI_MANIFEST, "layers": described}
    body["config"] = {"mediaType": image.OCI_CONFIG, "digest": told.digest, "size": told.size}
    document = image.Document(image.OCI_MANIFEST, blobs.of_bytes("manifest", json.dumps(body).encode()), {})
    target = f"oci://{registry}/library/shell"
    transfer.push(image.Artifact(document, (), document, (layer, told)), reference.parse(f"{target}:v1"))

    with pytest.raises(FleetError, match="must be named by its digest"):
        transfer.pack(tiny_chat, base=f"{target}:v1")
    plain, _ = transfer.pack(tiny_chat)
    artifact, _ = transfer.pack(tiny_chat, base=f"{target}@{document.blob.digest}")
    transfer.push(artifact, reference.parse(f"oci://{registry}/models/modelcar:v1"))
    manifest, without = (json.loads(b"".join(each.manifests[0].blob.read())) for each in (artifact, plain))
    assert manifest["layers"] == [{**described[0], "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}, *without["layers"]]
    packed = json.loads(b"".join(next(each for each in artifact.blobs if each.digest == manifest["config"]["digest"]).read()))
    # KServe gives arguments alone: an entrypoint would be run with them.
    assert {key: packed["config"].get(key) for key in settings} == {"Entrypoint": None, "Env": ["PATH=/bin"]}
    assert len(packed["rootfs"]["diff_ids"]) == len(manifest["layers"])
    assert [each["platform"]["architecture"] for each in json.loads(b"".join(artifact.index.blob.read()))["manifests"]] == ["amd64", "unknown"]
    transfer.pull(f"oci://{registry}/models/modelcar:v1", tmp_path / "out")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted(each.name for each in tiny_chat.iterdir())


def _fleet(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["fleet", "model", *map(str, arguments)])
    return cli.main()


def test_the_commands_pack_push_inspect_verify_and_pull(
    registry: str, tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"oci://{registry}/models/tiny-chat:v1"
    assert _fleet(monkeypatch, "pack", tiny_chat, target, "--output", tmp_path / "layout") == 0
    digest = capsys.readouterr().out.strip()
    assert _fleet(monkeypatch, "push", tmp_path / "layout", target) == 0
    assert capsys.readouterr().out.strip() == digest
    assert _fleet(monkeypatch, "verify", target) == 0
    assert capsys.readouterr().out.strip() == digest
    assert _fleet(monkeypatch, "pull", target, tmp_path / "out") == 0
    capsys.readouterr()
    for source in (target, tmp_path / "layout", tiny_chat):
        assert _fleet(monkeypatch, "inspect", source, "-s", "local", "--model", "tiny-chat") == 0
        assert yaml.safe_load(capsys.readouterr().out)["facts"]["parameters"] == tiny_model.parameters()


def test_inspect_tells_where_a_stack_file_differs(tiny_chat: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stack = yaml.safe_load((Path(__file__).parents[2] / "stacks" / "Pulumi.local.yaml").read_text())
    other = next(each["name"] for each in stack["config"]["fleet:spec"]["models"] if each["name"] != "tiny-chat")
    assert _fleet(monkeypatch, "inspect", tiny_chat, "-s", "local", "--model", other) == 1
    assert f"models `{other}`: facts differ from the artifact's:" in capsys.readouterr().err
    assert _fleet(monkeypatch, "inspect", tiny_chat, "-s", "local", "--model", "nobody") == 1
    assert "has no model `nobody`" in capsys.readouterr().err


def test_a_command_that_cannot_work_says_so_before_it_reads_a_model(
    tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("pack", tiny_chat), "pack needs a place for the artifact"),
        (("pack", tiny_chat, "registry/x"), "is not a valid oci:// reference"),
        (("pack", tiny_chat, "--output", tmp_path.parent), "is there already"),
        (("pack", tmp_path / "nothing", "--output", tmp_path / "l"), "is not a directory"),
        (("push", tiny_chat, "oci://127.0.0.1:1/x:v1"), "is no OCI layout"),
        (("verify", tiny_chat), "is neither an oci:// reference nor an OCI layout"),
    ):
        assert _fleet(monkeypatch, *arguments) == 1
        assert message in capsys.readouterr().err


def test_the_layout_of_an_artifact_is_one_that_other_programs_read(tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fleet(monkeypatch, "pack", tiny_chat, "--output", tmp_path / "layout") == 0
    assert json.loads((tmp_path / "layout" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    assert (tmp_path / "layout" / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).stat().st_size == entry["size"]
