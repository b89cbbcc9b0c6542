"""What the runbooks tell a person at night exists: commands, fields of the stack file, pages, stages of a drill."""

import json
import re
from pathlib import Path

import pytest

from operations import cli
from operations.driver import USAGE
from toolchain import paths

DOCS = paths.REPO / "docs"
PAGES = sorted((DOCS / "runbooks").glob("*.md"))
CHECKED = [*PAGES, DOCS / "when-a-region-dies.md"]
# Names in the pages that look like fields of a stack file and are none.
OTHERS = {"loadKnown", "openaiBaseUrl", "frontDoors"}


def ids(path: Path) -> str:
    return path.stem


def fields() -> set[str]:
    """Every property of the schema of stack files, however deep."""
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.update(node.get("properties", {}))
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(json.loads((paths.REPO / "stacks" / "schema.json").read_text()))
    return found


@pytest.mark.parametrize("page", CHECKED, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", CHECKED, ids=ids)
def test_commands_of_ours_exist(page: Path) -> None:
    known = set(next(action for action in cli.parser()._actions if action.choices).choices or ())
    code = "\n".join([*re.findall(r"```.*?```", page.read_text(), re.DOTALL), *re.findall(r"`([^`\n]+)`", page.read_text())])
    for command in re.findall(r"(?:^|[;|] |\n)fleet (\S+)", code):
        assert command in known, f"{page.name}: fleet {command}"
    verbs = re.search(r"fleet-driver cluster (\S+) NAME", USAGE)
    assert verbs
    for verb in re.findall(r"fleet-driver cluster (\S+)", code):
        assert verb in verbs[1].strip("{}").split("|"), f"{page.name}: fleet-driver cluster {verb}"
    targets = set(re.findall(r"^([a-z-]+):", (paths.REPO / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|\n)make (?:-s )?([a-z-]+)", code):
        assert target in targets, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", CHECKED, ids=ids)
def test_fields_of_stack_files_exist(page: Path) -> None:
    known = fields()
    for name in re.findall(r"`(?:[a-z]+\.)*([a-z]+(?:[A-Z][a-z]+)+)`", page.read_text()):
        assert name in known | OTHERS, f"{page.name}: {name}"


def test_every_page_is_in_the_list() -> None:
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (DOCS / "runbooks" / "README.md").read_text()))
    assert listed == {page.name for page in PAGES} - {"README.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=ids)
def test_every_page_answers_the_same_questions(page: Path) -> None:
    text = page.read_text()
    places = [text.find(f"**{name}.**") for name in ("Symptom", "See", "Acts by itself", "Do", "Do not")]
    assert -1 not in places
    assert places == sorted(places)
