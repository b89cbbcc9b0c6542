"""Karmada's resource interpreter for InferenceServices (lua/)."""

from functools import cache
from pathlib import Path
from typing import Any

from specs import labels
from specs.propagation import INFERENCE_SERVICE

# Which script answers which question of Karmada about an InferenceService.
_INTERPRETER = {
    "replicaResource": "get_replicas",
    "replicaRevision": "revise_replica",
    "retention": "retain",
    "statusReflection": "reflect_status",
    "statusAggregation": "aggregate_status",
    "healthInterpretation": "interpret_health",
    "dependencyInterpretation": "get_dependencies",
}


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def resource_interpreter() -> dict[str, Any]:
    """Teaches Karmada what an InferenceService is.

    Without it weights are ignored (every cluster gets the whole object), the hub shows no status, and a graceful eviction
    removes the old copy before the new one has loaded its model.
    """
    return {
        "apiVersion": "config.karmada.io/v1alpha1",
        "kind": "ResourceInterpreterCustomization",
        "metadata": labels.metadata("inference-service", component="placement"),
        "spec": {
            "target": INFERENCE_SERVICE.selector,
            "customizations": {rule: {"luaScript": _script(script)} for rule, script in _INTERPRETER.items()},
        },
    }
