"""`make down`: ends every process of this clone's local fleet and removes its files.

Standard library only, and no trust in any state file: it has to work after a crash at any point, with a broken virtual
environment, and when the run that it cleans up after never got far.
"""

import os
import shutil
import sys
from pathlib import Path

from local import processes
from toolchain import paths

# A cluster's supervisor gives CELL to all it starts; `fleet up` gives RUN to the Pulumi engine and its plugins.
CELL, RUN = "FLEET_CELL", "FLEET_RUN"


def of_fleet(state: Path) -> processes.Match:
    """Matches the environment of every process of the fleet whose state lies in that folder."""
    run, cell = f"{RUN}={state}".encode(), f"{CELL}={state}/".encode()
    return lambda variable: variable == run or variable.startswith(cell)


def main() -> None:
    state = paths.STATE.resolve()
    # A shell prepared by `make env` carries the marker too, and so do this process and the make above it.
    os.environ.pop(RUN, None)
    try:
        killed = processes.kill_all(of_fleet(state))
    except TimeoutError as error:
        sys.exit(f"error: {error}\nhint: look at them with ps, then run `make down` again")
    existed = state.exists()
    if existed:
        shutil.rmtree(state)
    print(f"stopped {killed} processes, removed {state.name}/" if killed or existed else "nothing to stop")


if __name__ == "__main__":
    main()
