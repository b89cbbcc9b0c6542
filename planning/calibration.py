"""The shares of a GPU's best that one measurement shows, to be used in place of the priors of sizing.py.

The time of a step gives the share of the memory's bandwidth, the time to the first token that of the multiplications.
"""

from collections.abc import Callable
from dataclasses import dataclass

from planning.model_size import Shape
from planning.sizing import Efficiency, Engine, first_token, prompt_seconds, step_seconds
from specs.accelerators import Accelerator
from specs.models import LoadSpec

# Shares that are looked for. Outside something else was measured: a prompt from the cache, another GPU, a queue.
_LEAST, _MOST = 0.02, 1.0
_STEPS = 50
# A prompt that takes less of the time to the first token is lost in it.
_LEAST_OF_FIRST = 0.1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How the replicas of one cluster answered, in the mean of all requests."""

    replicas: int
    input_tokens: float
    """Of a request, as the engine counts them."""
    output_tokens: float
    output_tokens_per_second: float
    """Of all replicas together."""
    first_token: float
    per_output_token: float
    """After the first."""


def calibrate(shape: Shape, gpu: Accelerator, engine: Engine, seen: Measurement, prior: Efficiency, source: str) -> tuple[Efficiency, tuple[str, ...]]:
    """The shares that explain a measurement, and what could not be told from it: there the prior stays.

    Requests under way in a replica follow from Little's law: tokens per second times seconds per token.
    """
    notes: list[str] = []
    tokens = {"input_tokens": max(1, round(seen.input_tokens)), "output_tokens": max(1, round(seen.output_tokens))}
    load = LoadSpec.model_validate({"requests_per_second": 1, **tokens}, by_name=True)
    sequences = max(1, round(seen.output_tokens_per_second * seen.per_output_token / seen.replicas))

    def prompt(share: float) -> float:
        return prompt_seconds(shape, gpu, engine, load.input_tokens, Efficiency(compute=share))

    def step(share: float) -> float:
        return step_seconds(shape, gpu, engine, load, sequences, Efficiency(memory=share))

    def steps(compute: float) -> float:
        """What is left of the time of a token without the prompts between."""
        return seen.per_output_token - sequences / load.output_tokens * prompt(compute)

    def first(compute: float) -> float:
        return first_token(gpu, engine, load, sequences, prompt=prompt(compute), step=max(0.0, steps(compute)))

    compute = _share(first, seen.first_token) if prompt(prior.compute) >= _LEAST_OF_FIRST * seen.first_token else None
    if compute is None:
        notes.append(f"the first token after {load.input_tokens} tokens does not tell the share of the computation: {prior.compute:g} stays")
        compute = prior.compute
    memory = _share(step, steps(compute))
    if memory is None:
        notes.append(f"a token in {seen.per_output_token * 1000:.1f} ms is not what this GPU can do: {prior.memory:g} stays")
        memory = prior.memory
    return Efficiency(memory=round(memory, 3), compute=round(compute, 3), source=source), tuple(notes)


def _share(time: Callable[[float], float], target: float) -> float | None:
    """The share at which `time`, which falls with it, is `target`; None where that is not among the believable."""
    low, high = _LEAST, _MOST
    if not time(high) <= target <= time(low):
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if time(middle) > target else (low, middle)
    return (low + high) / 2
