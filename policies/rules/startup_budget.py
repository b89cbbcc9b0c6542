"""The startup probe waits longer than the model takes to load.

Why: a replica that is restarted in the middle of its load begins again, and never answers; it shows first in a failover, when
storage is slow because every replica loads at once.

Mend: raise `runtimes.*.startupSeconds`, or correct `runtime.loadSeconds` of the model. A model without loadSeconds is taken to read
its weights at 500 MB/s, as 16-bit numbers where no quantization is set.
"""

from collections.abc import Iterator

from components.serving import ModelSpec
from policies.declared import Stack, mapping
from policies.pods import pods
from policies.rule import Finding

# Bytes per second from a storage service to one node: what a 5 Gbit/s share of a network gives. An assumption, for models that
# declare no load time; quantized ones are smaller by a factor that is not known here, so they are left out.
_READ_RATE = 500e6
_BYTES = 2


def needed(model: ModelSpec) -> tuple[float, str] | None:
    """Seconds that a load may take, and why; None where nothing is known."""
    if model.runtime.load_seconds is not None:
        return float(model.runtime.load_seconds), "`runtime.loadSeconds`"
    if model.runtime.quantization is not None:
        return None
    return model.facts.parameters * _BYTES / _READ_RATE, f"{model.facts.parameters * _BYTES / 1e9:.0f} GB of weights at 500 MB/s"


def check(stack: Stack) -> Iterator[Finding]:
    models = {each.name: each for each in stack.spec.models} if stack.spec else {}
    for pod in pods(stack):
        model = models.get(pod.owner.name) if pod.owner.kind == "InferenceService" and pod.serves else None
        probe = mapping(pod.containers[0].get("startupProbe")) if pod.containers else {}
        load = needed(model) if model else None
        if load is None or not probe:
            continue
        budget = float(probe.get("initialDelaySeconds") or 0) + float(probe.get("periodSeconds") or 10) * float(probe.get("failureThreshold") or 3)
        if budget <= load[0]:
            says = f"the startup probe gives up after {budget:g} s, and the model needs {load[0]:.0f} s ({load[1]})"
            yield Finding(says=says, on=pod.owner)
