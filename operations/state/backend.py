"""The backend of a stack, or why there is none. Commands of Pulumi that fix it are in the hints."""

import os

from core.errors import FleetError
from specs import yaml_file
from specs.base import SpecError
from toolchain import backend, env, paths
from toolchain.backend import BACKEND_URL, LOCAL, Backend

PAGE = "docs/state.md"


def commands(stack: str, *, initialised: bool = False) -> str:
    """The two commands that choose where state goes and how it is encrypted, for a hint."""
    provider = '"awskms://alias/NAME?region=REGION"'
    second = f"pulumi stack change-secrets-provider -s {stack} {provider}" if initialised else f"pulumi stack init {stack} --secrets-provider={provider}"
    return f"pulumi login s3://BUCKET\n      {second}\n      other backends and providers, or a passphrase of your own: {PAGE}"


def of(stack: str) -> Backend:
    """Raises FleetError where a stack other than `local` has no backend, or one that `make down` would remove."""
    if stack == LOCAL:
        return Backend(backend.local_url(), "the stack `local`")
    found = chosen()
    if found is None:
        raise FleetError(f"stack `{stack}`: no backend is chosen: only the stack `{LOCAL}` has one of its own", hint=commands(stack))
    where = found.folder
    if where is not None and backend.below_state(where):
        back = f"unset {BACKEND_URL}\n      " if found.source == BACKEND_URL else ""
        raise FleetError(
            f"stack `{stack}`: {found.source}: must not lie below {paths.STATE.name}/, which `make down` removes, got: `{found}`",
            hint=back + commands(stack),
        )
    return found


def chosen() -> Backend | None:
    """What the user chose for stacks other than `local`."""
    return backend.chosen(os.environ, _project_url(), env.credentials_folder())


def _project_url() -> str:
    try:
        project = yaml_file.read(paths.REPO / "Pulumi.yaml")
        return str((project.get("backend") or {}).get("url") or "")
    except (SpecError, AttributeError):
        # The engine says what is wrong with it.
        return ""
