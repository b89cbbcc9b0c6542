"""What a model takes of a GPU's memory, from the numbers of its config.json: weights, and KV cache per sequence.

Formulas are those of vLLM 0.33, which the sizes of model cards agree with (tests/unit/test_model_size.py). Not covered: layers of
linear attention or state space, encoders for pictures and sound, and what speculative decoding adds.
"""

from dataclasses import dataclass

from specs.models import ModelFacts
from specs.serving_arguments import ModelRuntimeSpec

GIB = 2**30

# vLLM fills the vocabulary up to a multiple of this before it splits it (DEFAULT_VOCAB_PADDING_SIZE).
_WORDS_STEP = 64

# Bytes per weight by method, scales included: 4 bits with one 16-bit scale and zero point per 128 weights; of nvfp4 one 8-bit scale
# per 16, of mxfp4 and mxfp8 one per 32. Of methods that are not listed the checkpoint's own size is needed.
_WEIGHT_BYTES = {
    **dict.fromkeys(("fp8", "fp8_per_tensor", "fp8_per_channel", "fp8_per_block", "fbgemm_fp8", "modelopt"), 1.0),
    **dict.fromkeys(("mxfp8", "modelopt_mxfp8"), 1.03),
    **dict.fromkeys(("awq", "awq_marlin", "auto_awq", "gptq", "gptq_marlin", "auto_gptq", "mxfp4", "gpt_oss_mxfp4"), 0.53),
    **dict.fromkeys(("modelopt_fp4", "nvfp4", "nvfp4_per_token"), 0.57),
}
_CACHE_BYTES = {"nvfp4": 0.5625, "nvfp4_4over6": 0.5625}
_WIDE = 2.0
"""Bytes of a number in bfloat16, what models are kept in where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The architecture of a model, and the arguments of vLLM that change what it takes of memory."""

    facts: ModelFacts
    runtime: ModelRuntimeSpec

    @property
    def max_model_length(self) -> int:
        """Longest sequence in tokens that is served."""
        return self.runtime.max_model_length or self.facts.max_model_length

    @property
    def head_size(self) -> int:
        return self.facts.head_size or max(1, self.facts.hidden_size // self.facts.attention_heads)

    @property
    def latent_size(self) -> int | None:
        """Numbers that multi-head latent attention keeps per token and layer; None for other attention."""
        mla = self.facts.mla
        return None if mla is None else mla.kv_lora_rank + mla.qk_rope_head_size

    @property
    def weights(self) -> float:
        """Bytes of all weights. A checkpoint in 16 bits that is quantized while it is loaded takes what it is quantized to."""
        facts, per = self.facts, _WEIGHT_BYTES.get(self.runtime.quantization or "")
        if facts.weight_bytes is None:
            return facts.parameters * (per or _WIDE)
        if per is not None and facts.weight_bytes > 1.5 * facts.parameters * per:
            return facts.parameters * per
        return float(facts.weight_bytes)

    @property
    def expert_share(self) -> float:
        """The part of the weights that is experts', 0 for a dense model: each has three matrices."""
        facts = self.facts
        if not facts.experts or not facts.intermediate_size:
            return 0.0
        # Some layers of such models have no experts, so the product may exceed the whole.
        return min(facts.layers * facts.experts * 3 * facts.hidden_size * facts.intermediate_size / facts.parameters, 0.97)

    def read_per_step(self, sequences: int) -> float:
        """Bytes of weights that a step of `sequences` tokens reads: of experts only those that are asked.

        Expected number of distinct experts: E * (1 - (1 - k/E)^b), for tokens that choose independently.
        """
        if not self.expert_share or not self.facts.experts:
            return self.weights
        asked = 1 - (1 - self._asked_by_a_token) ** sequences
        return self.weights * (1 - self.expert_share + self.expert_share * asked)

    @property
    def _asked_by_a_token(self) -> float:
        """The share of the experts of a layer."""
        return min(1.0, (self.facts.experts_per_token or 1) / (self.facts.experts or 1))

    @property
    def active_parameters(self) -> float:
        """Parameters that one token is multiplied with."""
        if not self.expert_share or not self.facts.experts:
            return float(self.facts.parameters)
        return self.facts.parameters * (1 - self.expert_share + self.expert_share * self._asked_by_a_token)

    @property
    def cache_bytes(self) -> float:
        """Bytes of one number of the KV cache."""
        dtype = self.runtime.kv_cache_dtype or "auto"
        return _CACHE_BYTES.get(dtype, 1.0 if dtype.startswith("fp8") else _WIDE)


def _per_layer(shape: Shape, tensor: int) -> float:
    """Bytes of KV cache per token and layer on each GPU of one pipeline stage.

    A GPU keeps whole heads: with more GPUs than key-value heads each head is kept several times (get_num_kv_heads of vLLM). A
    latent is not split at all.
    """
    if shape.latent_size is not None:
        return shape.latent_size * shape.cache_bytes
    return 2 * max(1, shape.facts.key_value_heads // tensor) * shape.head_size * shape.cache_bytes


def cache_of_sequence(shape: Shape, length: int, tensor: int = 1, stages: int = 1) -> float:
    """Bytes of KV cache of one sequence on each GPU; layers with a window keep no more than the window."""
    facts, window = shape.facts, shape.facts.sliding_window
    full = facts.layers if window is None or facts.full_attention_layers is None else facts.full_attention_layers
    windowed = facts.layers - full
    tokens = full * length + windowed * min(length, window or length)
    return _per_layer(shape, tensor) * tokens / stages


def split_problems(
    tensor: int, *, attention_heads: int, key_value_heads: int, intermediate_size: int | None = None, vocabulary_size: int | None = None
) -> list[str]:
    """Why vLLM does not split a model over `tensor` GPUs; nothing where it does. Sizes that are None are not looked at.

    With whole experts on each GPU nothing of their layers is split: intermediate_size is left out then.
    """
    words = vocabulary_size and -(-vocabulary_size // _WORDS_STEP) * _WORDS_STEP
    parts = {
        "attention heads": attention_heads,
        "neurons of a layer (`facts.intermediateSize`)": intermediate_size,
        f"words, filled up to a multiple of {_WORDS_STEP},": words,
    }
    found = [f"must divide the model's {number} {name}" for name, number in parts.items() if number and number % tensor]
    if key_value_heads % tensor and tensor % key_value_heads:
        found.append(f"must divide the model's {key_value_heads} key-value heads, or be a multiple of them")
    return found
