"""`make down`, `fleet down`: ends every process of this clone's local fleet and removes its files, and nothing else.

The state of other stacks is where their owners put it; what was left alone is named.

Standard library only, and no trust in any state file: it has to work after a crash at any point, with a broken virtual
environment, and when the run that it cleans up after never got far.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from local import processes
from toolchain import backend, paths

# A cluster's supervisor gives CELL to all it starts; `fleet up` gives RUN to the Pulumi engine and its plugins.
CELL, RUN = "FLEET_CELL", "FLEET_RUN"


def of_fleet(state: Path) -> processes.Match:
    """Matches the environment of every process of the fleet whose state lies in that folder."""
    run, cell = f"{RUN}={state}".encode(), f"{CELL}={state}/".encode()
    return lambda variable: variable == run or variable.startswith(cell)


def main() -> None:
    state = paths.STATE.resolve()
    if refusal := _refusal(state):
        sys.exit(refusal)
    # A shell prepared by `make env` carries the marker too, and so do this process and the make above it.
    os.environ.pop(RUN, None)
    try:
        killed = processes.kill_all(of_fleet(state))
    except TimeoutError as error:
        sys.exit(f"error: {error}\nhint: look at them with ps, then run `make down` again")
    existed = state.exists()
    owner = _owner(state)
    strangers = _strangers(state)
    _remove(state, keep=bool(strangers))
    print(f"stopped {killed} processes, removed {state.name}/" if killed or existed else "nothing to stop")
    for line in _left_alone(owner, strangers):
        print(f"left alone: {line}")


def _refusal(state: Path) -> str:
    """Why nothing may be stopped or removed; empty where it may."""
    for what, kept in (("this clone", paths.REPO), ("your home folder", Path.home())):
        if kept.resolve().is_relative_to(state):
            return f"error: FLEET_STATE: must not hold {what}, got: `{state}`\nhint: a folder of its own, such as .fleet-two"
    for where in sorted(_foreign_backends(state)):
        return (
            f"error: {where} is a Pulumi backend of yours, and lies in the folder that `make down` removes; nothing was stopped or removed\n"
            f"hint: mv {where} ELSEWHERE && pulumi login file://ELSEWHERE"
        )
    return ""


def _foreign_backends(state: Path) -> set[Path]:
    """Backends below the state folder that are not the one of the stack `local`: named by the environment or a login, or found there."""
    homes = (os.environ.get("PULUMI_CREDENTIALS_PATH"), os.environ.get("PULUMI_HOME"), "~/.pulumi")
    named = {url for home in homes if home for url in backend.logins(Path(home).expanduser())[1]} | {os.environ.get(backend.BACKEND_URL, "")}
    folders = {where.resolve() for url in named if (where := backend.folder(url)) and where.is_dir()}
    found = {each.parent.parent for depth in ("", "*/", "*/*/") for each in state.glob(f"{depth}.pulumi/stacks")}
    return {each for each in folders | found if each.is_relative_to(state) and each not in _own_backends(state)}


def _own_backends(state: Path) -> tuple[Path, Path]:
    """The one of the stack `local`, and where a drill puts it for a while."""
    own = state / backend.local_folder().name
    return own, own.with_name(f"{own.name}.away")


def _strangers(state: Path) -> list[str]:
    """Other stacks in the backend of the stack `local`, where an earlier version put the state of every stack."""
    files = [file for own in _own_backends(state) for file in (own / ".pulumi" / "stacks").rglob("*.json")]
    return sorted({file.name.removesuffix(".json") for file in files} - {backend.LOCAL})


def _remove(state: Path, *, keep: bool) -> None:
    """`keep`: all but what other stacks have in the backend."""
    if not state.exists():
        return
    if not keep:
        shutil.rmtree(state)
        return
    for each in state.iterdir():
        if each not in _own_backends(state):
            _delete(each)
            continue
        # <kind>/<project>/local, local.json, local.json.bak, …
        for own in list((each / ".pulumi").glob("**/*")):
            if own.name.split(".")[0] == backend.LOCAL:
                _delete(own)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _owner(state: Path) -> str:
    """The stack whose clusters ran here."""
    try:
        return (state / "stack").read_text(encoding="utf-8").strip() or backend.LOCAL
    except OSError:
        return backend.LOCAL


def _left_alone(owner: str, strangers: list[str]) -> Iterator[str]:
    declared = {file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in (paths.REPO / "stacks").glob("Pulumi.*.yaml")}
    for stack in sorted({*declared, *strangers, owner} - {backend.LOCAL}):
        if stack in strangers:
            yield f"stack {stack}: its state is in {backend.local_folder()}; docs/state.md says how to move it to a backend of yours"
        elif stack == owner:
            yield f"the state of stack {stack}: its clusters that ran here are gone; `pulumi destroy -s {stack}` removes the rest"
        else:
            yield f"stack {stack}: `pulumi destroy -s {stack}` removes what it made"


if __name__ == "__main__":
    main()
