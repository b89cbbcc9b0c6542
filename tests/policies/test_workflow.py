"""The workflow that previews pull requests runs our commands, with no more rights than they need."""

import re
import shlex
from typing import Any

import yaml

from operations.cli import parse
from toolchain import paths

_FILE = paths.REPO / ".github" / "workflows" / "preview.yml"


def _workflow() -> dict[str, Any]:
    # `on` is true to YAML 1.1; as text it is itself.
    return yaml.load(_FILE.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def _steps() -> list[dict[str, Any]]:
    return [step for job in _workflow()["jobs"].values() for step in job["steps"]]


def test_actions_are_pinned_by_commit() -> None:
    used = [step["uses"] for step in _steps() if "uses" in step]
    assert used
    assert [each for each in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", each)] == []
    # The release that the commit is, for people and for bots.
    assert len(re.findall(r"uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+\n", _FILE.read_text(encoding="utf-8"))) == len(used)


def test_code_of_a_pull_request_never_runs_with_the_rights_of_its_base() -> None:
    assert list(_workflow()["on"]) == ["pull_request"]


def test_rights_are_named_by_job_and_only_the_comment_may_write() -> None:
    assert _workflow()["permissions"] == {}
    rights = {name: job["permissions"] for name, job in _workflow()["jobs"].items()}
    assert rights == {"preview": {"contents": "read"}, "comment": {"contents": "read", "pull-requests": "write"}}
    assert "secrets." not in _FILE.read_text(encoding="utf-8")


def test_no_text_of_a_pull_request_becomes_part_of_a_script() -> None:
    assert [step["run"] for step in _steps() if "${{" in step.get("run", "")] == []


def test_every_fleet_command_is_one_that_there_is() -> None:
    called = [line for step in _steps() for line in step.get("run", "").splitlines() if ".venv/bin/fleet " in line]
    assert len(called) == 3
    for line in called:
        words = shlex.split(line.partition(">>")[0])
        parse(words[1:])
