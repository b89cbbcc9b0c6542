"""Which backend and which encryption a stack other than `local` has, and what is refused. No engine runs here."""

import json
import os
from pathlib import Path

import pulumi
import pytest
import yaml

from core.errors import FleetError
from operations import stack_file
from operations.state import backend, encryption
from stacks.state import require_own_backend
from toolchain import paths
from toolchain.backend import Backend

LOCAL_SALT = str(yaml.safe_load((paths.REPO / "stacks" / "Pulumi.local.yaml").read_text())["encryptionsalt"])
FILE = Backend("file:///srv/state", "pulumi login")


@pytest.fixture(autouse=True)
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A clone of a user who chose nothing."""
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(paths, "REPO", tmp_path)
    monkeypatch.setattr(paths, "STATE", tmp_path / ".fleet")
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text("name: fleet\n")
    return tmp_path


def log_in(clone: Path, url: str) -> None:
    (clone / "home").mkdir(exist_ok=True)
    (clone / "home" / "credentials.json").write_text(json.dumps({"current": url, "accessTokens": {url: ""}}))


class TestBackend:
    def test_without_a_choice_a_stack_is_refused_with_the_two_commands(self) -> None:
        with pytest.raises(FleetError, match="stack `prod`: no backend is chosen") as refused:
            backend.of("prod")
        lines = [line.strip() for line in refused.value.hint.splitlines()]
        assert lines[0].startswith("pulumi login ")
        assert lines[1].startswith("pulumi stack init prod --secrets-provider=")

    def test_the_order_is_that_of_the_cli(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "token")
        assert str(backend.of("prod")) == "https://api.pulumi.com"
        log_in(clone, "s3://by-login")
        assert str(backend.of("prod")) == "s3://by-login"
        (clone / "Pulumi.yaml").write_text("name: fleet\nbackend: {url: gs://by-project}\n")
        assert str(backend.of("prod")) == "gs://by-project"
        monkeypatch.setenv("PULUMI_BACKEND_URL", "azblob://by-environment")
        assert str(backend.of("prod")) == "azblob://by-environment"

    def test_only_local_has_one_of_its_own_whatever_else_is_chosen(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://team")
        assert backend.of("local").folder == clone / ".fleet" / "pulumi"

    @pytest.mark.parametrize("url", ["file://{clone}/.fleet/pulumi", "file://.fleet/mine", "file://{clone}/x/../.fleet?no_tmp_dir=true"])
    def test_one_that_make_down_would_remove_is_refused(self, clone: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        monkeypatch.setenv("PULUMI_BACKEND_URL", url.format(clone=clone))
        with pytest.raises(FleetError, match=r"PULUMI_BACKEND_URL: must not lie below \.fleet/, which `make down` removes") as refused:
            backend.of("prod")
        assert refused.value.hint.startswith("unset PULUMI_BACKEND_URL\n")

    def test_a_password_in_the_url_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PULUMI_BACKEND_URL", "postgres://fleet:secret@db.example/state")
        assert str(backend.of("prod")) == "postgres://db.example/state"

    def test_the_program_refuses_the_same_folder_to_plain_pulumi(self, clone: Path) -> None:
        below = {"PULUMI_BACKEND_URL": f"file://{clone}/.fleet/pulumi"}
        with pytest.raises(pulumi.RunError, match="stack `prod`: PULUMI_BACKEND_URL: must not lie below"):
            require_own_backend("prod", below)
        require_own_backend("local", below)
        require_own_backend("prod", {"PULUMI_BACKEND_URL": f"file://{clone}/mine"})
        require_own_backend("prod", {})


class TestEncryption:
    def check(self, clone: Path, settings: dict[str, str], chosen: Backend = FILE, **environment: str) -> None:
        file = clone / "stacks" / "Pulumi.prod.yaml"
        file.write_text(yaml.safe_dump({"config": {}, **settings}))
        encryption.require("prod", file, chosen, environment)

    def test_nothing_chosen_is_refused_with_the_two_commands(self, clone: Path) -> None:
        with pytest.raises(FleetError, match="no secrets provider is chosen, and file:///srv/state has none of its own") as refused:
            self.check(clone, {})
        assert "pulumi login" in refused.value.hint
        assert "pulumi stack init prod --secrets-provider=" in refused.value.hint

    @pytest.mark.parametrize("public", ["local", ""])
    def test_a_public_passphrase_is_refused(self, clone: Path, public: str) -> None:
        with pytest.raises(FleetError, match=f"must not be the public passphrase, got: `{public}`") as refused:
            self.check(clone, {}, PULUMI_CONFIG_PASSPHRASE=public)
        assert "pulumi stack init prod" in refused.value.hint
        with pytest.raises(FleetError, match="must not be the public passphrase") as refused:
            self.check(clone, {"encryptionsalt": LOCAL_SALT}, PULUMI_CONFIG_PASSPHRASE=public)
        assert "pulumi stack change-secrets-provider -s prod" in refused.value.hint

    def test_a_copy_of_the_local_stack_file_is_refused_though_the_passphrase_is_a_good_one(self, clone: Path) -> None:
        with pytest.raises(FleetError, match=r"stacks/Pulumi\.prod\.yaml: encryptionsalt: is of the public passphrase `local`") as refused:
            self.check(clone, {"encryptionsalt": LOCAL_SALT}, PULUMI_CONFIG_PASSPHRASE="correct horse")
        assert "delete the line" in refused.value.hint
        with pytest.raises(FleetError, match="encryptionsalt: is of the public passphrase"):
            self.check(clone, {"encryptionsalt": LOCAL_SALT})

    def test_a_passphrase_of_ones_own_is_taken_from_the_variable_or_the_file(self, clone: Path) -> None:
        self.check(clone, {}, PULUMI_CONFIG_PASSPHRASE="correct horse")
        word = clone / "word"
        word.write_text("correct horse\n")
        self.check(clone, {}, PULUMI_CONFIG_PASSPHRASE_FILE=str(word))
        assert encryption.passphrase({"PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_CONFIG_PASSPHRASE_FILE": str(word)}) == "", "as the CLI reads them"
        with pytest.raises(FleetError, match="PULUMI_CONFIG_PASSPHRASE_FILE: cannot be read"):
            self.check(clone, {}, PULUMI_CONFIG_PASSPHRASE_FILE=str(clone / "nowhere"))

    def test_a_provider_in_the_stack_file_or_the_service_needs_no_passphrase(self, clone: Path) -> None:
        self.check(clone, {"secretsprovider": "awskms://alias/fleet?region=eu-west-1"}, PULUMI_CONFIG_PASSPHRASE="")
        self.check(clone, {}, Backend("https://api.pulumi.com", "pulumi login"))
        with pytest.raises(FleetError, match="neither PULUMI_CONFIG_PASSPHRASE nor"):
            self.check(clone, {"encryptionsalt": f"{LOCAL_SALT[:-4]}AAA="}, Backend("https://api.pulumi.com", "pulumi login"))

    def test_pulumis_salt_is_read(self) -> None:
        assert encryption.opens(LOCAL_SALT, "local")
        assert not encryption.opens(LOCAL_SALT, "another")
        assert not encryption.opens("v1:no:salt", "local")


ADDRESSES = {"frontDoor": {"url": "https://llm.example"}, "regionalGateway": {"address": "192.0.2.1", "port": 80}}
DRIVERS = {"local": {"kind": "local"}, "existing": {"kind": "existing", "kubeconfigPath": "kubeconfig", **ADDRESSES}}


class TestRunsHere:
    @pytest.fixture(autouse=True)
    def stacks(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stack_file, "FOLDER", clone / "stacks")

    def of(self, clone: Path, hub: str, *members: str) -> bool:
        spec = {"hub": {"driver": DRIVERS[hub]}, "clusters": [{"driver": DRIVERS[each]} for each in members]}
        (clone / "stacks" / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": {"fleet:spec": spec}}))
        return stack_file.runs_here("prod")

    def test_a_stack_with_any_cluster_on_this_machine_does(self, clone: Path) -> None:
        assert self.of(clone, "local", "existing")
        assert self.of(clone, "existing", "existing", "local")
        assert not self.of(clone, "existing", "existing")

    def test_what_cannot_be_read_counts_as_if(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(DRIVERS, "existing", {"kind": "existing", "kubeconfig": "misspelt"})
        assert self.of(clone, "existing", "existing")
        (clone / "stacks" / "Pulumi.prod.yaml").write_text("config: [")
        assert stack_file.runs_here("prod")
