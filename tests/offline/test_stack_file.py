"""What the real Pulumi CLI makes of a stack file is what specs/yaml_file.py makes of it."""

import json
from typing import Any

import pytest

from specs import yaml_file
from specs.base import SpecError
from tests.offline.conftest import Project
from tests.unit.test_yaml_file import MEANINGS


def test_pulumi_reads_every_value_alike(project: Project) -> None:
    file = project.folder / "Pulumi.test.yaml"
    values = "".join(f"    - {written}\n" for written in MEANINGS)
    file.write_text(f"{file.read_text()}config:\n  proj:spec:\n{values}" if file.exists() else f"config:\n  proj:spec:\n{values}")
    told: Any = json.loads(project.pulumi("config", "--json", "--stack", "test").ok().output)
    found = yaml_file.from_pulumi(json.loads(told["proj:spec"]["value"]))
    assert dict(zip(MEANINGS, found, strict=True)) == MEANINGS
    assert yaml_file.read(file)["config"]["proj:spec"] == found


def test_pulumi_reads_what_we_write_as_it_was(project: Project) -> None:
    file = project.folder / "Pulumi.test.yaml"
    texts = [*MEANINGS, "2026-11-01T10:00:00Z", "naïve 😀", "a: b", "#"]
    kept = yaml_file.read(file) if file.exists() else {}
    file.write_text(yaml_file.dump({**kept, "config": {"proj:spec": texts}}))
    told: Any = json.loads(project.pulumi("config", "--json", "--stack", "test").ok().output)
    assert json.loads(told["proj:spec"]["value"]) == texts


@pytest.mark.parametrize("written", ["{a: 1, a: 2}", "[", "&a [*a]"])
def test_pulumi_refuses_what_we_refuse(project: Project, written: str) -> None:
    (project.folder / "Pulumi.test.yaml").write_text(f"config:\n  proj:spec: {written}\n")
    assert project.pulumi("config", "--json", "--stack", "test").code != 0
    with pytest.raises(SpecError):
        yaml_file.read(project.folder / "Pulumi.test.yaml")
