"""`fleet preview`, `fleet preview-change` and `fleet preview-comment`, done and printed. Their options are commands/preview*.py."""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import FleetError
from operations import stack_file
from operations.preview import comment as comments
from operations.preview import detached, github
from operations.preview.comment import Environment
from operations.preview.result import Preview, difference, read
from operations.stack_file import kept
from planning.stack_file import resolve_fleet
from policies import cost
from specs.base import SpecError
from toolchain import paths

# A change in these may change what any environment declares, or what is said of it.
_OF_ALL = (
    *(
        "components/",
        "specs/",
        "core/",
        "oci/",
        "planning/",
        "policies/",
        "runtime_image/",
        "toolchain/",
        "operations/preview/",
        "operations/plan/",
        "operations/stack_file.py",
    ),
    *("Pulumi.yaml", "pyproject.toml", "requirements.lock"),
)
# Which environments a change may touch, written before they are previewed: one that then fails is not forgotten.
_TOUCHED = "environments.json"


def preview(arguments: argparse.Namespace) -> None:
    """Raises FleetError where a policy refuses the stack, or the program does."""
    spec = stack_file.read_spec(stack_file.path(arguments.stack))
    base = read(arguments.base) if arguments.base else None
    if base is not None and base.stack != arguments.stack:
        raise FleetError(f"{arguments.base} is a preview of `{base.stack}`, not of `{arguments.stack}`")
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
        yield f"[{'refused' if each.mandatory else 'advisory'}] {each.policy} ({each.resource or 'stack'})\n  {title}"
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
    # Names of files as they are: quoted ones begin with a quote, and a renamed file has its old name too.
    files = _git(paths.REPO, "diff", "--name-only", "--no-renames", "-z", before, "HEAD").split("\0")
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    known = stack_file.stacks(paths.REPO / "stacks")
    touched = changed_stacks(files, known)
    gone = sorted(set(stack_file.stacks(arguments.base / "stacks")) - set(known))
    (folder / _TOUCHED).write_text(json.dumps({"touched": touched, "gone": gone}), encoding="utf-8")
    refused: list[str] = []
    for stack in [*touched, *gone]:
        head, base, plan = (folder / f"{stack}.{what}" for what in ("head.json", "base.json", "plan.md"))
        for each in (head, base, plan):
            each.unlink(missing_ok=True)
        # A refusal writes its file too. Where there is none, the environment or the command is new.
        _fleet(arguments.base, "preview", f"--stack={stack}", f"--json={base}")
        print(f"== {stack}")
        if stack in gone:
            print("has no stack file any more")
            continue
        done = _fleet(paths.REPO, "preview", f"--stack={stack}", f"--json={head}", *([f"--base={base}"] if _read_if_any(base) else []))
        print(done.stdout + done.stderr, end="")
        if done.returncode:
            refused.append(stack)
            if not head.exists():
                Preview(stack=stack, spec={}, errors=(done.stderr.strip() or "fleet preview ended without a word",)).write(head)
        planned = _fleet(paths.REPO, "plan", f"--stack={stack}", "--markdown")
        if not planned.returncode:
            plan.write_text(planned.stdout, encoding="utf-8")
    if refused:
        raise FleetError(f"refused: {', '.join(refused)}", hint="docs/policies.md tells each rule, and how one is waived")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FleetError(f"git {' '.join(arguments)} in {folder} failed: {done.stderr.strip()}")
    return done.stdout.strip("\0\n")


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
    names = [Path(each).name for each in files if each.startswith("stacks/")]
    own = {stack_file.name_of(each) for each in names if Path(each).match("Pulumi.*.yaml")}
    own |= {each.removeprefix("choices.").removesuffix(".yaml") for each in names if Path(each).match("choices.*.yaml")}
    return [each for each in known if program or each in own]


def comment(arguments: argparse.Namespace) -> None:
    """Raises FleetError."""
    if not arguments.folder.is_dir():
        raise FleetError(f"no such folder: {arguments.folder}")
    body = comments.text(_environments(arguments.folder), arguments.run_url)
    if not arguments.post:
        print(body)
        return
    token = os.environ.get("GITHUB_TOKEN", "").strip()
    if not token:
        raise FleetError("GITHUB_TOKEN is not set", hint="in a workflow: env: {GITHUB_TOKEN: ${{ github.token }}}")
    print(github.upsert(os.environ.get("GITHUB_API_URL") or "https://api.github.com", token, arguments.post, comments.MARK, body))


def _environments(folder: Path) -> list[Environment] | None:
    """What is known of every environment that the change may touch; None where nobody looked."""
    if not (folder / _TOUCHED).exists():
        return None
    try:
        told = json.loads((folder / _TOUCHED).read_text(encoding="utf-8"))
        names = [*told["touched"], *told["gone"]]
    except (ValueError, KeyError, TypeError):
        raise FleetError(f"was not written by `fleet preview-change`: {folder / _TOUCHED}") from None
    return [_environment(folder, name) for name in names]


def _environment(folder: Path, name: str) -> Environment:
    plan = folder / f"{name}.plan.md"
    head, base = (folder / f"{name}.{what}.json" for what in ("head", "base"))
    told = plan.read_text(encoding="utf-8") if plan.exists() else ""
    return Environment(name=name, head=read(head) if head.exists() else None, base=_read_if_any(base), plan=told)


def _read_if_any(file: Path) -> Preview | None:
    """A preview of the program before the change; None where there is none, or one that this program does not understand."""
    try:
        return read(file) if file.exists() else None
    except FleetError:
        return None
