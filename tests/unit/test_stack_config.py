"""Reading a stack: one error with everything in it, secrets that stay secret, and the program as Pulumi runs it."""

import json
import runpy
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.drivers.commands import require_driver
from stacks import config
from tests.unit import engine, fleets

STACKS = fleets.REPO / "stacks"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    pulumi.runtime.set_all_config({})


def load(raw: Any, folder: Path = STACKS, secrets: Mapping[str, str] | None = None) -> config.StackConfig:
    """Loads in the middle of a program, as pulumi.Config works only there."""
    found: list[config.StackConfig] = []
    secrets = secrets or {}
    values = {} if raw is None else {"fleet:spec": json.dumps(raw)}
    pulumi.runtime.set_all_config({**values, **{f"fleet:{key}": value for key, value in secrets.items()}}, [f"fleet:{key}" for key in secrets])

    def program() -> dict[str, Any]:
        found.append(config.load(folder))
        return {}

    engine.run(program)
    return found[0]


def refused(raw: Any, **more: Any) -> str:
    with pytest.raises(pulumi.RunError) as caught:
        load(raw, **more)
    return str(caught.value)


def test_a_broken_file_of_choices_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "choices.test.yaml").write_text("models: 5")
    told = refused(fleets.small(), folder=tmp_path).splitlines()
    assert told == ["1 error in the kept choices", f"{tmp_path.name}/choices.test.yaml: models: must be a mapping of fields, got: `5`"]


def test_a_date_is_what_the_stack_file_has_and_a_time_without_quotes_is_refused() -> None:
    # What the CLI makes of `date: 2026-11-01`.
    def priced(date: str) -> dict[str, Any]:
        return {**fleets.small(), "planning": {"prices": [{"accelerator": "H100", "dollarsPerGpuHour": 2.5, "date": date}]}}

    assert load(priced("2026-11-01 00:00:00 +0000 UTC")) == load(priced("2026-11-01"))
    told = refused(priced("2026-11-01 10:30:00 +0000 UTC")).splitlines()[1]
    assert told.startswith("stacks/Pulumi.test.yaml: planning.prices[0].date: a time must be in quotes")


def test_every_line_of_an_error_begins_with_the_file() -> None:
    raw = fleets.small()
    raw["models"][0]["placement"]["clusters"][1]["name"] = "wets"
    raw["clusters"][0]["regoin"] = "x"
    lines = refused(raw).splitlines()
    assert lines == [
        "2 errors in the stack file",
        "stacks/Pulumi.test.yaml: clusters[0].regoin: unknown field, got: `regoin`",
        "  hint: did you mean `region`?",
        "stacks/Pulumi.test.yaml: models[0].placement.clusters[1].name: no such cluster in `clusters`, got: `wets`",
        "  hint: did you mean `west`?",
    ]


def test_a_stack_without_a_fleet_is_told_what_is_missing() -> None:
    assert refused(None) == "stacks/Pulumi.test.yaml: fleet:spec: is required\n  hint: docs/stack-file.md shows a whole one"


def existing(**where: str) -> dict[str, Any]:
    raw = fleets.small()
    doors = {"frontDoor": {"url": "https://llm.example.com"}, "regionalGateway": {"address": "192.0.2.1", "port": 80}}
    raw["clusters"][1]["driver"] = {"kind": "existing", **doors, **where}
    return raw


def test_the_kubeconfig_of_the_cluster_in_which_karmada_runs_is_no_cluster_s(tmp_path: Path) -> None:
    raw = fleets.small()
    (tmp_path / "host.yaml").write_text("of the host")
    host = {"kubeconfigPath": "host.yaml", "namespace": "karmada"}
    raw["hub"] = {"name": "control", "driver": {"kind": "existing", "kubeconfigSecret": "hub", "host": host}}
    loaded = load(raw, folder=tmp_path, secrets={"hub": "of the hub"})
    assert set(loaded.kubeconfigs) == {"control"}
    assert loaded.host_kubeconfig is not None
    del host["kubeconfigPath"]
    assert "hub.driver.host: needs exactly one of `kubeconfigPath` and `kubeconfigSecret`" in refused(raw)
    host["kubeconfigPath"] = "nothing.yaml"
    assert "hub.driver.host.kubeconfigPath: cannot be read" in refused(raw, secrets={"hub": "of the hub"})


def test_a_member_has_no_host_of_karmada() -> None:
    raw = existing(kubeconfigSecret="kubeconfig-west")
    raw["clusters"][1]["driver"]["host"] = {"kubeconfigSecret": "x"}
    assert "clusters[1].driver.host: must not be set for a member" in refused(raw)


def test_a_kubeconfig_comes_from_a_pulumi_secret_and_stays_one() -> None:
    loaded = load(existing(kubeconfigSecret="kubeconfig-west"), secrets={"kubeconfig-west": "very secret"})
    assert set(loaded.kubeconfigs) == {"west"}
    assert "very secret" not in repr(loaded)


def test_a_missing_secret_is_told_with_the_command_that_sets_it() -> None:
    text = refused(existing(kubeconfigSecret="kubeconfig-west"))
    assert "clusters[1].driver.kubeconfigSecret: no such secret in the stack's configuration, got: `kubeconfig-west`" in text
    assert "pulumi config set --secret fleet:kubeconfig-west" in text


def test_a_kubeconfig_file_is_found_beside_the_stack_file(tmp_path: Path) -> None:
    (tmp_path / "west.kubeconfig").write_text("kind: Config\n")
    assert set(load(existing(kubeconfigPath="west.kubeconfig"), folder=tmp_path).kubeconfigs) == {"west"}
    text = refused(existing(kubeconfigPath="wets.kubeconfig"), folder=tmp_path)
    assert "clusters[1].driver.kubeconfigPath: cannot be read (No such file or directory), got: `wets.kubeconfig`" in text


def test_the_kubeconfig_of_an_existing_hub_is_found_like_that_of_a_member() -> None:
    raw = {**fleets.small(), "hub": {"name": "control", "driver": {"kind": "existing", "kubeconfigSecret": "karmada"}}}
    assert set(load(raw, secrets={"karmada": "very secret"}).kubeconfigs) == {"control"}
    assert "hub.driver.kubeconfigSecret: no such secret in the stack's configuration, got: `karmada`" in refused(raw)


def test_a_kubeconfig_file_that_is_no_text_is_told_by_its_field(tmp_path: Path) -> None:
    (tmp_path / "west.kubeconfig").write_bytes(b"\xff\xfe")
    assert "clusters[1].driver.kubeconfigPath: is not valid UTF-8, got: `west.kubeconfig`" in refused(
        existing(kubeconfigPath="west.kubeconfig"), folder=tmp_path
    )


def test_the_program_needs_the_driver_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pulumi.RunError, match='eval "\\$\\(make -s env\\)"'):
        require_driver()


def test_the_program_runs_as_pulumi_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "fleet-driver"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    raw = fleets.read(STACKS / "Pulumi.local.yaml")
    pulumi.runtime.set_all_config({"fleet:spec": json.dumps(raw)})

    def program() -> dict[str, Any]:
        runpy.run_path(str(STACKS / "__main__.py"), run_name="__main__")
        return {}

    declared, _ = engine.run(program)
    assert [each.name for each in declared.of_kind("InferenceService")] == ["llama-3-70b-isvc", "qwen-eu-isvc", "tiny-chat-isvc"]
