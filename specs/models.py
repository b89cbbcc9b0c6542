"""Models: source, facts, objectives and load, as a stack file describes them."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from specs import naming
from specs.base import Spec, checked, dns_name, refuse
from specs.gpu_pools import AcceleratorSpec
from specs.placement import PlacementEntry, PlacementSpec
from specs.serving_arguments import Count, ModelRuntimeSpec

_SOURCES = {
    "oci": (r"oci://[a-z0-9.:-]+(/[a-z0-9._-]+)+(:[\w.-]+|@sha256:[0-9a-f]{64})?", "oci://registry.example.com/models/name:tag"),
    "hf": (r"hf://[\w.-]+/[\w.-]+(:[\w./-]+)?", "hf://organisation/model or hf://organisation/model:revision"),
    "s3": (r"s3://[a-z0-9][a-z0-9.-]+(/[^\s/]+)+/?", "s3://bucket/path"),
    "pvc": (r"pvc://[a-z0-9][a-z0-9.-]*(/[^\s/]+)+/?", "pvc://claim/path"),
}


def _source(value: str) -> str:
    scheme = value.split("://", 1)[0]
    if scheme not in _SOURCES:
        raise refuse("must start with one of " + ", ".join(f"`{each}://`" for each in _SOURCES))
    pattern, example = _SOURCES[scheme]
    if not re.fullmatch(pattern, value):
        raise refuse(f"is not a valid `{scheme}://` source", f"it looks like {example}")
    return value


ModelName = Annotated[str, *dns_name(naming.MODEL_LIMIT, "KServe writes `isvc.<name>-predictor` into a label of 63 characters")]
Owner = Annotated[
    str, *checked(r"[a-z0-9A-Z]([-\w.]*[a-z0-9A-Z])?", naming.LABEL_LIMIT, "must hold only letters, digits, `-`, `_` and `.`", "it becomes a label")
]
ModelSource = Annotated[str, AfterValidator(_source), Field(json_schema_extra={"pattern": "^(oci|hf|s3|pvc)://.+"})]


class LatentAttention(Spec):
    """Numbers of multi-head latent attention (MLA), which keeps one latent per token in place of keys and values."""

    kv_lora_rank: Count
    """kv_lora_rank"""
    qk_rope_head_size: Count
    """qk_rope_head_dim"""


class ModelFacts(Spec):
    """The architecture of a model, as its config.json has it. Rules and plans are computed from it. `fleet model inspect` prints
    it for a model directory or an artifact."""

    attention_heads: Count
    """num_attention_heads"""
    key_value_heads: Count
    """num_key_value_heads"""
    layers: Count
    """num_hidden_layers"""
    hidden_size: Count
    """hidden_size"""
    parameters: Count
    """Weights, all experts included."""
    max_model_length: Count
    """max_position_embeddings: the longest sequence in tokens."""
    intermediate_size: Count | None = None
    """intermediate_size; of a mixture of experts moe_intermediate_size."""
    vocabulary_size: Count | None = None
    """vocab_size. Without it plans reserve memory for a large one."""
    experts: Count | None = None
    """Experts of each layer: num_experts, n_routed_experts or num_local_experts. None for a model without."""
    experts_per_token: Count | None = None
    """num_experts_per_tok. Only plans need it, as those below."""
    head_size: Count | None = None
    """head_dim; without it hiddenSize / attentionHeads."""
    weight_bytes: Count | None = None
    """Bytes of the weight files; without them two per parameter, or what the quantization makes of it."""
    sliding_window: Count | None = None
    """sliding_window: tokens that some layers look back."""
    full_attention_layers: Annotated[int, Field(ge=0)] | None = None
    """Layers without that window; 0 where all have it. Without this number plans count a window for nothing."""
    mla: LatentAttention | None = None


class ObjectivesSpec(Spec):
    """What callers may expect. Alerts and plans are derived from it; those about failover are refused where they cannot be
    kept."""

    availability_percent: Annotated[float, Field(gt=0, lt=100)] = 99.5
    time_to_first_token_seconds: Annotated[float, Field(gt=0)] | None = None
    inter_token_seconds: Annotated[float, Field(gt=0)] | None = None
    failover_seconds: Annotated[float, Field(gt=0)] | None = None
    """The longest by which the first token of a request may come later because its region died."""
    restore_seconds: Annotated[float, Field(gt=0)] | None = None
    """The longest from the death of a region until its replicas are ready in others."""


Replicas = Annotated[int, Field(ge=1, le=10_000)]


class LoadSpec(Spec):
    """What callers ask of a model, over all front doors together. Plans are made for it; nothing enforces it."""

    requests_per_second: Annotated[float, Field(ge=1e-6)]
    """At the busiest time that is planned for."""
    input_tokens: Count
    """Of a prompt, in the mean."""
    output_tokens: Count
    """Of an answer, in the mean."""


class ModelBase(Spec):
    """What is known of a model before it has a place."""

    name: ModelName
    """Its name in paths and in the `model` field of requests."""
    owner: Owner | None = None
    """Team that answers for it: a label of its placement."""
    source: ModelSource
    """Where the weights come from: oci://, hf://, s3:// or pvc://."""
    pack: Annotated[str, Field(min_length=1)] | None = None
    """A model directory, relative to the folder of the stack file. `pulumi up` packs it and pushes it to `source` where the
    registry lacks the digest that `source` names. None for a model that others push."""
    facts: ModelFacts
    runtime: ModelRuntimeSpec = ModelRuntimeSpec()
    objectives: ObjectivesSpec = ObjectivesSpec()
    load: LoadSpec | None = None
    """Without it plans know how much fits, and not how much is needed."""
    rollout: Literal["surge", "replace"] = "surge"
    """How a change reaches the replicas of a cluster. `surge` starts a new one before it stops an old one, and needs the
    GPUs of one replica free; `replace` needs none, and leaves the cluster one replica short meanwhile."""


class ModelEntry(ModelBase):
    """One model that the fleet serves, as a stack file has it. What is left out of accelerator, replicas and placement.clusters
    is chosen: docs/planning.md."""

    accelerator: AcceleratorSpec | None = None
    """What a replica runs on. Left out: the cheapest GPUs of the model's clusters that keep its objectives."""
    replicas: Replicas | None = None
    """Over all clusters together. Left out: as few as the load needs."""
    placement: PlacementEntry = PlacementEntry()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to choose."""
        return self.accelerator is not None and self.replicas is not None and bool(self.placement.clusters)


class ModelSpec(ModelBase):
    """One model that the fleet serves, with everything decided."""

    accelerator: AcceleratorSpec
    replicas: int
    placement: PlacementSpec

    def accelerator_in(self, cluster: str) -> AcceleratorSpec:
        """What a replica runs on in `cluster`."""
        for each in self.placement.clusters:
            if each.name == cluster and each.accelerator is not None:
                return each.accelerator
        return self.accelerator
