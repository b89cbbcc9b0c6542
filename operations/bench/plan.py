"""`fleet bench plan`: how long the planner takes for generated fleets whose models leave everything open. Nothing is started or asked."""

import random
import time
from typing import Any

from core.machine import here
from operations.status import table
from planning import choice
from specs.base import parse
from specs.fleet import FleetEntry

SIZES = ((20, 20), (50, 20), (100, 100))
_POOLS = (("H100", 8), ("A100", 8), ("L40S", 4), ("H200", 8))
_FACTS = {"attentionHeads": 32, "keyValueHeads": 8, "layers": 32, "hiddenSize": 4096, "parameters": 8_030_261_248, "maxModelLength": 8192}
_STANDBY = ({}, {"standby": "hot"}, {}, {"standby": "cold"}, {})


def fleet(clusters: int, models: int) -> dict[str, Any]:
    """A fleet of that size as a stack file has it: two clusters in a region, two GPU types in a cluster, three clouds."""
    chance = random.Random(1)
    return {
        "hub": {"driver": {"kind": "local"}},
        "clusters": [
            {
                "name": f"cluster-{number}",
                "driver": {"kind": "local"},
                "region": f"region-{number // 2}",
                "provider": chance.choice(["aws", "azure", "gcp"]),
                "jurisdiction": chance.choice(["EU", "US"]),
                "gpuPools": [{"name": kind.lower(), "accelerator": kind, "gpusPerNode": gpus, "nodes": 6} for kind, gpus in chance.sample(_POOLS, 2)],
            }
            for number in range(clusters)
        ],
        "models": [
            {
                "name": f"model-{number}",
                "source": f"hf://example/model-{number}",
                "facts": _FACTS,
                "load": {"requestsPerSecond": chance.choice([2, 20, 60, 100]), "inputTokens": 1000, "outputTokens": 300},
                "objectives": {"interTokenSeconds": 0.06},
                "placement": {"jurisdictions": [chance.choice(["EU", "US"])], **_STANDBY[number % len(_STANDBY)]},
            }
            for number in range(models)
        ],
    }


def measure(clusters: int, models: int) -> dict[str, Any]:
    entry = parse(FleetEntry, fleet(clusters, models), lambda _: ())
    started = time.monotonic()
    found = choice.resolve(entry)
    seconds = time.monotonic() - started
    monthly = sum(each.dollars_per_month for each in found.choices)
    return {"clusters": clusters, "models": models, "seconds": round(seconds, 2), "placed": len(found.choices), "dollarsPerMonth": round(monthly)}


def bench() -> None:
    rows = [measure(*size) for size in SIZES]
    heads = ("CLUSTERS", "MODELS", "SECONDS", "PLACED", "$/MONTH")
    print(table([heads, *(tuple(str(value) for value in row.values()) for row in rows)]))
    machine = here()
    print(f"\n{machine.cores} cores, {machine.memory_gib:.0f} GiB, {machine.system}; load of a minute {machine.loads[0]:.2f}")
