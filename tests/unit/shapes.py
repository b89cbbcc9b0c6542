"""Architectures of well-known models, from their config.json, for tests of plans."""

from dataclasses import replace

from planning.model_size import Shape

LLAMA_8B = Shape(
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
LLAMA_70B = Shape(
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
LLAMA_70B_FP8 = replace(LLAMA_70B, quantization="fp8")
QWEN3_32B = Shape(
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
QWEN25_7B = Shape(
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
MIXTRAL_8X7B = Shape(
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
GEMMA3_27B = Shape(
    layers=62,
    attention_heads=32,
    key_value_heads=16,
    head_size=128,
    hidden_size=5376,
    parameters=27_009_000_000,
    max_model_length=131072,
    intermediate_size=21504,
    vocabulary_size=262208,
    window=1024,
    full_layers=10,
)
DEEPSEEK_V3 = Shape(
    layers=61,
    attention_heads=128,
    key_value_heads=128,
    head_size=128,
    hidden_size=7168,
    parameters=671_026_419_200,
    max_model_length=32768,
    intermediate_size=2048,
    vocabulary_size=129280,
    latent_size=512 + 64,
    experts=256,
    experts_per_token=8,
    quantization="fp8",
)
