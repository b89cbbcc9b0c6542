"""Whether a model fits on GPUs, how many requests a replica takes at once, how fast it answers, and what binds it.

Memory is exact but for two allowances. Times are estimates: bytes that a step must read and multiplications that it must do,
over what the GPU can do at best, times a share of it that is a prior until `fleet bench` has measured it (calibration.py).

Assumptions of the times:

- Requests are alike: `input` tokens in, `output` tokens out, nothing of a prompt in the prefix cache.
- A step of b sequences reads the weights once and the cache of all b, at input + output / 2 tokens each.
- Prompts are computed between and beside those steps and delay them: in a steady state b / output prompts per step.
- Times are means, not percentiles; the way of a request through doors and meshes is not in them.
- With pipeline stages a token passes all of them; each stage meanwhile works on another share of the sequences.

Sources. KV cache and defaults: vLLM 0.33 (vllm/engine/arg_utils.py, vllm/v1/core/kv_cache_utils.py). Activations and what is not
PyTorch's: measured by llm-d-planner 0.3.3 with vLLM 0.19 on H100, 49 runs of 28 models. The 2 % on weights: KAITO's estimator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from planning.model_size import GIB, Shape, cache_of_sequence
from specs.accelerators import Accelerator
from specs.models import LoadSpec, ObjectivesSpec
from specs.serving_arguments import ModelRuntimeSpec

# vLLM's own share of a GPU's memory where none is given.
DEFAULT_UTILIZATION = 0.92
# Buffers and padding beside the bytes of the weights.
_WEIGHTS_ALLOWANCE = 1.02
# Scores of all words for every sequence of a batch, in 32 bits, and copies of them while one is sampled, are what activations
# mostly are: 4.25 times their size is above all measured values of models with large vocabularies. The least is above those
# with small ones. Experts add a little.
_SCORES_COPIES, _SCORE_BYTES = 4.25, 4
_LEAST_ACTIVATIONS = 1.6 * GIB
_EXPERT_ACTIVATIONS = 0.4 * GIB
# Of the largest vocabularies in use; where a model's is not declared.
_LARGE_VOCABULARY = 262_144
# CUDA and Python; with several GPUs NCCL's buffers too.
_NOT_TORCH, _NOT_TORCH_SEVERAL = 0.3 * GIB, 2.1 * GIB
# vLLM's defaults by memory of the GPU: (least GiB, tokens of a step, sequences). The A100 is in the last row whatever it has.
_BATCHES = ((160.0, 16384, 1024), (70.0, 8192, 1024), (0.0, 2048, 256))
_A100_CAPABILITY = 80

# An all-reduce per attention and one per layer of neurons, each with this latency whatever it carries.
_REDUCES_PER_LAYER = 2
_REDUCE_SECONDS = {"NVLink": 10e-6, "PCIe": 30e-6}

WEIGHTS, CACHE, SEQUENCES = "weights", "KV cache", "sequences"
BETWEEN_TOKENS, FIRST_TOKEN = "latency between tokens", "latency of the first token"


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """What of a GPU's best is reached: the lower ends of what is usually measured, until `fleet bench` says better."""

    memory: float = 0.6
    compute: float = 0.4
    source: str = "prior"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """vLLM on the GPUs of one replica."""

    runtime: ModelRuntimeSpec
    gpus: int

    @property
    def stages(self) -> int:
        return self.runtime.stages

    @property
    def tensor(self) -> int:
        """GPUs that share each layer of a stage."""
        return max(1, self.gpus // self.stages)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each GPU of a replica."""

    usable: float
    """What vLLM may take."""
    weights: float
    activations: float
    other: float
    cache: float
    """What is left, or what was asked for; below 0 the rest does not fit."""
    cache_tokens: int
    """Of sequences at full length, over the whole replica."""
    needed_cache: float
    """For one sequence of the greatest length: with less vLLM does not start."""

    @property
    def fits(self) -> bool:
        return self.cache >= self.needed_cache

    @property
    def binding(self) -> str:
        """What makes it not fit."""
        return WEIGHTS if self.cache <= 0 else CACHE


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How a replica answers with `sequences` at once."""

    sequences: int
    first_token: float
    between_tokens: float
    requests_per_second: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """One replica of a model on one kind of GPU."""

    memory: Memory
    full_length: int
    """Sequences of the greatest length that the cache holds."""
    speed: Speed | None
    """At the most sequences that keep all limits; None without a load, and where not even one does."""
    serves: bool
    """Whether it starts and keeps the objectives."""
    binding: str
    """The limit that is met first."""
    explained: str
    """The same with its numbers."""


def batch_limits(gpu: Accelerator, engine: Engine) -> tuple[int, int]:
    """(tokens of a step, sequences at once): as told, else vLLM's defaults for this GPU."""
    row = _BATCHES[-1] if gpu.capability == _A100_CAPABILITY else next(each for each in _BATCHES if gpu.memory_gib >= each[0])
    return engine.runtime.max_num_batched_tokens or row[1], engine.runtime.max_num_seqs or row[2]


def memory(shape: Shape, gpu: Accelerator, engine: Engine) -> Memory:
    """What lies where on each GPU of a replica."""
    _, sequences = batch_limits(gpu, engine)
    gpus = engine.tensor * engine.stages
    scores = _SCORES_COPIES * _SCORE_BYTES * sequences * (shape.facts.vocabulary_size or _LARGE_VOCABULARY)
    activations = max(_LEAST_ACTIVATIONS, scores) + (_EXPERT_ACTIVATIONS if shape.facts.experts else 0)
    other = _NOT_TORCH_SEVERAL if gpus > 1 else _NOT_TORCH
    weights = shape.weights * _WEIGHTS_ALLOWANCE / gpus
    usable = gpu.memory_gib * GIB * (engine.runtime.gpu_memory_utilization or DEFAULT_UTILIZATION)
    free = usable - weights - activations - other
    asked = engine.runtime.kv_cache_bytes
    if asked is not None:
        # vLLM reserves exactly this size, whatever the utilization says; what exceeds the memory is missing.
        most = gpu.memory_gib * GIB - weights - activations - other
        free = asked if asked <= most else most - asked
    per_sequence = cache_of_sequence(shape, shape.max_model_length, engine.tensor, engine.stages)
    tokens = int(max(0.0, free) / per_sequence * shape.max_model_length)
    return Memory(usable=usable, weights=weights, activations=activations, other=other, cache=free, cache_tokens=tokens, needed_cache=per_sequence)


def speed(shape: Shape, gpu: Accelerator, engine: Engine, load: LoadSpec, sequences: int, efficiency: Efficiency) -> Speed:
    """Means at `sequences` requests under way."""
    prompt = prompt_seconds(shape, gpu, engine, load.input_tokens, efficiency)
    step = step_seconds(shape, gpu, engine, load, sequences, efficiency)
    between = step + sequences / load.output_tokens * prompt
    rate = sequences / (load.output_tokens * between)
    first = first_token(gpu, engine, load, sequences, prompt=prompt, step=step)
    return Speed(sequences=sequences, first_token=first, between_tokens=between, requests_per_second=rate)


def first_token(gpu: Accelerator, engine: Engine, load: LoadSpec, sequences: int, *, prompt: float, step: float) -> float:
    """Until the first token, where a prompt takes `prompt` alone and a step `step`.

    Prompts wait for each other as in a queue with one server and equal work, and for the steps that their parts ride in.
    """
    between = step + sequences / load.output_tokens * prompt
    busy = min(sequences / (load.output_tokens * between) * prompt, 0.99)
    tokens, _ = batch_limits(gpu, engine)
    return prompt + busy * prompt / (2 * (1 - busy)) + math.ceil(load.input_tokens / tokens) * step


def prompt_seconds(shape: Shape, gpu: Accelerator, engine: Engine, tokens: int, efficiency: Efficiency) -> float:
    """To compute a prompt alone: two operations per active parameter and token, and those of attention."""
    attention = 2 * shape.facts.layers * shape.facts.attention_heads * shape.head_size * tokens**2
    operations = 2 * shape.active_parameters * tokens + attention
    work = operations / (engine.tensor * gpu.teraflops * 1e12 * efficiency.compute)
    return work + _reduces(shape, gpu, engine, tokens)


def step_seconds(shape: Shape, gpu: Accelerator, engine: Engine, load: LoadSpec, sequences: int, efficiency: Efficiency) -> float:
    """One token more for each of `sequences`."""
    # Each stage works on its own share of the sequences.
    together = math.ceil(sequences / engine.stages)
    length = load.input_tokens + load.output_tokens // 2
    weights = shape.read_per_step(together) / engine.tensor
    cache = together * cache_of_sequence(shape, length, engine.tensor)
    work = (weights + cache) / (gpu.bandwidth * 1e9 * efficiency.memory)
    return work + _reduces(shape, gpu, engine, together)


def _reduces(shape: Shape, gpu: Accelerator, engine: Engine, tokens: int) -> float:
    """What the GPUs of a stage tell each other: every layer's result, in 16 bits, by a ring."""
    if engine.tensor == 1:
        return 0.0
    moved = 2 * (engine.tensor - 1) / engine.tensor * tokens * shape.facts.hidden_size * 2
    # Half of the link's sum goes one way.
    each = _REDUCE_SECONDS[gpu.link] + moved / (gpu.link_bandwidth / 2 * 1e9)
    return shape.facts.layers * _REDUCES_PER_LAYER * each


def size(shape: Shape, gpu: Accelerator, engine: Engine, load: LoadSpec | None, objectives: ObjectivesSpec, efficiency: Efficiency) -> Size:
    """One replica: whether it fits, the most requests that it answers at once within the objectives, and what keeps it from more."""
    held = memory(shape, gpu, engine)
    full = int(held.cache // held.needed_cache) if held.fits else 0
    if not held.fits:
        return Size(memory=held, full_length=0, speed=None, serves=False, binding=held.binding, explained=_does_not_fit(held, shape))
    _, most = batch_limits(gpu, engine)
    if load is None:
        binding = SEQUENCES if most <= full else CACHE
        explained = f"{min(most, full)} sequences of {shape.max_model_length} tokens"
        return Size(memory=held, full_length=full, speed=None, serves=True, binding=binding, explained=explained)
    whole = cache_of_sequence(shape, load.input_tokens + load.output_tokens, engine.tensor, engine.stages)
    cached = int(held.cache // whole)
    limit, binding = (most, SEQUENCES) if most <= cached else (cached, CACHE)

    def at(sequences: int) -> Speed:
        return speed(shape, gpu, engine, load, sequences, efficiency)

    found, broken = _most(limit, at, objectives)
    if found is None:
        alone = at(1)
        between = (alone.between_tokens, objectives.inter_token_seconds)
        seconds, goal = between if broken == BETWEEN_TOKENS else (alone.first_token, objectives.time_to_first_token_seconds)
        explained = f"one request alone takes {seconds * 1000:.0f} ms, and the objective is {(goal or 0) * 1000:.0f} ms"
        return Size(memory=held, full_length=full, speed=None, serves=False, binding=broken, explained=explained)
    if found.sequences < limit:
        binding = broken
        seconds = found.between_tokens if broken == BETWEEN_TOKENS else found.first_token
        explained = f"at {found.sequences} sequences {seconds * 1000:.0f} ms, one more breaks the objective"
    elif binding == CACHE:
        explained = f"room for {cached} requests of {load.input_tokens + load.output_tokens} tokens"
    else:
        explained = f"maxNumSeqs is {most}"
    return Size(memory=held, full_length=full, speed=found, serves=True, binding=binding, explained=explained)


def _most(limit: int, at: Callable[[int], Speed], objectives: ObjectivesSpec) -> tuple[Speed | None, str]:
    """The most sequences up to `limit` that keep the objectives, and the one that one more sequence would break: both times grow with them."""
    least, beyond = 0, limit + 1
    while beyond - least > 1:
        middle = (least + beyond) // 2
        least, beyond = (middle, beyond) if _broken(at(middle), objectives) is None else (least, middle)
    return (at(least) if least else None), ("" if beyond > limit else _broken(at(beyond), objectives) or "")


def _broken(speed: Speed, objectives: ObjectivesSpec) -> str | None:
    if objectives.inter_token_seconds is not None and speed.between_tokens > objectives.inter_token_seconds:
        return BETWEEN_TOKENS
    if objectives.time_to_first_token_seconds is not None and speed.first_token > objectives.time_to_first_token_seconds:
        return FIRST_TOKEN
    return None


def _does_not_fit(held: Memory, shape: Shape) -> str:
    beside = held.weights + held.activations + held.other
    if held.cache <= 0:
        return f"weights {held.weights / GIB:.1f} GiB and {(beside - held.weights) / GIB:.1f} GiB beside them per GPU, {held.usable / GIB:.1f} GiB usable"
    left = f"{held.cache / GIB:.1f} GiB per GPU left for the KV cache"
    return f"{left}, one sequence of {shape.max_model_length} tokens takes {held.needed_cache / GIB:.1f} GiB"
