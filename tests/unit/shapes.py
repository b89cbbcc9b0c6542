"""Architectures of well-known models, from their config.json, for tests of plans."""

from typing import Any

from planning.model_size import Shape
from planning.sizing import Engine
from specs.models import LoadSpec, ModelFacts, ObjectivesSpec
from specs.serving_arguments import ModelRuntimeSpec


def shape(quantization: str | None = None, **facts: Any) -> Shape:
    """An architecture by the names of ModelFacts."""
    return Shape(facts=ModelFacts.model_validate(facts, by_name=True), runtime=runtime(quantization=quantization))


def runtime(**fields: Any) -> ModelRuntimeSpec:
    return ModelRuntimeSpec.model_validate(fields, by_name=True)


def served(shape: Shape, **fields: Any) -> Shape:
    """The same architecture with other arguments of vLLM."""
    return Shape(facts=shape.facts, runtime=runtime(**{**shape.runtime.model_dump(exclude_unset=True), **fields}))


def changed(shape: Shape, **facts: Any) -> Shape:
    """Another architecture with the same arguments of vLLM."""
    return Shape(facts=ModelFacts.model_validate({**shape.facts.model_dump(), **facts}, by_name=True), runtime=shape.runtime)


def engine(gpus: int = 1, **fields: Any) -> Engine:
    return Engine(runtime=runtime(**fields), gpus=gpus)


def load(requests_per_second: float, input_tokens: int, output_tokens: int) -> LoadSpec:
    fields = {"requests_per_second": requests_per_second, "input_tokens": input_tokens, "output_tokens": output_tokens}
    return LoadSpec.model_validate(fields, by_name=True)


def objectives(**fields: Any) -> ObjectivesSpec:
    return ObjectivesSpec.model_validate(fields, by_name=True)


LLAMA_8B = shape(
    layers=32,
    attention_heads=32,
    key_value_heads=8,
    head_size=128,
    hidden_size=4096,
    parameters=8_030_261_248,
    max_model_length=8192,
    intermediate_size=14336,
    vocabulary_size=128256,
)
LLAMA_70B = shape(
    layers=80,
    attention_heads=64,
    key_value_heads=8,
    head_size=128,
    hidden_size=8192,
    parameters=70_553_706_496,
    max_model_length=32768,
    intermediate_size=28672,
    vocabulary_size=128256,
)
LLAMA_70B_FP8 = served(LLAMA_70B, quantization="fp8")
QWEN3_32B = shape(
    layers=64,
    attention_heads=64,
    key_value_heads=8,
    head_size=128,
    hidden_size=5120,
    parameters=32_762_123_264,
    max_model_length=32768,
    intermediate_size=25600,
    vocabulary_size=151936,
)
QWEN25_7B = shape(
    layers=28,
    attention_heads=28,
    key_value_heads=4,
    head_size=128,
    hidden_size=3584,
    parameters=7_615_616_512,
    max_model_length=32768,
    intermediate_size=18944,
    vocabulary_size=152064,
)
MIXTRAL_8X7B = shape(
    layers=32,
    attention_heads=32,
    key_value_heads=8,
    head_size=128,
    hidden_size=4096,
    parameters=46_702_792_704,
    max_model_length=32768,
    intermediate_size=14336,
    vocabulary_size=32000,
    experts=8,
    experts_per_token=2,
)
GEMMA3_27B = shape(
    layers=62,
    attention_heads=32,
    key_value_heads=16,
    head_size=128,
    hidden_size=5376,
    parameters=27_009_000_000,
    max_model_length=131072,
    intermediate_size=21504,
    vocabulary_size=262208,
    sliding_window=1024,
    full_attention_layers=10,
)
DEEPSEEK_V3 = shape(
    layers=61,
    attention_heads=128,
    key_value_heads=128,
    head_size=128,
    hidden_size=7168,
    parameters=671_026_419_200,
    max_model_length=32768,
    intermediate_size=2048,
    vocabulary_size=129280,
    mla={"kv_lora_rank": 512, "qk_rope_head_size": 64},
    experts=256,
    experts_per_token=8,
    quantization="fp8",
)
