"""Whether the pinned vLLM, the model's architecture and its GPU take the serving arguments of each model.

vLLM refuses all of these at its start, when the weights are there already: a pod that restarts for ever. Whether weights
and cache fit into a GPU is not asked here.
"""

from collections.abc import Iterator

from planning.model_size import split_problems
from runtime_image.vllm_arguments import Table
from specs.accelerators import ACCELERATORS, CPU
from specs.base import NOTHING, Path, Problem, closest
from specs.fleet import FleetSpec
from specs.gpu_pools import AcceleratorSpec
from specs.models import ModelBase, ModelSpec
from specs.serving_arguments import Given, ModelRuntimeSpec, given

# Flags that are set elsewhere → where. One given twice would win over the other by its place in the line.
ELSEWHERE = {
    "--tensor-parallel-size": "accelerator.count",
    "--max-num-queued-reqs": "runtime.maxQueued",
    "--shutdown-timeout": "runtimes.*.shutdownSeconds",
    "--model": "source",
    "--served-model-name": "name",
    **{
        flag: f"runtime.{field}"
        for flag, field in {
            "--max-model-len": "maxModelLength",
            "--max-num-seqs": "maxNumSeqs",
            "--max-num-batched-tokens": "maxNumBatchedTokens",
            "--gpu-memory-utilization": "gpuMemoryUtilization",
            "--kv-cache-memory-bytes": "kvCacheBytes",
            "--kv-cache-dtype": "kvCacheDtype",
            "--kv-offloading-size": "kvOffloadingGiB",
            "--pipeline-parallel-size": "pipelineParallelSize",
            "--enable-expert-parallel": "expertParallel",
            "--quantization": "quantization",
            "--enable-lora": "lora",
            "--max-loras": "lora.maxLoras",
            "--max-lora-rank": "lora.maxLoraRank",
            "--lora-modules": "lora.adapters",
            "--enable-prefix-caching": "prefixCache",
            "--structured-outputs-config": "structuredOutputsBackend",
            "--enable-auto-tool-choice": "toolCallParser",
            "--tool-call-parser": "toolCallParser",
            "--reasoning-parser": "reasoningParser",
            "--kv-transfer-config": "kvTransfer",
            "--kv-events-config": "kvEvents",
            "--enforce-eager": "enforceEager",
        }.items()
    },
}
# Flags that would break what the fleet relies on → why.
REFUSED = {
    "--host": "probes and KServe's Service ask for vLLM at the pod's address",
    "--port": "probes and KServe's Service ask for vLLM at one port",
    "--uds": "probes and KServe's Service ask for vLLM at the pod's address",
    "--root-path": "probes and the front doors ask for vLLM's own paths",
    "--middleware": "it is the engine watchdog's place",
    "--disable-access-log-for-endpoints": "the runtime sets it for the paths of probes",
    "--api-server-count": "the engine watchdog counts the requests of one API server",
    "--headless": "a replica must answer",
    "--grpc": "callers speak HTTP",
    "--config": "arguments of a file would be checked by nothing",
    "--api-key": "it would stand in plain text in the cluster; keys of callers are the front doors' business",
    "--hf-token": "it would stand in plain text in the cluster; weights are there when vLLM starts",
    "--ssl-keyfile": "probes and the regional gateways speak HTTP within a cluster",
    "--ssl-certfile": "probes and the regional gateways speak HTTP within a cluster",
    "--data-parallel-size": "a replica is one engine: raise `replicas`",
    "--nnodes": "a replica runs on one node",
}
# Of these the value is not shown: it is one that nobody should see.
_SECRET = ("--api-key", "--hf-token")
# Of the CPU runtime only: set there, for all models.
REFUSED_ON_CPU = {"--dtype": "the CPU runtime sets it"}

# Methods for whose kernels vLLM asks more than by its own table, as compute capability.
QUANTIZATION_NEEDS = {"nvfp4_per_token": 100}
# The least compute capability for a precision of the cache. vLLM's Triton kernels refuse less for fp8; the scale search of
# nvfp4_4over6 is in the kernels of Blackwell alone.
CACHE_NEEDS = {"fp8": 89, "fp8_e4m3": 89, "fp8_e5m2": 89, "fp8_per_token_head": 89, "nvfp4_4over6": 100}
# With FlashInfer's kernels fp8 goes on any GPU of the table.
_ANY_CACHE = "FLASHINFER"
CPU_CACHE = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
CPU_QUANTIZATION = ("awq", "auto_awq", "gptq", "auto_gptq", "compressed-tensors", "inc")
# Fields that mean nothing without a GPU, as Python and as a stack file have them.
GPU_ONLY = {
    "gpu_memory_utilization": "gpuMemoryUtilization",
    "pipeline_parallel_size": "pipelineParallelSize",
    "expert_parallel": "expertParallel",
    "kv_offloading_gib": "kvOffloadingGiB",
    "kv_transfer": "kvTransfer",
}

_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "m": 1e-3}


def loads_fit_the_model(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model in enumerate(fleet.models):
        yield from load_fits(at, model)


def load_fits(at: int, model: ModelBase) -> Iterator[Problem]:
    """Of one model, which may have no place yet."""
    own = model.runtime.max_model_length
    longest = own or model.facts.max_model_length
    if model.load is not None and model.load.input_tokens + model.load.output_tokens > longest:
        rule = f"`inputTokens` and `outputTokens` together must not exceed `{'runtime' if own else 'facts'}.maxModelLength`, which is {longest}"
        yield Problem(("models", at, "load"), rule, model.load.input_tokens + model.load.output_tokens, "the engine refuses longer requests")


def _sites(at: int, model: ModelSpec) -> Iterator[tuple[Path, AcceleratorSpec]]:
    """What the model runs on, with its path in the stack file: its own accelerator first, then those of clusters that differ."""
    yield ("models", at, "accelerator"), model.accelerator
    for place, each in enumerate(model.placement.clusters):
        if each.accelerator is not None:
            yield ("models", at, "placement", "clusters", place, "accelerator"), each.accelerator


def _used(model: ModelSpec) -> list[AcceleratorSpec]:
    """What replicas of the model run on, each type once."""
    found = {each.type: each for each in (model.accelerator_in(cluster.name) for cluster in model.placement.clusters)}
    return list(found.values())


def _field(each: Given) -> Path:
    """Where in `runtime` the flag comes from."""
    if each.field == "extra_arguments":
        return ("extraArguments", each.flag)
    if each.field == "lora":
        names = {"--max-loras": "maxLoras", "--max-lora-rank": "maxLoraRank", "--lora-modules": "adapters"}
        return ("lora", names[each.flag]) if each.flag in names else ("lora",)
    return (ModelRuntimeSpec.model_fields[each.field].alias or each.field,)


def arguments_are_known(fleet: FleetSpec) -> Iterator[Problem]:
    """Every flag against the parser of the vLLM in the image that will get it."""
    for at, model in enumerate(fleet.models):
        told: set[Path] = set()
        for accelerator in _used(model):
            table = fleet.runtimes.for_accelerator(accelerator.type).parser
            for problem in _unknown(("models", at, "runtime"), model, accelerator, table):
                if problem.path not in told:
                    told.add(problem.path)
                    yield problem


def _unknown(path: Path, model: ModelSpec, accelerator: AcceleratorSpec, table: Table) -> Iterator[Problem]:
    arguments = list(given(model.runtime, model.facts.max_model_length, accelerator))
    names = [each.flag for each in arguments]
    for each in arguments:
        extra = each.field == "extra_arguments"
        written = each.value if each.written is None else each.written
        if extra and (where := ELSEWHERE.get(each.flag)):
            yield Problem((*path, *_field(each)), "must not be given here", each.value, f"it is set by `{where}`")
        elif extra and (why := REFUSED.get(each.flag) or (REFUSED_ON_CPU.get(each.flag) if accelerator.type == CPU else None)):
            yield Problem((*path, *_field(each)), "must not be given", NOTHING if each.flag in _SECRET else each.value, why)
        elif wrong := table.wrong(each.flag, each.value, names):
            inside: Path = (wrong.inside,) if extra and wrong.inside else ()
            value = each.value[wrong.inside] if inside else each.flag if each.flag not in table.flags else written
            rule = wrong.rule if extra else f"{wrong.rule}: `{each.flag}` of vLLM {table.version}"
            yield Problem((*path, *_field(each), *inside), rule, value, wrong.hint)
    transfer = model.runtime.kv_transfer
    if transfer is not None and transfer.connector not in table.kv_connectors:
        hint = closest(transfer.connector, table.kv_connectors)
        yield Problem((*path, "kvTransfer", "connector"), f"is no connector of vLLM {table.version}", transfer.connector, hint)
    method = model.runtime.quantization
    if method is not None and method not in table.quantization:
        yield Problem((*path, "quantization"), f"is no method of vLLM {table.version}", method, closest(method, table.quantization))


def arguments_fit_the_model(fleet: FleetSpec) -> Iterator[Problem]:
    """Arguments against the architecture, and among themselves."""
    for at, model in enumerate(fleet.models):
        runtime, facts = model.runtime, model.facts
        path: Path = ("models", at, "runtime")
        if runtime.stages > facts.layers:
            yield Problem((*path, "pipelineParallelSize"), f"must not exceed the model's {facts.layers} layers", runtime.stages)
        if runtime.expert_parallel and facts.experts is None:
            hint = "leave it out, or copy the number from the model's config.json into `facts.experts`"
            yield Problem((*path, "expertParallel"), "needs a model with experts, and `facts.experts` is not set", value=True, hint=hint)
        asked, batch = runtime.max_num_batched_tokens, runtime.max_num_seqs
        if asked is not None and batch is not None and asked < batch:
            rule = f"must not be less than `maxNumSeqs`, which is {batch}"
            yield Problem((*path, "maxNumBatchedTokens"), rule, asked, "each sequence gets a token in a step")
        if runtime.lora is not None and model.name in runtime.lora.adapters:
            yield Problem((*path, "lora", "adapters", model.name), "must differ from the name of the model", model.name)


def tensor_parallel_fits(fleet: FleetSpec) -> Iterator[Problem]:
    """vLLM refuses to start otherwise: it splits heads, layers of neurons and words evenly over the GPUs of a stage."""
    for at, model in enumerate(fleet.models):
        for site, accelerator in _sites(at, model):
            if accelerator.type != CPU:
                yield from _split((*site, "count"), model, accelerator.count)


def _split(path: Path, model: ModelSpec, count: int) -> Iterator[Problem]:
    facts, stages = model.facts, model.runtime.stages
    heads = facts.attention_heads
    # Whole experts are on each GPU then, and nothing of their layers is split.
    neurons = None if model.runtime.expert_parallel else facts.intermediate_size

    def broken(size: int) -> list[str]:
        return split_problems(
            size,
            attention_heads=heads,
            key_value_heads=facts.key_value_heads,
            intermediate_size=neurons,
            vocabulary_size=facts.vocabulary_size,
        )

    if count % stages:
        yield Problem(path, f"must be a multiple of `runtime.pipelineParallelSize`, which is {stages}", count)
        return
    possible = f"possible: {', '.join(str(size * stages) for size in range(1, min(heads, 16) + 1) if not broken(size) and size * stages <= 16)}"
    for rule in broken(count // stages)[:1]:
        yield Problem(path, rule if stages == 1 else f"the {count // stages} GPUs of each of its {stages} stages {rule}", count, possible)
    if model.runtime.expert_parallel and facts.experts is not None and count // stages > facts.experts:
        rule = f"must not put the model's {facts.experts} experts on more GPUs than there are experts"
        yield Problem(path, rule, count, "lower it, or leave out `runtime.expertParallel`")


def arguments_fit_the_accelerator(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model in enumerate(fleet.models):
        path: Path = ("models", at, "runtime")
        for accelerator in _used(model):
            if accelerator.type == CPU:
                yield from _on_cpu(path, model)
            else:
                yield from _on_gpu(path, model, accelerator.type, fleet)


def _on_cpu(path: Path, model: ModelSpec) -> Iterator[Problem]:
    runtime = model.runtime
    for name, key in GPU_ONLY.items():
        value = getattr(runtime, name)
        if value:
            yield Problem((*path, key), f"needs a GPU, and model `{model.name}` runs on `{CPU}`", value, "leave it out")
    if runtime.kv_cache_dtype is not None and runtime.kv_cache_dtype not in CPU_CACHE:
        names = ", ".join(f"`{each}`" for each in CPU_CACHE)
        yield Problem((*path, "kvCacheDtype"), f"is not known to work on `{CPU}`", runtime.kv_cache_dtype, f"possible: {names}")
    if runtime.quantization is not None and runtime.quantization not in CPU_QUANTIZATION:
        names = ", ".join(f"`{each}`" for each in CPU_QUANTIZATION)
        yield Problem((*path, "quantization"), f"is not known to work on `{CPU}`", runtime.quantization, f"possible: {names}")


def _on_gpu(path: Path, model: ModelSpec, kind: str, fleet: FleetSpec) -> Iterator[Problem]:
    runtime, gpu = model.runtime, ACCELERATORS[kind]
    spec = fleet.runtimes.for_accelerator(kind)
    method, cache = runtime.quantization, runtime.kv_cache_dtype
    least = QUANTIZATION_NEEDS.get(method or "") or spec.parser.quantization.get(method or "")
    if least and gpu.capability < least:
        yield Problem((*path, "quantization"), _too_old(kind, gpu.capability, least), method, _enough(least))
    least = CACHE_NEEDS.get(cache or "")
    eased = runtime.extra_arguments.get("--attention-backend") == _ANY_CACHE and str(cache).startswith("fp8")
    if least and gpu.capability < least and not eased:
        more = f", or set `extraArguments: {{--attention-backend: {_ANY_CACHE}}}`, whose kernels convert it" if least < 90 else ""
        yield Problem((*path, "kvCacheDtype"), _too_old(kind, gpu.capability, least), cache, _enough(least) + more)
    offload = runtime.kv_offloading_gib
    if offload is not None and offload * 2**30 >= _bytes(spec.memory):
        rule = f"must be less than the main memory of a replica, `runtimes.vllm.memory` {spec.memory}"
        yield Problem((*path, "kvOffloadingGiB"), rule, offload, "raise the memory, or lower this")


def _too_old(kind: str, has: int, least: int) -> str:
    return f"needs compute capability {least / 10:.1f}, and `{kind}` has {has / 10:.1f}"


def _enough(least: int) -> str:
    return f"GPU types that have it: {', '.join(f'`{name}`' for name, each in ACCELERATORS.items() if each.capability >= least)}"


def _bytes(quantity: str) -> float:
    unit = quantity.lstrip("0123456789.")
    return float(quantity.removesuffix(unit)) * _UNITS.get(unit, 1)
