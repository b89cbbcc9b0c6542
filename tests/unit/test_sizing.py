"""Known pairs of models and GPUs fit or do not, the limit that binds is named, and estimates never turn round."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning import sizing
from planning.model_size import GIB, Shape
from planning.sizing import BETWEEN_TOKENS, CACHE, FIRST_TOKEN, SEQUENCES, WEIGHTS, Efficiency, Engine, size
from specs.accelerators import ACCELERATORS
from specs.models import LoadSpec, ObjectivesSpec
from tests.unit import shapes
from tests.unit.shapes import engine, load, objectives

LOAD = load(10, 1000, 300)
ANY = objectives()


def sized(shape: Shape, gpu: str, on: Engine, asked: LoadSpec | None = LOAD, goals: ObjectivesSpec = ANY) -> sizing.Size:
    return size(shape, ACCELERATORS[gpu], on, asked, goals, Efficiency())


@pytest.mark.parametrize(
    ("shape", "gpu", "tensor", "binding"),
    [
        (shapes.LLAMA_70B, "H100", 1, WEIGHTS),
        (shapes.LLAMA_70B, "H200", 1, WEIGHTS),
        (shapes.LLAMA_70B, "A10G", 8, WEIGHTS),
        # 141 GB on 160 GB: what is left holds no sequence of 32k tokens.
        (shapes.LLAMA_70B, "H100", 2, CACHE),
        (shapes.LLAMA_70B, "H200", 2, None),
        (shapes.LLAMA_70B, "A100", 4, None),
        (shapes.LLAMA_70B, "L40S", 4, None),
        (shapes.LLAMA_70B_FP8, "H100", 1, CACHE),
        (shapes.served(shapes.LLAMA_70B_FP8, max_model_length=8192), "H100", 1, None),
        (shapes.LLAMA_8B, "L4", 1, None),
        (shapes.served(shapes.LLAMA_8B, max_model_length=131072), "L4", 1, CACHE),
        (shapes.MIXTRAL_8X7B, "A100", 1, WEIGHTS),
        (shapes.MIXTRAL_8X7B, "A100", 2, None),
        # The case of vLLM's own recipe: one node of H200, not one of H100.
        (shapes.DEEPSEEK_V3, "H100", 8, WEIGHTS),
        (shapes.DEEPSEEK_V3, "H200", 8, None),
        (shapes.GEMMA3_27B, "H100", 1, None),
    ],
)
def test_known_models_fit_or_do_not(shape: Shape, gpu: str, tensor: int, binding: str | None) -> None:
    found = sized(shape, gpu, engine(tensor))
    assert found.serves == (binding is None)
    if binding is not None:
        assert found.binding == binding


def test_two_stages_hold_what_one_gpu_does_not() -> None:
    assert not sized(shapes.LLAMA_70B_FP8, "L40S", engine(1)).serves
    assert sized(shapes.served(shapes.LLAMA_70B_FP8, max_model_length=8192), "L40S", engine(4, pipeline_parallel_size=4)).serves


class TestBinding:
    def test_the_cache_holds_so_many_requests(self) -> None:
        found = sized(shapes.LLAMA_8B, "L4", engine())
        assert (found.binding, found.explained) == (CACHE, "room for 19 requests of 1300 tokens")

    def test_vllms_own_number_of_sequences(self) -> None:
        assert sized(shapes.LLAMA_8B, "H200", engine(max_num_seqs=16)).explained == "maxNumSeqs is 16"
        # Without it, vLLM's default depends on the GPU.
        assert sizing.batch_limits(ACCELERATORS["H100"], engine()) == (8192, 1024)
        assert sizing.batch_limits(ACCELERATORS["A100"], engine()) == (2048, 256)
        assert sizing.batch_limits(ACCELERATORS["B200"], engine()) == (16384, 1024)

    def test_the_time_between_tokens(self) -> None:
        found = sized(shapes.LLAMA_8B, "H100", engine(), goals=objectives(inter_token_seconds=0.03))
        assert found.binding == BETWEEN_TOKENS
        assert found.speed is not None
        assert found.speed.between_tokens <= 0.03 < found.speed.between_tokens * 1.05

    def test_the_first_token(self) -> None:
        found = sized(shapes.LLAMA_8B, "L4", engine(), goals=objectives(time_to_first_token_seconds=0.45))
        assert found.binding == FIRST_TOKEN

    def test_an_objective_that_not_even_one_request_keeps(self) -> None:
        found = sized(shapes.LLAMA_70B, "L40S", engine(4), goals=objectives(inter_token_seconds=0.05))
        assert not found.serves
        assert found.explained == "one request alone takes 74 ms, and the objective is 50 ms"

    def test_without_a_load_it_says_what_fits(self) -> None:
        found = sized(shapes.LLAMA_70B, "H100", engine(4), asked=None)
        assert (found.binding, found.explained, found.speed) == (CACHE, "14 sequences of 32768 tokens", None)
        assert sized(shapes.LLAMA_8B, "H200", engine(max_num_seqs=2), asked=None).binding == SEQUENCES


def test_a_cache_of_a_given_size_is_that_size_if_it_is_there() -> None:
    given_size = sizing.memory(shapes.LLAMA_8B, ACCELERATORS["H100"], engine(kv_cache_bytes=4 * GIB))
    assert given_size.cache == 4 * GIB
    assert not sizing.memory(shapes.LLAMA_8B, ACCELERATORS["L4"], engine(kv_cache_bytes=20 * GIB)).fits


# llm-d-planner 0.3.3: vllm_memory_constants.json, measured with vLLM 0.19 on H100.
_ITS_ACTIVATIONS = {"llama": 1.89, "qwen": 2.21, "mixtral": 1.21, "gemma": 3.94, "deepseek": 1.93}
_ITS_NOT_TORCH = {1: 0.27, 2: 2.10, 4: 2.10, 8: 2.10}


@pytest.mark.parametrize(
    ("shape", "name", "gpu", "tensor"),
    [
        (shapes.LLAMA_8B, "llama", "H100", 1),
        (shapes.LLAMA_70B, "llama", "H100", 4),
        (shapes.LLAMA_70B, "llama", "H200", 2),
        (shapes.QWEN3_32B, "qwen", "H100", 2),
        (shapes.MIXTRAL_8X7B, "mixtral", "H100", 2),
        (shapes.GEMMA3_27B, "gemma", "H100", 2),
    ],
)
def test_the_cache_is_that_of_llm_d_planner_less_named_differences(shape: Shape, name: str, gpu: str, tensor: int) -> None:
    """docs/planning.md explains them: activations on every GPU and not once, 2 % on weights, a bound in place of a measurement."""
    accelerator, on = ACCELERATORS[gpu], engine(tensor, gpu_memory_utilization=0.9)
    ours = sizing.memory(shape, accelerator, on)
    theirs = accelerator.memory_gib * 0.9 * tensor - shape.weights / GIB - _ITS_ACTIVATIONS[name] - _ITS_NOT_TORCH[tensor] * tensor
    differences = 0.02 * shape.weights / GIB + (ours.activations / GIB * tensor - _ITS_ACTIVATIONS[name]) + (ours.other / GIB - _ITS_NOT_TORCH[tensor]) * tensor
    assert ours.cache / GIB * tensor == pytest.approx(theirs - differences)
    assert ours.cache / GIB * tensor <= theirs


@pytest.mark.parametrize(
    ("vocabulary", "experts", "measured"),
    [
        (128256, None, 1.89),
        (152064, None, 2.25),
        (151936, None, 2.21),
        (131072, None, 2.10),
        (102400, 64, 1.93),
        (49155, None, 0.85),
        (32000, 8, 1.21),
        (32064, None, 1.52),
        (151936, 60, 2.47),
        (151936, 128, 2.68),
        (256000, None, 3.65),
        (262208, None, 3.94),
    ],
)
def test_activations_are_never_below_what_llm_d_planner_measured(vocabulary: int, experts: int | None, measured: float) -> None:
    shape = shapes.changed(shapes.LLAMA_8B, vocabulary_size=vocabulary, experts=experts)
    assert sizing.memory(shape, ACCELERATORS["H100"], engine()).activations / GIB >= measured


def test_more_gpus_than_key_value_heads_bring_less_than_their_number() -> None:
    # What llm-d-planner does not see: it divides the cache of a token by all GPUs.
    four, eight = (sizing.memory(shapes.QWEN25_7B, ACCELERATORS["L4"], engine(each)).cache_tokens for each in (4, 8))
    assert eight < 2 * four


SHAPES = st.sampled_from([shapes.LLAMA_8B, shapes.LLAMA_70B_FP8, shapes.QWEN3_32B, shapes.MIXTRAL_8X7B, shapes.GEMMA3_27B])
GPUS = st.sampled_from(sorted(ACCELERATORS))
LOADS = st.builds(load, st.floats(0.1, 500), st.integers(1, 8000), st.integers(1, 2000))


@given(SHAPES, GPUS, st.sampled_from([1, 2, 4]), LOADS, st.integers(1, 400))
def test_more_sequences_never_answer_faster_and_never_answer_less(shape: Shape, gpu: str, tensor: int, asked: LoadSpec, sequences: int) -> None:
    accelerator, on = ACCELERATORS[gpu], engine(tensor)
    few, more = (sizing.speed(shape, accelerator, on, asked, each, Efficiency()) for each in (sequences, sequences + 1))
    assert few.between_tokens <= more.between_tokens
    assert few.first_token <= more.first_token * (1 + 1e-9)
    assert few.requests_per_second <= more.requests_per_second * (1 + 1e-9)


@given(SHAPES, GPUS, LOADS, st.floats(0.005, 1))
def test_a_stricter_objective_never_answers_more(shape: Shape, gpu: str, asked: LoadSpec, goal: float) -> None:
    strict = sized(shape, gpu, engine(4), asked, objectives(inter_token_seconds=goal))
    lax = sized(shape, gpu, engine(4), asked, objectives(inter_token_seconds=2 * goal))
    if strict.speed is not None:
        assert lax.speed is not None
        assert strict.speed.requests_per_second <= lax.speed.requests_per_second * (1 + 1e-9)


@given(SHAPES, GPUS, st.integers(1, 3), LOADS)
def test_more_gpus_in_a_replica_never_need_more_replicas(shape: Shape, gpu: str, step: int, asked: LoadSpec) -> None:
    few, more = (sized(shape, gpu, engine(tensor), asked) for tensor in (2**step // 2, 2**step))
    # Where a link is slower than the memory, a long prompt takes longer on more GPUs: that is true of PCIe. Where maxNumSeqs alone
    # is the limit, more GPUs have nothing to hold, and still have to talk.
    if few.speed is not None and few.binding != SEQUENCES and ACCELERATORS[gpu].link == "NVLink" and asked.input_tokens <= 4000:
        assert more.speed is not None
        needed = [math.ceil(asked.requests_per_second / (each.requests_per_second * 0.7) - 1e-9) for each in (few.speed, more.speed)]
        assert needed[1] <= needed[0]


@given(SHAPES, GPUS, st.integers(1024, 60_000))
def test_a_shorter_limit_never_fits_less(shape: Shape, gpu: str, length: int) -> None:
    long, short = (sized(shapes.served(shape, max_model_length=each), gpu, engine(), asked=None) for each in (length, length // 2))
    assert short.serves >= long.serves
