"""How one model is served: arguments of vLLM as typed fields, and the flags that they become.

Whether the pinned vLLM, the model and its GPU take them is checked in serving_rules.py. What all models of a runtime share
(address, probes, shutdown) is serving.py.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from runtime_image import vllm_arguments
from specs.accelerators import CPU
from specs.base import Spec, refuse
from specs.gpu_pools import AcceleratorSpec

# The folder that KServe puts weights in.
MODEL_PATH = "/mnt/models"

Count = Annotated[int, Field(ge=1)]


def _inside(value: dict[str, str]) -> dict[str, str]:
    for name, path in value.items():
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise refuse(f"the name `{name}` must start with a letter or digit, and hold only letters, digits, `.`, `_` and `-`")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path) or ".." in path.split("/"):
            raise refuse(f"`{name}` must name a folder inside the model's source", "it looks like adapters/name")
    return value


class LoraSpec(Spec):
    """Adapters that share the weights of the model."""

    max_loras: Count | None = None
    """Adapters that one batch may mix; without it 1."""
    max_lora_rank: Count | None = None
    """The highest rank of an adapter; without it 16."""
    adapters: Annotated[dict[str, str], AfterValidator(_inside)] = Field(default_factory=dict[str, str])
    """Name in the `model` field of requests → folder inside the model's source, e.g. `adapters/german`."""


class KvTransferSpec(Spec):
    """Hands the KV cache of requests to other engines, or takes it from them."""

    connector: Annotated[str, Field(min_length=1)]
    """Name of a connector of vLLM, e.g. `NixlConnector`. The image must hold its library: vLLM's own has no NIXL."""
    role: Literal["producer", "consumer", "both"] = "both"
    on_load_failure: Literal["fail", "recompute"] | None = None
    """What becomes of a request whose blocks do not come. vLLM's own default, `fail`, ends it with an error."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The connector's own settings."""


class KvEventsSpec(Spec):
    """Tells which blocks the cache holds, for routers that send a request to where its prefix is."""

    endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+$")] = "tcp://*:5557"
    replay_endpoint: Annotated[str, Field(pattern=r"^(tcp|ipc)://.+$")] | None = None
    """Where a router that comes late asks for what it missed."""
    topic: str | None = None


class ModelRuntimeSpec(Spec):
    """Arguments of vLLM for one model. What is left out is vLLM's own default, but for maxModelLength."""

    max_model_length: Count | None = None
    """Longest sequence in tokens; without it the longest that the model can do. Shorter leaves memory for more requests."""
    max_num_seqs: Count | None = None
    """Sequences computed at once."""
    max_num_batched_tokens: Count | None = None
    """Tokens computed in one step: more is faster on prompts, less keeps the time between tokens short."""
    max_queued: Annotated[int, Field(ge=0)] | None = None
    """Requests of a replica that may wait for one of maxNumSeqs. More are refused with 429, and the front doors try the next
    region. Without it all wait, however long; it needs maxNumSeqs."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a GPU's memory for weights and KV cache together. Either this or kvCacheBytes."""
    kv_cache_bytes: Count | None = None
    """Size of the KV cache per GPU, instead of what is free after loading."""
    kv_cache_dtype: str | None = None
    """Precision of the KV cache, e.g. `fp8`: twice the capacity, at some cost in quality."""
    kv_offloading_gib: Annotated[Annotated[float, Field(gt=0)] | None, Field(alias="kvOffloadingGiB")] = None
    """Main memory for blocks that fall out of the KV cache, over all GPUs of a replica. It is part of the runtime's `memory`."""
    pipeline_parallel_size: Count | None = None
    """Stages that the layers are split into; the GPUs of a stage share each layer. `accelerator.count` counts all GPUs of a replica."""
    expert_parallel: bool = False
    """Whole experts on each GPU, instead of a part of every expert."""
    quantization: str | None = None
    """Method by which the weights are or shall be quantized. Left out, what the checkpoint says."""
    lora: LoraSpec | None = None
    prefix_cache: bool | None = None
    """Keep the cache of prompts for later ones that begin alike. vLLM's own default is true."""
    structured_outputs_backend: str | None = None
    """What holds answers to a schema, e.g. `xgrammar`."""
    tool_call_parser: str | None = None
    """How calls of tools are found in the text of an answer. Callers may then leave the choice of tools to the model."""
    reasoning_parser: str | None = None
    """Parser that separates reasoning from the answer."""
    kv_transfer: KvTransferSpec | None = None
    kv_events: KvEventsSpec | None = None
    enforce_eager: bool = False
    """No compiled graphs: starts sooner, answers slower."""
    extra_arguments: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Any other flag of `vllm serve`, e.g. `--block-size: 32`; a mapping for flags that take JSON, a list for those that take
    several values. Checked against the parser of the pinned vLLM like the rest."""
    load_seconds: Count | None = None
    """The longest from a replica's place on a node until it answers: image, weights, start of the engine. Not an argument of
    vLLM; how soon lost capacity is back is computed with it."""

    @model_validator(mode="after")
    def _queue_has_a_base(self) -> Self:
        if self.max_queued is not None and self.max_num_seqs is None:
            raise refuse("`maxQueued` needs `maxNumSeqs`: a replica is full with both together", "set `maxNumSeqs`; vLLM's own default depends on the GPU")
        return self

    @model_validator(mode="after")
    def _one_size_of_the_cache(self) -> Self:
        if self.gpu_memory_utilization is not None and self.kv_cache_bytes is not None:
            raise refuse("must not have both `gpuMemoryUtilization` and `kvCacheBytes`", "with a size in bytes vLLM ignores the share")
        return self

    @property
    def capacity(self) -> int | None:
        """Requests of a replica under way at once before it refuses more; None for no limit."""
        return None if self.max_queued is None or self.max_num_seqs is None else self.max_num_seqs + self.max_queued

    @property
    def stages(self) -> int:
        return self.pipeline_parallel_size or 1


@dataclass(frozen=True, kw_only=True)
class Given:
    """One flag as it is given to vLLM, and the field of ModelRuntimeSpec that it comes from."""

    flag: str
    value: Any
    field: str
    # The value as the stack file has it, where the flag's own differs.
    written: Any = None
    # A list stands for several values; else it is JSON.
    many: bool = False

    @property
    def rendered(self) -> list[str]:
        if isinstance(self.value, bool):
            return [self.flag if self.value else f"--no-{self.flag[2:]}"]
        if self.many and isinstance(self.value, list):
            return [self.flag, *map(str, self.value)]
        if isinstance(self.value, (dict, list)):
            return [f"{self.flag}={json.dumps(self.value, separators=(',', ':'))}"]
        return [f"{self.flag}={self.value}"]


# Fields that are one flag, in the order in which they are given.
_PLAIN = {
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_cache_bytes": "--kv-cache-memory-bytes",
    "kv_cache_dtype": "--kv-cache-dtype",
    "kv_offloading_gib": "--kv-offloading-size",
    "quantization": "--quantization",
    "prefix_cache": "--enable-prefix-caching",
    "reasoning_parser": "--reasoning-parser",
}


def given(runtime: ModelRuntimeSpec, max_model_length: int, accelerator: AcceleratorSpec) -> Iterator[Given]:
    """Every flag for a model on this accelerator. `max_model_length`: what the model itself can do."""
    yield Given(flag="--max-model-len", value=runtime.max_model_length or max_model_length, field="max_model_length")
    if accelerator.type != CPU:
        yield Given(flag="--tensor-parallel-size", value=accelerator.count // runtime.stages, field="pipeline_parallel_size")
    if runtime.pipeline_parallel_size is not None:
        yield Given(flag="--pipeline-parallel-size", value=runtime.pipeline_parallel_size, field="pipeline_parallel_size")
    if runtime.expert_parallel:
        yield Given(flag="--enable-expert-parallel", value=True, field="expert_parallel")
    for field, flag in _PLAIN.items():
        value = getattr(runtime, field)
        if value is not None:
            yield Given(flag=flag, value=value, field=field)
    if runtime.tool_call_parser is not None:
        # Without the first the parser is loaded and never used.
        yield Given(flag="--enable-auto-tool-choice", value=True, field="tool_call_parser")
        yield Given(flag="--tool-call-parser", value=runtime.tool_call_parser, field="tool_call_parser")
    if runtime.structured_outputs_backend is not None:
        backend = runtime.structured_outputs_backend
        yield Given(flag="--structured-outputs-config", value={"backend": backend}, field="structured_outputs_backend", written=backend)
    if runtime.lora is not None:
        yield from _lora(runtime.lora)
    if runtime.kv_transfer is not None:
        yield Given(flag="--kv-transfer-config", value=_kv_transfer(runtime.kv_transfer), field="kv_transfer")
    if runtime.kv_events is not None:
        yield Given(flag="--kv-events-config", value=_kv_events(runtime.kv_events), field="kv_events")
    if runtime.enforce_eager:
        yield Given(flag="--enforce-eager", value=True, field="enforce_eager")
    for flag, value in runtime.extra_arguments.items():
        yield Given(flag=flag, value=value, field="extra_arguments", many=takes_several(flag))


def _lora(spec: LoraSpec) -> Iterator[Given]:
    yield Given(flag="--enable-lora", value=True, field="lora")
    if spec.max_loras is not None:
        yield Given(flag="--max-loras", value=spec.max_loras, field="lora")
    if spec.max_lora_rank is not None:
        yield Given(flag="--max-lora-rank", value=spec.max_lora_rank, field="lora")
    if spec.adapters:
        modules = [f"{name}={MODEL_PATH}/{path}" for name, path in spec.adapters.items()]
        yield Given(flag="--lora-modules", value=modules, field="lora", many=True)


def _kv_transfer(spec: KvTransferSpec) -> dict[str, Any]:
    failure = {"kv_load_failure_policy": spec.on_load_failure} if spec.on_load_failure else {}
    options = {"kv_connector_extra_config": spec.options} if spec.options else {}
    return {"kv_connector": spec.connector, "kv_role": f"kv_{spec.role}", **failure, **options}


def _kv_events(spec: KvEventsSpec) -> dict[str, Any]:
    replay = {"replay_endpoint": spec.replay_endpoint} if spec.replay_endpoint else {}
    topic = {"topic": spec.topic} if spec.topic else {}
    return {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": spec.endpoint, **replay, **topic}


def takes_several(flag: str) -> bool:
    """Whether values follow the flag one after another. The same in every version; a rule refuses flags that none has."""
    known = (vllm_arguments.table(version).flags.get(flag) for version in vllm_arguments.versions())
    return any(each is not None and each.many for each in known)


def rendered(runtime: ModelRuntimeSpec, max_model_length: int, accelerator: AcceleratorSpec) -> list[str]:
    """The same as a container's arguments."""
    return [text for each in given(runtime, max_model_length, accelerator) for text in each.rendered]


def shapes_answers(runtime: ModelRuntimeSpec) -> dict[str, Any]:
    """The fields by which two replicas may answer otherwise, beside the length; {} where none is set.

    All of extraArguments is counted: most change speed only, but nothing tells which.
    """
    fields = ("quantization", "kv_cache_dtype", "structured_outputs_backend", "tool_call_parser", "reasoning_parser")
    told = {field: value for field in fields if (value := getattr(runtime, field)) is not None}
    lora = {"lora": dict(sorted(runtime.lora.adapters.items()))} if runtime.lora is not None else {}
    extra = {"extra": runtime.extra_arguments} if runtime.extra_arguments else {}
    return {**told, **lora, **extra}


def parser_table(image: str, default: str) -> vllm_arguments.Table:
    """What the vLLM in this image takes, by the image's tag; `default` where the tag tells nothing or an unknown version."""
    tag = re.search(r":v?(\d+\.\d+\.\d+)(?![\d.])[\w.-]*$", image)
    version = tag[1] if tag and tag[1] in vllm_arguments.versions() else default
    return vllm_arguments.table(version)
