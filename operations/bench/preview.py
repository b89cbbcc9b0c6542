"""`fleet bench preview`: how long `pulumi preview` takes for generated fleets, one twice as large as the other. Nothing is started or changed."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import FleetError
from operations.status import table
from toolchain import env, paths, tools
from toolchain.backend import BACKEND_URL

SIZES = ((50, 20), (100, 40))
_REPLICAS = 3


def fleet(clusters: int, models: int) -> dict[str, Any]:
    """A fleet of that size as a stack file has it; every model runs in three clusters."""
    names = [f"region-{number}" for number in range(clusters)]
    pool = {"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "nodes": 4}
    facts = {"attentionHeads": 32, "keyValueHeads": 8, "layers": 32, "hiddenSize": 4096, "parameters": 8_000_000_000, "maxModelLength": 8192}
    return {
        "hub": {"driver": {"kind": "local"}},
        "clusters": [{"name": name, "driver": {"kind": "local"}, "region": name, "gpuPools": [pool]} for name in names],
        "models": [
            {
                "name": f"model-{number}",
                "source": f"hf://example/model-{number}",
                "facts": facts,
                "accelerator": {"type": "H100", "count": 1},
                "replicas": _REPLICAS,
                "placement": {"clusters": [{"name": names[(number + step) % clusters]} for step in range(_REPLICAS)]},
            }
            for number in range(models)
        ],
    }


def bench() -> None:
    """Raises FleetError with the engine's words when a preview fails."""
    rows = [(size(each), f"{each['seconds']:.1f}", str(each["resources"])) for each in measure()]
    print(table([("FLEET", "SECONDS", "RESOURCES"), *rows]))


def size(measured: Mapping[str, Any]) -> str:
    return f"{measured['clusters']} clusters x {measured['models']} models"


def measure() -> list[dict[str, Any]]:
    """Seconds and resources per size. Raises FleetError with the engine's words when a preview fails."""
    return [_preview(clusters, models) for clusters, models in SIZES]


def _preview(clusters: int, models: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fleet-preview-") as folder:
        # A project of its own: making a stack writes to the stack file.
        shutil.copytree(paths.REPO / "stacks", Path(folder) / "stacks", ignore=shutil.ignore_patterns("Pulumi.*.yaml", "__pycache__"))
        project = (paths.REPO / "Pulumi.yaml").read_text().replace("virtualenv: .venv", f"virtualenv: {paths.REPO / '.venv'}")
        (Path(folder) / "Pulumi.yaml").write_text(project)
        (Path(folder) / "stacks" / "Pulumi.scale.yaml").write_text(yaml.safe_dump({"config": {"fleet:spec": fleet(clusters, models)}}))
        backend = {BACKEND_URL: f"file://{folder}", "PULUMI_CONFIG_PASSPHRASE": "scale"}
        environment = {**os.environ, **env.tooling(), **backend}

        def pulumi(*arguments: str) -> str:
            command = [str(tools.path("pulumi")), *arguments, "--non-interactive"]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise FleetError(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
            return done.stdout

        pulumi("stack", "init", "scale")
        started = time.monotonic()
        told = pulumi("preview", "--stack", "scale", "--color=never", "--suppress-progress")
        seconds = time.monotonic() - started
    resources = sum(line.strip().startswith("+") and "to create" not in line for line in told.splitlines())
    return {"clusters": clusters, "models": models, "seconds": round(seconds, 1), "resources": resources}
