"""What the documents name exists: paths, links, commands of ours, targets of make, Python modules.

Decisions and the changelog are records of their time: of decisions only links are checked. URLs are not checked.
"""

import importlib.util
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from operations import cli
from toolchain import paths

REPO = paths.REPO
DECISIONS = sorted((REPO / "docs/decisions").glob("*.md"))
PAGES = sorted(
    {REPO / "README.md", *REPO.glob("docs/*.md"), *REPO.glob("docs/runbooks/*.md")}
    | {page for pattern in ("[a-z]*/README.md", "[a-z]*/*/README.md") for page in REPO.glob(pattern)}
)
# Placeholders of commands, and a value that the parser takes for each.
VALUES = {"CASE": "kill", "MODEL": "tiny-chat", "CLUSTER": "us-east", "ENV": "prod", "DIR": "out", "F.json": "result.json", "FILE": "result.json"}
# Files of this repository in backticks: a path, or a name with an ending that only files have. Not .go: pages also name sources of Karmada and Envoy.
ENDINGS = {".py", ".md", ".toml", ".yaml", ".lua", ".lock", ".svg", ".in"}
# Written by programs, or examples of a file that the reader writes.
MADE = {"report.md", "rack.py", "choices.ENV.yaml", "Pulumi.ENV.yaml", "Pulumi.prod.yaml"}


def ids(page: Path) -> str:
    return str(page.relative_to(REPO))


@cache
def tracked() -> frozenset[str]:
    """Every file of the repository and every folder above one."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPO, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    files = {line for line in listed if line and (REPO / line).exists()}
    return frozenset(files | {str(parent) for file in files for parent in PurePosixPath(file).parents} - {"."})


@cache
def tops() -> frozenset[str]:
    return frozenset(PurePosixPath(path).parts[0] for path in tracked())


def inline(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def is_path(token: str) -> bool:
    if not re.fullmatch(r"[\w./*-]+", token) or token.startswith(("/", "~", "-", ".")) or token in MADE or PurePosixPath(token).name in MADE:
        return False
    return PurePosixPath(token).suffix in ENDINGS or ("/" in token and PurePosixPath(token).parts[0] in tops())


def exists(token: str, page: Path) -> bool:
    wanted = token.rstrip("/")
    if (
        wanted.split("/")[0] in tops()
        and "/" in wanted
        and any(PurePosixPath(path).match(wanted) for path in tracked() if path.count("/") == wanted.count("/"))
    ):
        return True
    # In the README of a package: from there. A name or the end of a path is enough where it is the only way that such a file can be meant.
    near = page.parent.relative_to(REPO)
    here = str(near / wanted)
    return any(PurePosixPath(path).match(here) or PurePosixPath(path).match(wanted) for path in tracked())


def commands(text: str) -> list[str]:
    """Lines of code blocks and what stands in backticks, without comments and what a pipe does with the output."""
    lines: list[str] = []
    for block in re.findall(r"```(?:sh|bash|)\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").split("\n")
    return [re.split(r"\s#|\s\||;", line.strip())[0].strip().removeprefix(".venv/bin/") for line in [*lines, *inline(text)]]


def is_checked(command: str) -> bool:
    """Not those with an ellipsis, a list of possibilities, or a placeholder for a verb."""
    return command.startswith("fleet ") and not re.search(r"[…\[\]{}<>$|*()]|\bVERB\b", command)


@pytest.mark.parametrize("page", PAGES + DECISIONS, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{ids(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES + DECISIONS, ids=ids)
def test_anchors_are_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            text = (page.parent / target).read_text() if target else page.read_text()
            headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
            assert anchor in headings, f"{ids(page)} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_paths_exist(page: Path) -> None:
    missing = [token for token in inline(page.read_text()) if is_path(token) and not exists(token, page)]
    assert not missing, f"{ids(page)} names files that do not exist: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_of_fleet_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page.read_text()):
        if is_checked(command):
            try:
                cli.parse([VALUES.get(word, word) for word in shlex.split(command)[1:]])
            except SystemExit:
                error = capsys.readouterr().err
                # A sentence names a command without its arguments.
                assert "the following arguments are required" in error, f"{ids(page)}: {command}: {error}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page.read_text()):
        if found := re.match(r'(?:eval "\$\()?make (?:-s )?([a-z-]+)', command):
            assert found[1] in targets, f"{ids(page)}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_modules_can_be_run(page: Path) -> None:
    for name in re.findall(r"\bpython3? -m ([\w.]+\w)", page.read_text()):
        if name.split(".")[0] not in tops():
            continue
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{ids(page)}: python -m {name}"
        assert spec.origin is not None, f"{ids(page)}: python -m {name}"
        source = Path(spec.origin)
        runnable = source.with_name("__main__.py").exists() if source.name == "__init__.py" else '__name__ == "__main__"' in source.read_text()
        assert runnable, f"{ids(page)}: {name} is no program"
