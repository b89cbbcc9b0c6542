"""`fleet bench up`: where the time and the memory of `make up` go.

Runs on a fleet state of its own beside the developer's: cold of state, warm of tools. Prints a table and writes JSON.
Absolute seconds depend on the machine; the ratios within one run are what to compare.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from core.errors import FleetError
from local import processes
from local.down import of_fleet
from operations.bench import preview
from operations.status import table
from toolchain import paths

_RESULTS = paths.REPO / "bench-results"


def resident_mib(state: Path) -> float:
    """Memory of all processes of a fleet, in MiB, shared pages counted once (Pss)."""
    total = 0
    for pid in processes.find(of_fleet(state)):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024


def _fleet_up(state: Path, name: str) -> dict[str, Any]:
    stages = state.parent / f"{name}.json"
    environment = {**os.environ, "FLEET_STATE": str(state)}
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "operations.cli", "up", "--stages", str(stages)], env=environment, cwd=paths.REPO, stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        peak = max(peak, resident_mib(state))
        time.sleep(1)
    if process.returncode:
        raise FleetError(f"fleet up failed with exit code {process.returncode}")
    seconds = time.monotonic() - started
    return {"name": name, "seconds": round(seconds, 1), "peakMiB": round(peak), **json.loads(stages.read_text())}


def bench() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
        state = Path(folder) / "state"
        try:
            runs = [_fleet_up(state, "warm up"), _fleet_up(state, "second up")]
            resident = resident_mib(state)
        finally:
            subprocess.run([sys.executable, "-m", "local.down"], env={**os.environ, "FLEET_STATE": str(state)}, cwd=paths.REPO, check=False)
    previews = preview.measure()
    acquired = paths.CACHE / "last-acquire.json"
    result = {
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
        "runs": runs,
        "residentMiB": round(resident),
        "previews": previews,
        "toolchain": json.loads(acquired.read_text()) if acquired.exists() else None,
    }
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "up.json").write_text(json.dumps(result, indent=2))
    rows: list[tuple[str, ...]] = [("RUN", "STAGE", "SECONDS", "PEAK MiB")]
    for run in runs:
        rows.append((run["name"], "all", f"{run['seconds']:.1f}", str(run["peakMiB"])))
        rows += [(run["name"], stage, f"{seconds:.1f}", "") for stage, seconds in run["stages"]]
    rows.append(("fleet at rest", "all", "", str(round(resident))))
    rows += [(f"preview of {preview.size(each)}", "all", f"{each['seconds']:.1f}", "") for each in previews]
    print(table(rows))
    print(f"\nsecond up / warm up: {runs[1]['seconds'] / runs[0]['seconds']:.2f}")
    print(f"preview, doubled fleet / fleet: {previews[-1]['seconds'] / previews[-2]['seconds']:.2f}")
    print(f"JSON: {(_RESULTS / 'up.json').relative_to(paths.REPO)}")
