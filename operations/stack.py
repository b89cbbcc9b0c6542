"""The Pulumi stack of an environment, driven by Pulumi's Automation API.

Everything here is what `pulumi up -s ENV` does in a shell prepared by `eval "$(make -s env STACK=ENV)"`; the difference is how progress
is shown, and that a stack whose state or secrets would not be safe is refused first (state/).
"""

import contextlib
import os
import re
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
from operations.stack_file import runs_here
from operations.state import backend as backends
from operations.state import encryption, lock
from toolchain import env, paths
from toolchain.backend import LOCAL, Backend, local_folder

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

_UP = "make up"
# The engine's own remark that the program failed; the program has said why.
_REMARK = "an unhandled error occurred: program exited with non-zero exit code"
# The official kubernetes plugin warns so while it waits for an object that no controller has looked at yet: every new
# InferenceService, for its first seconds. If it stays so, the wait ends with an error of its own.
_STILL_WAITING = "Has no .status.conditions"
# The engine's page-long warning of an update that was cut off, and the lines of it that name resources.
_PENDING = "Attempting to deploy or update resources with"
_PENDING_LINE = re.compile(r"^\s*\* (?P<urn>\S+), interrupted while (?P<doing>\w+)", re.MULTILINE)


def select(name: str) -> automation.Stack:
    """The stack for an update, made where its backend does not know it. Raises FleetError where its state or secrets would not be safe."""
    file = _stack_file(name)
    backend = backends.of(name)
    encryption.require(name, file, backend)
    workspace = _workspace(name, encryption.provider(file))
    try:
        return automation.select_stack(stack_name=name, work_dir=str(paths.REPO), opts=workspace)
    except pulumi_errors.StackNotFoundError:
        pass
    except pulumi_errors.CommandError as error:
        raise _refused(name, backend, error) from None
    try:
        return automation.create_stack(stack_name=name, work_dir=str(paths.REPO), opts=workspace)
    except pulumi_errors.CommandError as error:
        raise _refused(name, backend, error) from None


def _stack_file(name: str) -> Path:
    file = paths.REPO / "stacks" / f"Pulumi.{name}.yaml"
    if not file.exists():
        known = ", ".join(sorted(path.name.split(".")[1] for path in file.parent.glob("Pulumi.*.yaml")))
        raise FleetError(f"no stack file for `{name}`: {file.relative_to(paths.REPO)}", hint=f"copy an existing one; there are: {known}")
    return file


def _workspace(name: str, secrets_provider: str = "") -> automation.LocalWorkspaceOptions:
    if name == LOCAL:
        env.prepare()
    # The Automation API looks for the CLI on this process's PATH.
    os.environ.update(env.tooling())
    settings = env.of_stack(name)
    if runs_here(name):
        # For the engine and its plugins alone: a shell that carried it would be killed by `make down` with all it runs.
        settings[RUN] = str(paths.STATE.resolve())
    return automation.LocalWorkspaceOptions(work_dir=str(paths.REPO), env_vars=settings, secrets_provider=secrets_provider or None)


def _refused(name: str, backend: Backend, error: pulumi_errors.CommandError) -> FleetError:
    """Why the backend gave no stack, in its own words."""
    told = _essence(str(error))
    if isinstance(error, pulumi_errors.ConcurrentUpdateError):
        return lock.refusal(name, told)
    if "passphrase" in told:
        return FleetError(f"stack `{name}`: {told}", hint="export PULUMI_CONFIG_PASSPHRASE_FILE=FILE with the passphrase that the stack was made with")
    if "login" in told or "access token" in told.lower():
        return FleetError(f"stack `{name}`: not logged in to {backend}: {told}", hint=f"pulumi login {backend}")
    return FleetError(
        f"stack `{name}`: its backend {backend} (chosen by {backend.source}) does not answer:\n{told}",
        hint="nothing was changed. Bring the backend back, or choose another: pulumi login URL",
    )


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


class Printer:
    """Turns engine events into progress lines."""

    def __init__(self, stack: str, progress: Progress) -> None:
        self._stack = stack
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
                if text.startswith(_PENDING):
                    self._progress.say(f"  warning: {pending(self._stack, text)}")
                elif diagnostic.severity == "warning":
                    if _STILL_WAITING in text:
                        return
                    self._progress.say(f"  warning: {subject}{text}")
                elif text not in self.failures:
                    self.failures.append(f"{subject}{text}")


def pending(stack: str, text: str) -> str:
    """The engine's warning of an update that was cut off, short."""
    operations = ", ".join(f"{each['doing']} {_name(each['urn'])}" for each in _PENDING_LINE.finditer(text))
    return f"an earlier update was cut off while {operations}; `pulumi refresh -s {stack}` in a terminal checks them and clears the marks"


def run_up(stack: automation.Stack, progress: Progress, *, break_lock: bool = False) -> tuple[Mapping[str, automation.OutputValue], int]:
    """Runs the update. Returns outputs and how many resources changed. Raises FleetError with the engine's own words.

    break_lock: cancels the update that holds the stack, whoever runs it.
    """
    if stack.name == LOCAL:
        lock.clear_orphaned(local_folder(), stack.name, progress.say)
    try:
        return _up(stack, progress)
    except pulumi_errors.ConcurrentUpdateError as error:
        if not break_lock:
            raise lock.refusal(stack.name, str(error)) from None
        progress.say(f"  lock broken: {lock.described(str(error))}")
    try:
        stack.cancel()
        return _up(stack, progress)
    except pulumi_errors.ConcurrentUpdateError as error:
        raise lock.refusal(stack.name, str(error)) from None
    except pulumi_errors.CommandError as error:
        raise FleetError(f"the lock of stack `{stack.name}` could not be broken:\n{_essence(str(error))}") from None


def _up(stack: automation.Stack, progress: Progress) -> tuple[Mapping[str, automation.OutputValue], int]:
    """Raises ConcurrentUpdateError where the stack is locked."""
    printer = Printer(stack.name, progress)
    try:
        if stack.name == LOCAL:
            _forget_interrupted(stack, progress)
        with _engine_first(progress):
            result = stack.up(on_event=printer, color="never", suppress_progress=True, suppress_outputs=True)
    except pulumi_errors.ConcurrentUpdateError:
        raise
    except pulumi_errors.CommandError as error:
        told = "\n".join(printer.failures) or _essence(str(error))
        raise FleetError(f"pulumi up failed:\n{told}", hint="completed steps are in the state; fix the cause and run it again") from None
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
    """Takes the marks of an interrupted run out of the state of the stack `local`.

    The engine would warn of them for ever, since only an interactive refresh clears them. Every operation on this machine can be
    repeated: commands are idempotent, and the hub's provider takes over objects that are already there. Elsewhere a mark may be the
    only trace of something in a cloud: there it stays until a person has looked.
    """
    exported = stack.export_stack()
    state = exported.deployment or {}
    if marks := state.get("pending_operations"):
        names = ", ".join(f"{each['type']} {_name(each['resource']['urn'])}" for each in marks)
        progress.say(f"  an earlier run was interrupted; done again: {names}")
        stack.import_stack(automation.Deployment(exported.version, {**state, "pending_operations": []}))


def _essence(text: str) -> str:
    """The lines of the CLI's own output that say what went wrong."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return "\n".join(errors or lines[-20:])


def require_backend(stack: str = LOCAL) -> None:
    """Raises FleetError where nothing can be deployed: no local fleet was brought up, or no backend is chosen for another stack."""
    backends.of(stack)
    if stack == LOCAL and not _local_exists():
        raise FleetError(f"no fleet is up in {paths.STATE.name}/", hint="make up")


def deployed(name: str) -> automation.OutputMap:
    """The outputs of a stack. Raises FleetError where nothing is deployed. Makes nothing in its backend."""
    _stack_file(name)
    backend = backends.of(name)
    outputs: automation.OutputMap = {}
    try:
        outputs = automation.select_stack(stack_name=name, work_dir=str(paths.REPO), opts=_workspace(name)).outputs()
    except pulumi_errors.StackNotFoundError:
        pass
    except pulumi_errors.CommandError as error:
        raise _refused(name, backend, error) from None
    if not outputs:
        raise FleetError(f"stack `{name}` has nothing deployed in {backend}", hint=_UP if name == LOCAL else f"{_UP} STACK={name}")
    return outputs


def deployed_or_nothing(name: str) -> automation.OutputMap:
    """The outputs of a stack, empty where it was never brought up or no backend is chosen. Unlike `deployed` it raises nothing for those."""
    if not (_local_exists() if name == LOCAL else backends.chosen()):
        return {}
    try:
        return automation.select_stack(stack_name=name, work_dir=str(paths.REPO), opts=_workspace(name)).outputs()
    except pulumi_errors.StackNotFoundError:
        return {}
    except pulumi_errors.CommandError as error:
        raise _refused(name, backends.of(name), error) from None


def in_clear(outputs: Mapping[str, automation.OutputValue]) -> dict[str, Any]:
    """With secrets in clear, for use inside this process only."""
    return {key: value.value for key, value in outputs.items()}


def _local_exists() -> bool:
    return (local_folder() / ".pulumi" / "stacks").is_dir()
