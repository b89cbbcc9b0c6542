"""The Pulumi stack of an environment, driven by Pulumi's Automation API.

Everything here is what `pulumi up -s ENV` does in a shell prepared by `eval "$(make -s env)"`; the difference is
how progress is shown.
"""

import contextlib
import os
import signal
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from pulumi import automation
from pulumi.automation import errors as pulumi_errors
from pulumi.automation import events

from core.errors import FleetError
from core.progress import Progress
from local.down import RUN
from toolchain import env, paths

# What the engine calls an operation, and what we print. Reads and unchanged resources are not worth a line.
_VERBS = {
    "create": "created",
    "update": "updated",
    "delete": "deleted",
    "create-replacement": "replaced",
    "delete-replaced": "deleted",
    "replace": "replaced",
    "discard": "forgotten",
}

# The engine's own remark that the program failed; the program has said why.
_REMARK = "an unhandled error occurred: program exited with non-zero exit code"


def select(name: str) -> automation.Stack:
    """The stack, made in the local backend when it is new. Raises FleetError where no stack file exists."""
    stack_file = paths.REPO / "stacks" / f"Pulumi.{name}.yaml"
    if not stack_file.exists():
        known = ", ".join(sorted(path.name.split(".")[1] for path in stack_file.parent.glob("Pulumi.*.yaml")))
        raise FleetError(f"no stack file for `{name}`: {stack_file.relative_to(paths.REPO)}", hint=f"copy an existing one; there are: {known}")
    env.prepare()
    os.environ.update(env.variables())
    # For the engine and its plugins alone: a shell that carried it would be killed by `make down` with all it runs.
    marked = {**env.variables(), RUN: str(paths.STATE.resolve())}
    workspace = automation.LocalWorkspaceOptions(work_dir=str(paths.REPO), env_vars=marked)
    return automation.create_or_select_stack(stack_name=name, work_dir=str(paths.REPO), opts=workspace)


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


class Printer:
    """Turns engine events into progress lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.failures: list[str] = []
        self.changes = 0

    def __call__(self, event: events.EngineEvent) -> None:
        if event.res_outputs_event:
            metadata = event.res_outputs_event.metadata
            verb = _VERBS.get(metadata.op.value)
            # Components have no work of their own; their children tell the story.
            if verb and not metadata.type.startswith(("fleet:", "pulumi:")):
                self.changes += 1
                self._progress.say(f"  {verb} {_name(metadata.urn)}")
        if event.diagnostic_event:
            diagnostic = event.diagnostic_event
            text = diagnostic.message.strip()
            if diagnostic.severity in ("error", "info#err", "warning") and text and not text.startswith(_REMARK):
                subject = f"{_name(diagnostic.urn)}: " if diagnostic.urn else ""
                if diagnostic.severity == "warning":
                    self._progress.say(f"  warning: {subject}{text}")
                elif text not in self.failures:
                    self.failures.append(f"{subject}{text}")


def run_up(stack: automation.Stack, progress: Progress) -> tuple[Mapping[str, automation.OutputValue], int]:
    """Runs the update. Returns outputs and how many resources changed. Raises FleetError with the engine's own words."""
    printer = Printer(progress)
    # A killed run leaves its lock file in the file backend. Our own lock says that nobody is at work now.
    with contextlib.suppress(pulumi_errors.CommandError):
        stack.cancel()
    _forget_interrupted(stack, progress)
    try:
        with _engine_first(progress):
            result = stack.up(on_event=printer, color="never", suppress_progress=True, suppress_outputs=True)
    except pulumi_errors.CommandError as error:
        told = "\n".join(printer.failures) or _essence(str(error))
        raise FleetError(f"pulumi up failed:\n{told}", hint="what was done is kept; mend the cause and run it again") from None
    return result.outputs, printer.changes


@contextlib.contextmanager
def _engine_first(progress: Progress) -> Generator[None]:
    """Lets the engine end before a Ctrl-C ends us. The terminal sends it to both, and the engine has yet to note what it did.

    A second one ends us at once.
    """
    interrupted = False

    def note(*_: object) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        progress.say("interrupted: the engine notes what it did")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted:
            # In place of the engine's error, which only says that it was interrupted.
            raise KeyboardInterrupt


def _forget_interrupted(stack: automation.Stack, progress: Progress) -> None:
    """Takes the marks of an interrupted run out of the state.

    The engine would warn of them for ever, since only an interactive refresh clears them. Every operation of this
    program can be repeated: commands are idempotent, and the hub's provider takes over objects that are already there.
    """
    exported = stack.export_stack()
    state = exported.deployment or {}
    if pending := state.get("pending_operations"):
        progress.say(f"  an earlier run was interrupted in {len(pending)} operations; they are done again")
        stack.import_stack(automation.Deployment(exported.version, {**state, "pending_operations": []}))


def _essence(text: str) -> str:
    """The lines of the CLI's own output that say what went wrong."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return "\n".join(errors or lines[-20:])


def require_backend() -> None:
    """Raises FleetError where no fleet was brought up."""
    if not backend_exists(paths.STATE):
        raise FleetError(f"no fleet is up in {paths.STATE.name}/", hint="make up")


def deployed(name: str) -> automation.OutputMap:
    """The outputs of a stack. Raises FleetError where nothing is deployed."""
    outputs = select(name).outputs()
    if not outputs:
        raise FleetError(f"stack `{name}` has nothing deployed", hint="make up")
    return outputs


def deployed_or_nothing(name: str) -> automation.OutputMap:
    """The outputs of a stack, empty where it was never brought up from here. Unlike `deployed` it makes nothing."""
    project = paths.STATE / "pulumi" / ".pulumi" / "stacks"
    return select(name).outputs() if any(project.rglob(f"{name}.json")) else {}


def in_clear(outputs: Mapping[str, automation.OutputValue]) -> dict[str, Any]:
    """With secrets in clear, for use inside this process only."""
    return {key: value.value for key, value in outputs.items()}


def backend_exists(state: Path) -> bool:
    return (state / "pulumi" / ".pulumi" / "stacks").is_dir()
