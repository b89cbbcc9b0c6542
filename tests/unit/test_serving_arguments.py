"""Serving arguments: the flags that the fields become, and what the pinned vLLM, the model and its GPU refuse."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.serving import models, serving_runtimes
from planning import serving_rules
from runtime_image import vllm_arguments
from runtime_image.vllm_arguments import GONE, table
from specs import runtimes, serving_arguments
from specs.base import Problem, SpecError
from specs.fleet import FleetSpec
from specs.models import ModelSpec
from tests.unit import fleets
from tests.unit.fleets import parse_fleet

CPU = {"accelerator": {"type": "cpu"}}
EVERYTHING: dict[str, Any] = {
    "maxModelLength": 4096,
    "maxNumSeqs": 32,
    "maxNumBatchedTokens": 2048,
    "maxQueued": 8,
    "gpuMemoryUtilization": 0.8,
    "kvCacheDtype": "fp8",
    "kvOffloadingGiB": 4,
    "pipelineParallelSize": 2,
    "expertParallel": True,
    "quantization": "fp8",
    "lora": {"maxLoras": 2, "maxLoraRank": 32, "adapters": {"german": "adapters/german", "legal": "adapters/legal"}},
    "prefixCache": False,
    "structuredOutputsBackend": "xgrammar",
    "toolCallParser": "hermes",
    "reasoningParser": "qwen3",
    "kvTransfer": {"connector": "NixlConnector", "role": "producer", "options": {"lease": 30}},
    "kvEvents": {"endpoint": "tcp://*:5557", "replayEndpoint": "tcp://*:5558", "topic": "chat"},
    "enforceEager": True,
    "extraArguments": {"--block-size": 32, "--async-scheduling": False, "--disable-log-stats": True},
}


def parsed(*, clusters: dict[str, Any] | None = None, **model: Any) -> tuple[FleetSpec, ModelSpec]:
    """The small fleet with fields of its model replaced, and of the accelerators of both clusters."""
    raw = fleets.small()
    facts = model.pop("facts", {})
    raw["models"][0].update(model)
    raw["models"][0]["facts"].update(facts)
    for cluster in raw["clusters"]:
        cluster["gpuPools"][0].update(clusters or {})
    fleet = parse_fleet(raw)
    return fleet, fleet.models[0]


def problems(**model: Any) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parsed(**model)
    return caught.value.problems


def everything() -> tuple[FleetSpec, ModelSpec]:
    return parsed(runtime=copy.deepcopy(EVERYTHING), accelerator={"type": "H100", "count": 8}, facts={"experts": 64})


def test_every_field_becomes_its_flag() -> None:
    _, model = everything()
    assert models.arguments(model, model.accelerator) == [
        "--max-model-len=4096",
        "--tensor-parallel-size=4",
        "--pipeline-parallel-size=2",
        "--enable-expert-parallel",
        "--max-num-seqs=32",
        "--max-num-batched-tokens=2048",
        "--gpu-memory-utilization=0.8",
        "--kv-cache-dtype=fp8",
        "--kv-offloading-size=4.0",
        "--quantization=fp8",
        "--no-enable-prefix-caching",
        "--reasoning-parser=qwen3",
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
        '--structured-outputs-config={"backend":"xgrammar"}',
        "--enable-lora",
        "--max-loras=2",
        "--max-lora-rank=32",
        "--lora-modules",
        "german=/mnt/models/adapters/german",
        "legal=/mnt/models/adapters/legal",
        '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_producer","kv_connector_extra_config":{"lease":30}}',
        '--kv-events-config={"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5558","topic":"chat"}',
        "--enforce-eager",
        "--block-size=32",
        "--no-async-scheduling",
        "--disable-log-stats",
    ]


def test_no_field_was_left_out_of_the_test_above() -> None:
    fields = {field.alias for field in serving_arguments.ModelRuntimeSpec.model_fields.values()}
    assert fields - set(EVERYTHING) == {"kvCacheBytes", "loadSeconds"}


def test_what_is_left_out_is_left_to_vllm() -> None:
    _, model = parsed()
    assert models.arguments(model, model.accelerator) == ["--max-model-len=8192", "--tensor-parallel-size=1"]


def test_other_flags_are_written_as_the_parser_reads_them() -> None:
    extra = {"--allowed-origins": ["https://example.com"], "--cudagraph-capture-sizes": [1, 2, 4], "--hf-overrides": {"a": {"b": True}}}
    _, model = parsed(runtime={"extraArguments": extra})
    assert models.arguments(model, model.accelerator)[2:] == [
        '--allowed-origins=["https://example.com"]',
        "--cudagraph-capture-sizes",
        "1",
        "2",
        "4",
        '--hf-overrides={"a":{"b":true}}',
    ]


@pytest.mark.parametrize(
    ("field", "value", "where", "rule", "hint"),
    [
        ("toolCallParser", "hermse", "toolCallParser", "is not one of its choices: `--tool-call-parser` of vLLM 0.33.0", "did you mean `hermes`?"),
        ("reasoningParser", "qwen33", "reasoningParser", "is not one of its choices", "did you mean `qwen3`?"),
        ("structuredOutputsBackend", "xgramar", "structuredOutputsBackend", "is not one of its choices", "did you mean `xgrammar`?"),
        ("kvCacheDtype", "fp9", "kvCacheDtype", "is not one of its choices", "did you mean `fp8`?"),
        ("quantization", "gptqq", "quantization", "is no method of vLLM 0.33.0", "did you mean `gptq`?"),
        ("lora", {"maxLoraRank": 17}, "lora.maxLoraRank", "is not one of its choices", "known: `1`, `8`, `16`"),
        ("lora", {"adapters": {"a": "../b"}}, "lora.adapters", "`a` must name a folder inside the model's source", "adapters/name"),
        ("lora", {"adapters": {"a b": "c"}}, "lora.adapters", "the name `a b` must start with a letter or digit", None),
        ("lora", {"adapters": {"chat": "c"}}, "lora.adapters.chat", "must differ from the name of the model", None),
        ("kvTransfer", {"connector": "NixlConector"}, "kvTransfer.connector", "is no connector of vLLM 0.33.0", "did you mean `NixlConnector`?"),
        ("kvTransfer", {"connector": "NixlConnector", "role": "all"}, "kvTransfer.role", "must be one of", None),
        ("gpuMemoryUtilization", 1.2, "gpuMemoryUtilization", "must be at most 1", None),
        ("expertParallel", True, "expertParallel", "needs a model with experts", "facts.experts"),
        ("kvOffloadingGiB", 40.0, "kvOffloadingGiB", "must be less than the main memory of a replica, `runtimes.vllm.memory` 32Gi", None),
        ("extraArguments", {"--swap-space": 4}, "extraArguments.--swap-space", "is gone from vLLM since 0.18; this is vLLM 0.33.0", "`kvOffloadingGiB`"),
        ("extraArguments", {"--guided-decoding-backend": "x"}, "extraArguments.--guided-decoding-backend", "is gone", "set `structuredOutputsBackend`"),
        ("extraArguments", {"--blok-size": 4}, "extraArguments.--blok-size", "is no argument of vLLM 0.33.0", "did you mean `--block-size`?"),
        ("extraArguments", {"block_size": 4}, "extraArguments.block_size", "is no argument of vLLM 0.33.0", "did you mean `--block-size`?"),
        ("extraArguments", {"--block-size": "many"}, "extraArguments.--block-size", "must be a whole number", None),
        ("extraArguments", {"--block-size": True}, "extraArguments.--block-size", "must be a whole number", None),
        ("extraArguments", {"--watermark": "low"}, "extraArguments.--watermark", "must be a number", None),
        ("extraArguments", {"--max-num-scheduled-tokens": "8q"}, "extraArguments.--max-num-scheduled-tokens", "with a unit such as `8k`", None),
        ("extraArguments", {"--async-scheduling": "yes"}, "extraArguments.--async-scheduling", "must be true or false", None),
        ("extraArguments", {"--disable-log-stats": 1}, "extraArguments.--disable-log-stats", "takes no value: must be true", None),
        ("extraArguments", {"--load-format": {}}, "extraArguments.--load-format", "must be text", None),
        ("extraArguments", {"--hf-overrides": "a"}, "extraArguments.--hf-overrides", "must be a mapping or a list", None),
        ("extraArguments", {"--dtype": "int8"}, "extraArguments.--dtype", "is not one of its choices", "`bfloat16`"),
        ("extraArguments", {"--cudagraph-capture-sizes": []}, "extraArguments.--cudagraph-capture-sizes", "must have at least 1 entries", None),
        ("extraArguments", {"--cudagraph-capture-sizes": [1, "x"]}, "extraArguments.--cudagraph-capture-sizes", "must be a whole number", None),
        ("extraArguments", {"--no-async-scheduling": True}, "extraArguments.--no-async-scheduling", "turns an argument off", "`--async-scheduling: false`"),
        ("extraArguments", {"--kernel-config.moe_backend": "x"}, "extraArguments.--kernel-config.moe_backend", "is no argument", "`--kernel-config` with a"),
        ("extraArguments", {"--watchdog-config": {"timout": 1}}, "extraArguments.--watchdog-config.timout", "unknown field", "did you mean `timeout`?"),
        ("extraArguments", {"--max-model-len": 4}, "extraArguments.--max-model-len", "must not be given here", "it is set by `runtime.maxModelLength`"),
        ("extraArguments", {"--tensor-parallel-size": 4}, "extraArguments.--tensor-parallel-size", "must not be given here", "`accelerator.count`"),
        ("extraArguments", {"--host": "0.0.0.0"}, "extraArguments.--host", "must not be given", "probes"),
        ("extraArguments", {"--api-key": "secret"}, "extraArguments.--api-key", "must not be given", "plain text"),
    ],
)
def test_what_vllm_would_refuse_is_refused_at_its_field(field: str, value: Any, where: str, rule: str, hint: str | None) -> None:
    (problem,) = problems(runtime={field: value})
    text = str(problem)
    assert text.startswith(f"models[0].runtime.{where}: ")
    assert rule in text
    assert hint is None or hint in (problem.hint or "")


def test_a_request_whose_cache_does_not_come_can_be_computed_anew() -> None:
    _, model = parsed(runtime={"kvTransfer": {"connector": "NixlConnector", "onLoadFailure": "recompute"}})
    (flag,) = [each for each in models.arguments(model, model.accelerator) if each.startswith("--kv-transfer-config=")]
    assert '"kv_role":"kv_both","kv_load_failure_policy":"recompute"' in flag


def test_two_sizes_of_the_cache_are_refused() -> None:
    (problem,) = problems(runtime={"gpuMemoryUtilization": 0.9, "kvCacheBytes": 1024})
    assert str(problem).startswith("models[0].runtime: must not have both `gpuMemoryUtilization` and `kvCacheBytes`")


def test_a_step_that_cannot_hold_its_sequences_is_refused() -> None:
    (problem,) = problems(runtime={"maxNumSeqs": 64, "maxNumBatchedTokens": 32})
    assert str(problem).startswith("models[0].runtime.maxNumBatchedTokens: must not be less than `maxNumSeqs`, which is 64, got: `32`")


def test_a_parser_of_a_plugin_is_left_to_the_plugin() -> None:
    parsed(runtime={"toolCallParser": "ours", "extraArguments": {"--tool-parser-plugin": "/mnt/models/parser.py"}})


def test_a_secret_in_a_refused_flag_is_not_shown() -> None:
    for flag in ("--api-key", "--hf-token"):
        (problem,) = problems(runtime={"extraArguments": {flag: "hf_very_secret"}})
        assert "very_secret" not in str(problem)


@pytest.mark.parametrize(
    ("kind", "runtime", "field", "needs"),
    [
        ("H100", {"quantization": "nvfp4_per_token"}, "quantization", "10.0, and `H100` has 9.0"),
        ("H100", {"quantization": "fp_quant"}, "quantization", "10.0, and `H100` has 9.0"),
        ("A100", {"kvCacheDtype": "fp8"}, "kvCacheDtype", "8.9, and `A100` has 8.0"),
        ("A10G", {"kvCacheDtype": "fp8_e4m3"}, "kvCacheDtype", "8.9, and `A10G` has 8.6"),
        ("H100", {"kvCacheDtype": "nvfp4_4over6"}, "kvCacheDtype", "10.0, and `H100` has 9.0"),
    ],
)
def test_a_precision_without_kernels_for_the_gpu_is_refused(kind: str, runtime: dict[str, Any], field: str, needs: str) -> None:
    (problem,) = problems(runtime=runtime, accelerator={"type": kind}, clusters={"accelerator": kind})
    assert str(problem).startswith(f"models[0].runtime.{field}: needs compute capability {needs}")
    assert "`B200`" in (problem.hint or "")


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        # Weights only: computed in bf16, and slower than on newer GPUs, but it runs.
        ("A100", {"quantization": "fp8"}),
        ("A10G", {"quantization": "awq"}),
        ("A10G", {"quantization": "gptq_marlin"}),
        ("L4", {"kvCacheDtype": "fp8"}),
        ("B200", {"quantization": "nvfp4_per_token", "kvCacheDtype": "nvfp4_4over6"}),
        ("A100", {"kvCacheDtype": "fp8", "extraArguments": {"--attention-backend": "FLASHINFER"}}),
    ],
)
def test_a_precision_that_runs_is_taken(kind: str, runtime: dict[str, Any]) -> None:
    parsed(runtime=runtime, accelerator={"type": kind}, clusters={"accelerator": kind})


def test_the_gpu_of_every_cluster_counts_and_not_one_that_no_cluster_has() -> None:
    raw = fleets.small()
    raw["models"][0]["runtime"] = {"kvCacheDtype": "fp8"}
    raw["clusters"][1]["gpuPools"][0]["accelerator"] = "A100"
    raw["models"][0]["placement"]["clusters"][1]["accelerator"] = {"type": "A100"}
    with pytest.raises(SpecError, match=r"needs compute capability 8\.9, and `A100` has 8\.0"):
        parse_fleet(raw)
    # Both clusters have an accelerator of their own now: the model's is used nowhere.
    raw["models"][0]["accelerator"] = {"type": "A100"}
    raw["models"][0]["placement"]["clusters"] = [{"name": "east", "accelerator": {"type": "H100"}}, {"name": "west", "accelerator": {"type": "H100"}}]
    raw["clusters"][1]["gpuPools"][0]["accelerator"] = "H100"
    parse_fleet(raw)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gpuMemoryUtilization", 0.9),
        ("pipelineParallelSize", 2),
        ("expertParallel", True),
        ("kvOffloadingGiB", 1),
        ("kvTransfer", {"connector": "NixlConnector"}),
        ("quantization", "fp8"),
        ("kvCacheDtype", "nvfp4"),
        ("extraArguments", {"--dtype": "bfloat16"}),
        # In the parser of the GPU runtime's vLLM only.
        ("extraArguments", {"--monokernel": True}),
    ],
)
def test_the_cpu_runtime_refuses_what_needs_a_gpu_or_a_newer_vllm(field: str, value: Any) -> None:
    told = problems(runtime={field: value}, facts={"experts": 8}, **CPU)
    assert {str(each).split(": ")[0].split(".--")[0] for each in told} == {f"models[0].runtime.{field}"}
    parsed(runtime={"quantization": "awq", "kvCacheDtype": "fp8", "toolCallParser": "hermes"}, **CPU)


@pytest.mark.parametrize(
    ("count", "stages", "facts", "rule"),
    [
        (6, 1, {}, "must divide the model's 32 attention heads"),
        (6, 2, {}, "the 3 GPUs of each of its 2 stages must divide the model's 32 attention heads"),
        (3, 2, {}, "must be a multiple of `runtime.pipelineParallelSize`, which is 2"),
        (8, 1, {"intermediateSize": 100}, "must divide the model's 100 neurons"),
        (6, 1, {"attentionHeads": 48, "keyValueHeads": 6, "vocabularySize": 32000}, "must divide the model's 32000 words"),
        (4, 1, {"experts": 2}, "must not put the model's 2 experts on more GPUs"),
    ],
)
def test_gpus_that_cannot_share_the_model_are_refused(count: int, stages: int, facts: dict[str, Any], rule: str) -> None:
    runtime = {"pipelineParallelSize": stages, "expertParallel": "experts" in facts}
    (problem,) = problems(accelerator={"type": "H100", "count": count}, runtime=runtime, facts=facts)
    assert str(problem).startswith(f"models[0].accelerator.count: {rule}")


def test_the_sizes_that_are_offered_are_taken() -> None:
    facts = {"attentionHeads": 40, "keyValueHeads": 8, "intermediateSize": 27648, "vocabularySize": 152064}
    (problem,) = problems(accelerator={"type": "H100", "count": 6}, runtime={"pipelineParallelSize": 2}, facts=facts)
    offered = [int(each) for each in re.findall(r"\d+", problem.hint or "")]
    assert offered == [2, 4, 8, 16]
    for count in offered:
        _, model = parsed(accelerator={"type": "H100", "count": count}, runtime={"pipelineParallelSize": 2}, facts=facts, clusters={"gpusPerNode": 16})
        assert f"--tensor-parallel-size={count // 2}" in models.arguments(model, model.accelerator)


def test_whole_experts_on_each_gpu_are_not_split() -> None:
    parsed(accelerator={"type": "H100", "count": 8}, runtime={"expertParallel": True}, facts={"experts": 64, "intermediateSize": 100})


def test_more_stages_than_layers_are_refused() -> None:
    (problem,) = problems(runtime={"pipelineParallelSize": 4}, facts={"layers": 2}, accelerator={"type": "H100", "count": 4})
    assert str(problem).startswith("models[0].runtime.pipelineParallelSize: must not exceed the model's 2 layers, got: `4`")


def test_everything_wrong_with_arguments_is_told_at_once() -> None:
    runtime = {"toolCallParser": "x", "kvCacheDtype": "nvfp4_4over6", "expertParallel": True, "extraArguments": {"--swap-space": 1, "--port": 1}}
    told = [str(each).split(": ")[0] for each in problems(runtime=runtime, accelerator={"type": "H100", "count": 3})]
    assert told == [
        "models[0].accelerator.count",
        "models[0].runtime.toolCallParser",
        "models[0].runtime.extraArguments.--swap-space",
        "models[0].runtime.extraArguments.--port",
        "models[0].runtime.expertParallel",
        "models[0].runtime.kvCacheDtype",
    ]


@pytest.mark.parametrize(
    ("runtime", "differs"),
    [
        ({"quantization": "fp8"}, True),
        ({"kvCacheDtype": "fp8"}, True),
        ({"lora": {"adapters": {"german": "adapters/german"}}}, True),
        ({"reasoningParser": "qwen3"}, True),
        ({"extraArguments": {"--dtype": "float16"}}, True),
        ({"gpuMemoryUtilization": 0.5, "prefixCache": False, "maxNumBatchedTokens": 512, "kvEvents": {}}, False),
    ],
)
def test_a_new_revision_is_what_changes_answers(runtime: dict[str, Any], *, differs: bool) -> None:
    (_, before), (_, after) = parsed(), parsed(runtime=runtime)
    assert (models.revision(before, before.accelerator) != models.revision(after, after.accelerator)) is differs


@pytest.mark.parametrize("kind", ["cpu", "H100"])
def test_the_runtimes_themselves_give_vllm_only_what_it_takes(kind: str) -> None:
    fleet, _ = parsed()
    spec, name = fleet.runtimes.for_accelerator(kind), serving_runtimes.runtime_name(kind)
    (container,) = serving_runtimes.serving_runtime(name, spec, fleet.failover.requests)["spec"]["containers"]
    flags = [each.partition("=")[0] for each in container["args"] if each.startswith("--")]
    assert flags
    assert [each for each in flags if each not in spec.parser.flags] == []


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.33.0", "0.33.0"),
        ("registry.example.com:5000/vllm:0.32.0-cpu", "0.32.0"),
        # Tells nothing, or a version without a table: the runtime's own.
        (f"vllm/vllm-openai@sha256:{'0' * 64}", "0.33.0"),
        ("vllm/vllm-openai:v9.9.9", "0.33.0"),
    ],
)
def test_arguments_are_checked_against_the_vllm_of_the_image(image: str, version: str) -> None:
    assert runtimes.GpuRuntimeSpec(image=image).parser.version == version


def test_the_default_images_have_a_table() -> None:
    spec = runtimes.RuntimesSpec()
    assert spec.vllm.image.endswith(f":v{spec.vllm.parser.version}")
    assert f":v{spec.vllm_cpu.parser.version}-" in spec.vllm_cpu.image


@pytest.mark.parametrize("version", vllm_arguments.versions())
def test_the_tables_of_names_name_what_there_is(version: str) -> None:
    flags = table(version).flags
    assert [each for each in GONE if each in flags] == []
    assert [each for each in {**serving_rules.ELSEWHERE, **serving_rules.REFUSED, **serving_rules.REFUSED_ON_CPU} if each not in flags] == []
    named = [each for gone in GONE.values() for each in re.findall(r"`(--[a-z0-9-]+)", gone.instead)]
    assert [each for each in named if each not in flags] == []
    methods = [*serving_rules.QUANTIZATION_NEEDS, *serving_rules.CPU_QUANTIZATION]
    assert [each for each in methods if each not in table(version).quantization] == []
    precisions = [*serving_rules.CACHE_NEEDS, *serving_rules.CPU_CACHE]
    assert [each for each in precisions if each not in flags["--kv-cache-dtype"].choices] == []
    fields: Callable[[str], str | None] = lambda name: serving_arguments.ModelRuntimeSpec.model_fields[name].alias  # noqa: E731
    assert {name: fields(name) for name in serving_rules.GPU_ONLY} == serving_rules.GPU_ONLY


def test_the_page_names_every_field_with_its_flag() -> None:
    page = (fleets.REPO / "docs" / "serving-arguments.md").read_text(encoding="utf-8")
    _, model = everything()
    for each in serving_arguments.given(model.runtime, model.facts.max_model_length, model.accelerator):
        if each.field != "extra_arguments":
            assert f"`{each.flag}" in page, each.flag
    for field in serving_arguments.ModelRuntimeSpec.model_fields.values():
        assert f"`{field.alias}" in page, field.alias


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=4)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(table("0.33.0").flags)) | st.text(), VALUES | st.dictionaries(st.text(), VALUES), max_size=3))
def test_whatever_stands_below_extra_arguments_is_written_or_refused_by_its_name(extra: dict[str, Any]) -> None:
    try:
        _, model = parsed(runtime={"extraArguments": extra})
        refused: tuple[Problem, ...] = ()
        rendered = models.arguments(model, model.accelerator)
    except SpecError as error:
        refused, rendered = error.problems, []
    assert {each.path[:4] for each in refused} <= {("models", 0, "runtime", "extraArguments")}
    assert {each.path[4] for each in refused} <= set(extra)
    for flag in () if refused else extra:
        assert any(each.partition("=")[0] in (flag, f"--no-{flag[2:]}") for each in rendered)
