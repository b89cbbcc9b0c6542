"""The startup probe waits longer than the model takes to load.

Why: a replica that is restarted in the middle of its load begins again, and never answers; it shows first in a failover, when
storage is slow because every replica loads at once.

Fix: raise `runtimes.*.startupSeconds`, or correct `runtime.loadSeconds` of the model. A model without loadSeconds is taken to read
its weights at 500 MB/s, as 16-bit numbers where no quantization is set.
"""

from collections.abc import Iterator

from policies.declared import Stack, mapping, number
from policies.pods import pods
from policies.rule import Finding
from specs import labels
from specs.models import ModelSpec

# Bytes per second from a storage service to one node: what a 5 Gbit/s share of a network gives. An assumption, for models that
# declare no load time; quantized ones are smaller by a factor that is not known here, so they are left out.
_READ_RATE = 500e6
_BYTES = 2
_SERVICE = ("InferenceService", labels.NAMESPACE_MODELS)
# Kubernetes' own where nothing is said.
_PROBE = {"initialDelaySeconds": 0, "periodSeconds": 10, "failureThreshold": 3}


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
        model = models.get(pod.owner.name) if pod.serves and (pod.owner.kind, pod.owner.namespace) == _SERVICE else None
        probe = mapping(pod.answering.get("startupProbe"))
        load = needed(model) if model else None
        if load is None or not probe:
            continue
        delay, period, failures = (number(probe.get(name), otherwise) for name, otherwise in _PROBE.items())
        budget = delay + period * failures
        if budget <= load[0]:
            says = f"the startup probe gives up after {budget:g} s, and the model needs {load[0]:.0f} s ({load[1]})"
            yield Finding(says=says, on=pod.owner)
