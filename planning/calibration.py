"""The shares of a GPU's best that one measurement shows, to be used in place of the priors of sizing.py.

The time of a step gives the share of the memory's bandwidth, the time to the first token that of the multiplications.
"""

from dataclasses import dataclass
from math import ceil

from planning.accelerators import Accelerator
from planning.model_size import Shape
from planning.sizing import Efficiency, Engine, Load, batch_limits, prompt_seconds, step_seconds

# Above, something else was measured: a prompt from the cache, another GPU, fewer tokens than were asked.
_MOST = 1.0
# A prompt that takes less than this is lost among what else a first token waits for.
_LEAST_PROMPT_SECONDS = 0.005


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
    load = Load(requests_per_second=1, input_tokens=max(1, round(seen.input_tokens)), output_tokens=max(1, round(seen.output_tokens)))
    sequences = max(1, round(seen.output_tokens_per_second * seen.per_output_token / seen.replicas))
    tokens, _ = batch_limits(gpu, engine)
    best = Efficiency(memory=1, compute=1)
    # The prompt shares its steps with what is answered meanwhile.
    alone = seen.first_token - ceil(load.input_tokens / tokens) * seen.per_output_token
    compute = prior.compute
    ideal = prompt_seconds(shape, gpu, engine, load.input_tokens, best)
    if alone < _LEAST_PROMPT_SECONDS or ideal / alone > _MOST:
        notes.append(f"prompts of {load.input_tokens} tokens are too short to tell the share of the computation: {prior.compute:g} stays")
    else:
        compute = ideal / alone
    prompts = sequences / load.output_tokens * prompt_seconds(shape, gpu, engine, load.input_tokens, Efficiency(memory=1, compute=compute))
    step = seen.per_output_token - prompts
    memory = prior.memory
    ideal = step_seconds(shape, gpu, engine, load, sequences, best)
    if step <= 0 or ideal / step > _MOST:
        notes.append(f"a token in {seen.per_output_token * 1000:.1f} ms is faster than this GPU can read the weights: {prior.memory:g} stays")
    else:
        memory = ideal / step
    return Efficiency(memory=round(memory, 3), compute=round(compute, 3), source=source), tuple(notes)
