"""`fleet preview`, `fleet changed-stacks` and `fleet preview-comment`, done and printed. Their options are command.py."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.spec import SpecError
from operations.errors import FleetError
from operations.preview import comment as comments
from operations.preview import detached, github
from operations.preview.comment import Environment
from operations.preview.result import Preview, difference, read
from policies import cost, settings
from stacks.config import parse_fleet

# A change in these may change what any environment declares, or what is said of it.
_OF_ALL = ("components/", "planning/", "policies/", "runtime_image/", "toolchain/", "operations/preview/", "Pulumi.yaml", "pyproject.toml", "requirements.lock")


def preview(arguments: argparse.Namespace) -> None:
    """Raises FleetError where a policy refuses the stack, or the program does."""
    spec = detached.read_spec(detached.stack_file(arguments.stack))
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
        total, unpriced = cost.monthly(parse_fleet(dict(base.spec)), settings.settings(stack, settings.read()))
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


def changed(arguments: argparse.Namespace) -> None:
    names = changed_stacks(arguments.files or sys.stdin.read().split(), detached.stacks())
    print(json.dumps(names) if arguments.json else "\n".join(names))


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
