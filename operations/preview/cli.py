"""`fleet preview`, `fleet preview-change` and `fleet preview-comment`, done and printed. Their options are command.py."""

import argparse
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.spec import SpecError
from operations import stack_file
from operations.errors import FleetError
from operations.preview import comment as comments
from operations.preview import detached, github
from operations.preview.comment import Environment
from operations.preview.result import Preview, difference, read
from operations.stack_file import kept
from policies import cost
from stacks.config import resolve_fleet
from toolchain import paths

# A change in these may change what any environment declares, or what is said of it.
_OF_ALL = ("components/", "planning/", "policies/", "runtime_image/", "toolchain/", "operations/preview/", "Pulumi.yaml", "pyproject.toml", "requirements.lock")


def preview(arguments: argparse.Namespace) -> None:
    """Raises FleetError where a policy refuses the stack, or the program does."""
    spec = stack_file.read_spec(stack_file.path(arguments.stack))
    base = read(arguments.base) if arguments.base else None
    with detached.project() as project:
        found = project.preview(arguments.stack, spec, _cost(arguments.stack, base))
    if arguments.json:
        found.write(arguments.json)
    print("\n".join(_told(found, base)))
    if found.errors:
        raise FleetError("\n".join(found.errors))
    if found.refused:
        refusing = sorted({each.policy for each in found.violations if each.mandatory})
        raise FleetError(f"`{arguments.stack}` is refused by {', '.join(refusing)}", hint="docs/policies.md tells each rule, and how one is waived")


def _cost(stack: str, base: Preview | None) -> float | None:
    """What the stack cost in a month before the change, by today's prices."""
    if base is None or base.errors:
        return None
    try:
        total, unpriced = cost.monthly(resolve_fleet(dict(base.spec), kept(stack))[1].fleet)
    except SpecError:
        return None
    return None if unpriced else total


def _told(found: Preview, base: Preview | None) -> Iterator[str]:
    for each in found.violations:
        title, *rest = each.message.split("\n")
        yield f"[{'refused' if each.mandatory else 'told'}] {each.policy} ({each.resource or 'stack'})\n  {title}"
        yield from (f"  {line}" for line in rest)
    if base is not None and not (base.errors or found.errors):
        change = difference(base, found)
        yield from (f"+ {name}" for name in change.added)
        yield from (f"- {name}" for name in change.removed)
        for name, fields in change.changed.items():
            yield f"~ {name}: {', '.join(fields)}"
    yield f"{found.stack}: {len(found.resources)} resources, {found.seconds} s"


def change(arguments: argparse.Namespace) -> None:
    """Raises FleetError where a policy refuses an environment, or the program does."""
    before = _git(arguments.base, "rev-parse", "HEAD")
    files = _git(paths.REPO, "diff", "--name-only", before, "HEAD").splitlines()
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    refused: list[str] = []
    for stack in changed_stacks(files, stack_file.stacks()):
        head, base, plan = (folder / f"{stack}.{what}" for what in ("head.json", "base.json", "plan.md"))
        # A refusal writes its file too. Where there is none, the environment or the command is new.
        _fleet(arguments.base, "preview", "--stack", stack, "--json", str(base))
        known = ("--base", str(base)) if base.exists() else ()
        print(f"== {stack}")
        done = _fleet(paths.REPO, "preview", "--stack", stack, "--json", str(head), *known)
        print(done.stdout + done.stderr, end="")
        if done.returncode:
            refused.append(stack)
        planned = _fleet(paths.REPO, "plan", "--stack", stack, "--markdown")
        if not planned.returncode:
            plan.write_text(planned.stdout, encoding="utf-8")
    if refused:
        raise FleetError(f"refused: {', '.join(refused)}", hint="docs/policies.md tells each rule, and how one is waived")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FleetError(f"git {' '.join(arguments)} in {folder} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _fleet(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`fleet` of a clone: the program and the pins of that commit."""
    command = [str(clone.absolute() / ".venv" / "bin" / "fleet"), *arguments]
    # The clone's own settings, not those of the one that asks.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "FLEET_STATE", "KUBECONFIG"))}
    try:
        return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise FleetError(f"cannot be started: {command[0]}: {error.strerror}", hint=f"make -C {clone} setup") from None


def changed_stacks(files: Sequence[str], known: Sequence[str]) -> list[str]:
    """Of the `known` environments those that a change of these files may touch."""
    program = any(each.startswith(_OF_ALL) or (each.startswith("stacks/") and each.endswith(".py")) for each in files)
    own = {Path(each).name.split(".")[1] for each in files if each.startswith("stacks/") and Path(each).match("Pulumi.*.yaml")}
    return [each for each in known if program or each in own]


def comment(arguments: argparse.Namespace) -> None:
    """Raises FleetError."""
    if not arguments.folder.is_dir():
        raise FleetError(f"no such folder: {arguments.folder}")
    heads = sorted(arguments.folder.glob("*.head.json"))
    body = comments.text([_environment(each) for each in heads], arguments.run_url)
    if not arguments.post:
        print(body)
        return
    token = os.environ.get("GITHUB_TOKEN", "")
    if not token:
        raise FleetError("GITHUB_TOKEN is not set", hint="in a workflow: env: {GITHUB_TOKEN: ${{ github.token }}}")
    print(github.upsert(os.environ.get("GITHUB_API_URL") or "https://api.github.com", token, arguments.post, comments.MARK, body))


def _environment(head: Path) -> Environment:
    name = head.name.removesuffix(".head.json")
    base, plan = head.with_name(f"{name}.base.json"), head.with_name(f"{name}.plan.md")
    return Environment(head=read(head), base=read(base) if base.exists() else None, plan=plan.read_text(encoding="utf-8") if plan.exists() else "")
