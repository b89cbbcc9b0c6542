"""Weights and KV cache are those of model cards and of vLLM's own arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.model_size import GIB, Shape, cache_of_sequence, split_problems
from tests.unit import shapes


@pytest.mark.parametrize(
    ("shape", "kib"),
    [
        (shapes.LLAMA_8B, 128),
        (shapes.LLAMA_70B, 320),
        (shapes.QWEN3_32B, 256),
        (shapes.QWEN25_7B, 56),
        (shapes.DEEPSEEK_V3, 68.625),
        (shapes.served(shapes.LLAMA_8B, kv_cache_dtype="fp8_e4m3"), 64),
    ],
    ids=["llama-8b", "llama-70b", "qwen3-32b", "qwen2.5-7b", "deepseek-v3", "fp8 cache"],
)
def test_the_cache_of_a_token_is_as_on_the_model_card(shape: Shape, kib: float) -> None:
    assert cache_of_sequence(shape, 1) == kib * 1024


def test_more_gpus_than_key_value_heads_keep_heads_several_times() -> None:
    # Four heads: from four GPUs on each holds one of them, and a fifth would hold one again.
    per_gpu = [cache_of_sequence(shapes.QWEN25_7B, 1, tensor) / 1024 for tensor in (1, 2, 4, 28)]
    assert per_gpu == [56, 28, 14, 14]


def test_a_latent_is_not_split() -> None:
    assert cache_of_sequence(shapes.DEEPSEEK_V3, 1, 8) == cache_of_sequence(shapes.DEEPSEEK_V3, 1)


def test_layers_with_a_window_keep_no_more_than_the_window() -> None:
    gemma = shapes.GEMMA3_27B
    per_layer = 2 * 16 * 128 * 2
    assert cache_of_sequence(gemma, 131072) == per_layer * (10 * 131072 + 52 * 1024)
    assert cache_of_sequence(gemma, 1000) == per_layer * 62 * 1000
    # Where it is not known which layers have the window, none is trusted to.
    assert cache_of_sequence(shapes.changed(gemma, full_attention_layers=None), 131072) == per_layer * 62 * 131072


def test_stages_share_the_layers() -> None:
    assert cache_of_sequence(shapes.LLAMA_70B, 1000, 2, 4) == cache_of_sequence(shapes.LLAMA_70B, 1000, 2) / 4


def test_weights_are_what_the_checkpoint_holds() -> None:
    assert shapes.LLAMA_70B.weights / GIB == pytest.approx(131.4, abs=0.1)
    assert shapes.changed(shapes.LLAMA_8B, weight_bytes=16_060_522_496).weights == 16_060_522_496
    # A 16-bit checkpoint that vLLM quantizes while it loads, and one that is quantized already.
    fp8 = shapes.served(shapes.LLAMA_8B, quantization="fp8")
    assert shapes.changed(fp8, weight_bytes=16_060_522_496).weights == shapes.LLAMA_8B.facts.parameters
    assert shapes.changed(fp8, weight_bytes=9_081_000_000).weights == 9_081_000_000
    assert shapes.DEEPSEEK_V3.weights / GIB == pytest.approx(625, abs=1)


def test_a_token_meets_few_experts_and_a_large_batch_all_of_them() -> None:
    mixtral, deepseek = shapes.MIXTRAL_8X7B, shapes.DEEPSEEK_V3
    # The cards say 12.9 and 37 billion.
    assert mixtral.active_parameters / 1e9 == pytest.approx(12.9, abs=0.2)
    assert deepseek.active_parameters / 1e9 == pytest.approx(37, abs=4)
    assert mixtral.read_per_step(1) == pytest.approx(2 * mixtral.active_parameters)
    assert mixtral.read_per_step(64) == pytest.approx(mixtral.weights, rel=0.001)
    assert shapes.LLAMA_70B.read_per_step(1) == shapes.LLAMA_70B.weights


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (4, None),
        (7, "must divide the model's 64 attention heads"),
        (32, None),
    ],
)
def test_what_vllm_does_not_split_is_told(tensor: int, why: str | None) -> None:
    found = split_problems(tensor, attention_heads=64, key_value_heads=8, intermediate_size=28672, vocabulary_size=128256)
    assert (found[0] if found else None) == why


def test_neither_heads_nor_gpus_divide_the_other() -> None:
    # Qwen2.5-7B has 28 heads and 4 of keys and values: seven GPUs share the former and not the latter.
    assert split_problems(7, attention_heads=28, key_value_heads=4) == ["must divide the model's 4 key-value heads, or be a multiple of them"]


@given(st.integers(1, 200_000), st.sampled_from([1, 2, 4, 8]))
def test_a_longer_sequence_never_takes_less(length: int, tensor: int) -> None:
    for shape in (shapes.GEMMA3_27B, shapes.LLAMA_8B, shapes.DEEPSEEK_V3):
        assert cache_of_sequence(shape, length, tensor) <= cache_of_sequence(shape, length + 1, tensor)
