"""Stack files for tests: small ones by hand, large ones by number."""

import copy
from pathlib import Path
from typing import Any

from planning.stack_file import resolve_fleet
from specs import yaml_file
from specs.fleet import FleetSpec

REPO = Path(__file__).resolve().parents[2]
FACTS = {"attentionHeads": 32, "keyValueHeads": 8, "layers": 32, "hiddenSize": 4096, "parameters": 8_000_000_000, "maxModelLength": 8192}


def stack_files() -> list[Path]:
    return sorted((REPO / "stacks").glob("Pulumi.*.yaml"))


def read(stack_file: Path) -> dict[str, Any]:
    """What is below `fleet:spec`."""
    return yaml_file.read(stack_file)["config"]["fleet:spec"]


def parse_fleet(raw: Any) -> FleetSpec:
    """The Spec below `fleet:spec`, with nothing left open. Raises SpecError with everything that is wrong."""
    return resolve_fleet(raw)[1].fleet


def cluster(name: str, region: str | None = None, **more: Any) -> dict[str, Any]:
    pools = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "nodes": 4}]
    return {"name": name, "driver": {"kind": "local"}, "region": region or name, "gpuPools": pools, **more}


def model(name: str, clusters: list[str], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "source": f"hf://example/{name}",
        "facts": dict(FACTS),
        "accelerator": {"type": "H100", "count": 1},
        "replicas": len(clusters),
        "placement": {"clusters": [{"name": each} for each in clusters]},
        **more,
    }


def make_existing(cluster: dict[str, Any]) -> None:
    """The cluster stands elsewhere, with gateways of its own."""
    for key in cluster.keys() - {"name", "region", "zone", "jurisdiction", "gpuPools"}:
        del cluster[key]
    cluster["driver"] = {
        "kind": "existing",
        "kubeconfigPath": f"{cluster['name']}.yaml",
        "regionalGateway": {"address": "10.0.0.1", "port": 80},
        "frontDoor": {"url": "http://10.0.0.2"},
    }


def small() -> dict[str, Any]:
    """Two regions, one model in both: valid, and small enough to break in one place."""
    return copy.deepcopy({"hub": {"driver": {"kind": "local"}}, "clusters": [cluster("east"), cluster("west")], "models": [model("chat", ["east", "west"])]})


def generated(clusters: int, models: int) -> dict[str, Any]:
    """A fleet of that size; every model runs in three clusters."""
    names = [f"region-{number}" for number in range(clusters)]
    served = [model(f"model-{number}", [names[(number + step) % clusters] for step in range(min(3, clusters))]) for number in range(models)]
    return {"hub": {"driver": {"kind": "local"}}, "clusters": [cluster(name) for name in names], "models": served}
