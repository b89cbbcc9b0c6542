"""Which backend the program accepts for its state. Whose backend that is, the program does not decide: docs/state.md."""

import os
from collections.abc import Mapping

import pulumi

from toolchain import backend, paths


def require_own_backend(stack: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises RunError where a stack other than `local` would keep its state in the folder that `make down` removes."""
    where = backend.folder(environment.get(backend.BACKEND_URL, ""))
    if stack != backend.LOCAL and where is not None and backend.below_state(where):
        raise pulumi.RunError(
            f"stack `{stack}`: {backend.BACKEND_URL}: must not lie below {paths.STATE.name}/, which `make down` removes, got: `{where}`\n"
            f'  hint: eval "$(make -s env STACK={stack})", then `pulumi login URL` (docs/state.md)'
        )
