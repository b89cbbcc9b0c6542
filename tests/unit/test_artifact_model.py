"""What is a model that can be served, what is refused and why, and the facts that plans are computed from."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.errors import FleetError
from local import tiny_model
from oci import model
from specs.models import ModelFacts
from tests.unit.models import TENSORS, framed, safetensors, write_model


def examined(folder: Path) -> model.Model:
    return model.examine(model.contents_of(folder, model.scan(folder)))


def refusal(folder: Path) -> FleetError:
    with pytest.raises(FleetError) as raised:
        examined(folder)
    return raised.value


def test_the_facts_are_those_that_a_stack_file_takes(tmp_path: Path) -> None:
    facts = examined(write_model(tmp_path / "m")).facts
    stack = {key: facts[key] for key in (str(field.alias) for field in ModelFacts.model_fields.values()) if key in facts}
    assert ModelFacts.model_validate(stack).model_dump(by_alias=True, exclude_none=True) == {
        "attentionHeads": 4,
        "keyValueHeads": 2,
        "layers": 2,
        "hiddenSize": 8,
        "parameters": 128 + 32 + 32,
        "maxModelLength": 128,
        "vocabularySize": 16,
        "headSize": 2,
        "weightBytes": 2 * (128 + 32 + 32),
    }
    assert facts["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("config", "full"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"]}, 1),
        ({"sliding_window_pattern": 2}, 1),
        ({}, 0),
        # Which layers these are depends on the architecture.
        ({"max_window_layers": 1}, None),
    ],
)
def test_layers_that_look_at_the_whole_sequence_are_counted(tmp_path: Path, config: dict[str, Any], full: int | None) -> None:
    facts = examined(write_model(tmp_path / "m", {"sliding_window": 64, **config})).facts
    assert facts["slidingWindow"] == 64
    assert facts.get("fullAttentionLayers") == full


def test_the_model_of_the_local_fleet_passes_and_has_as_many_parameters_as_it_says(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "tiny-chat")
    assert examined(tmp_path / "tiny-chat").facts["parameters"] == tiny_model.parameters()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_key_value_heads": None, "num_attention_heads": 2, "head_dim": 2}, {"keyValueHeads": 2, "headSize": 2}),
        ({"sliding_window": 64}, {"slidingWindow": 64}),
        ({"intermediate_size": 32}, {"intermediateSize": 32}),
        ({"num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32, "moe_intermediate_size": 4}, {"intermediateSize": 4}),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, {"experts": 8, "expertsPerToken": 2}),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"quantization": {"method": "gptq", "bits": 4}}),
        ({"kv_lora_rank": 4, "qk_rope_head_dim": 2}, {"mla": {"kvLoraRank": 4, "qkRopeHeadSize": 2}}),
        ({"hidden_size": None, "text_config": {"hidden_size": 8}}, {"hiddenSize": 8}),
    ],
    ids=["heads that share nothing", "sliding window", "size of the MLP", "size of an expert", "experts", "quantization", "MLA", "a model that sees"],
)
def test_what_plans_need_beyond_the_plain_llama_is_found(tmp_path: Path, config: dict[str, Any], expected: dict[str, Any]) -> None:
    facts = examined(write_model(tmp_path / "m", config)).facts
    assert {key: facts[key] for key in expected} == expected


def test_a_window_that_is_switched_off_is_no_fact(tmp_path: Path) -> None:
    assert "slidingWindow" not in examined(write_model(tmp_path / "m", {"sliding_window": 64, "use_sliding_window": False})).facts


def test_weights_packed_into_wider_numbers_are_counted_one_by_one_and_scales_not_at_all(tmp_path: Path) -> None:
    packed = {
        "model.embed_tokens.weight": ("BF16", [16, 8]),
        "model.layers.0.mlp.up_proj.qweight": ("I32", [1, 8]),
        "model.layers.0.mlp.up_proj.scales": ("BF16", [1, 8]),
        "model.layers.1.mlp.up_proj.qweight": ("I32", [1, 8]),
    }
    folder = write_model(tmp_path / "m", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, {"model.safetensors": safetensors(packed)})
    assert examined(folder).facts["parameters"] == 128 + 2 * 8 * 8


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_key_value_heads": 3}, "config.json: num_key_value_heads: must divide num_attention_heads `4`, got: `3`"),
        ({"hidden_size": 10}, "config.json: hidden_size: must be a multiple of num_attention_heads `4` where head_dim is not given, got: `10`"),
        ({"num_hidden_layers": "2"}, "config.json: num_hidden_layers: must be a whole number from 1, got: `2`"),
        ({"num_hidden_layers": None}, "config.json: num_hidden_layers: is missing"),
        ({"num_hidden_layers": 4}, "config.json: num_hidden_layers: is `4`, but no weights of layer 2 are there (and 1 more)"),
        # As many as this could not even be listed.
        ({"num_hidden_layers": 10**30}, f"but no weights of layer 2 are there (and {10**30 - 3} more)"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 0}}, "quantization_config.bits: must be a whole number from 1, got: `0`"),
        ({"vocab_size": 32}, "config.json: vocab_size, hidden_size give `[32, 8]` for model.embed_tokens.weight, its weights have the shape `[16, 8]`"),
        ({"num_key_value_heads": 4}, "give `[8, 8]` for model.layers.0.self_attn.k_proj.weight, its weights have the shape `[4, 8]`"),
        ({"architectures": []}, "config.json: architectures: must name the model's class"),
        ({"num_local_experts": 2, "num_experts_per_tok": 4}, "num_experts_per_tok: must not exceed the number of experts `2`, got: `4`"),
        ({"quantization_config": "awq"}, "quantization_config: must be an object with quant_method"),
    ],
)
def test_facts_that_contradict_each_other_or_the_weights_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    assert message in str(refusal(write_model(tmp_path / "m", config)))


def test_weights_without_a_tensor_are_none(tmp_path: Path) -> None:
    told = str(refusal(write_model(tmp_path / "m", files={"model.safetensors": framed({}, b"")})))
    assert "there are no weights: *.safetensors holds no tensor" in told


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff\xfe\x00", b""])
def test_a_config_that_is_no_json_is_told(tmp_path: Path, text: bytes) -> None:
    assert "config.json: is no JSON" in str(refusal(write_model(tmp_path / "m", files={"config.json": text})))


def test_a_directory_without_config_is_no_model(tmp_path: Path) -> None:
    assert "not a model directory: it has no config.json" in str(refusal(write_model(tmp_path / "m", files={"config.json": None})))


def test_a_name_of_the_hub_is_refused_with_the_way_to_fetch_it() -> None:
    with pytest.raises(FleetError) as raised:
        model.scan(Path("organisation/some-model"))
    assert raised.value.hint == "fetch it first: hf download organisation/some-model --local-dir DIR"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.pth", "last.ckpt", "sub/optimizer.PKL"])
def test_pickles_are_refused_also_beside_safetensors(tmp_path: Path, name: str) -> None:
    error = refusal(write_model(tmp_path / "m", files={name: b"x"}))
    assert f"{name}: is a pickle, which runs code when it is loaded" in str(error)
    assert "convert the weights to safetensors" in error.hint


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    lines = str(refusal(write_model(tmp_path / "m", {"num_key_value_heads": 3}, {"tokenizer.json": None, "model.safetensors": None, "a.bin": b"x"})))
    for part in ("a.bin: is a pickle", "there is no tokenizer", "there are no weights", "num_key_value_heads"):
        assert part in lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is no safetensors file"),
        (b"", "is no safetensors file"),
        (struct.pack("<Q", 1 << 40) + b"{}", "is no safetensors file"),
        (framed(b"not json", b""), "its safetensors header cannot be read"),
        (framed(b'{"a": {}}', b""), "tensor `a`: no such dtype: `None`"),
        (framed(b'{"a": 5}', b""), "tensor `a`: must be an object, got: `5`"),
        (framed({"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}}, bytes(1)), "must be lists of whole numbers from 0, got: `1` and `[0, 1]`"),
        (framed(b"[1]", b""), "it must be a JSON object"),
        (framed(b"[" * 100_000, b""), "its safetensors header cannot be read"),
        (framed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "takes 8 bytes, its data_offsets give 4"),
        (framed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)), "tensor `a` must begin at byte 0"),
        (framed({"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 1]}}, bytes(1)), "no such dtype: `Q9`"),
        (
            framed({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}, bytes(1)),
            "tensor `a`: shape and data_offsets must be lists of whole numbers from 0",
        ),
        (framed(b'{"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}, "a": 1}', b""), "`a` is there twice"),
        (safetensors(TENSORS)[:-1], "its tensors take 384 bytes, but 383 follow its header"),
        (safetensors(TENSORS) + b"x", "its tensors take 384 bytes, but 385 follow its header"),
    ],
)
def test_a_weight_file_that_is_not_what_its_header_says_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    text = str(refusal(write_model(tmp_path / "m", files={"model.safetensors": content})))
    assert "model.safetensors: " in text
    assert message in text


def _shards(index: Mapping[str, str] | None) -> dict[str, bytes | None]:
    names = list(TENSORS)
    files: dict[str, bytes | None] = {
        "model.safetensors": None,
        "a.safetensors": safetensors({name: TENSORS[name] for name in names[:1]}),
        "b.safetensors": safetensors({name: TENSORS[name] for name in names[1:]}),
    }
    if index is not None:
        files[model.INDEX] = json.dumps({"weight_map": index}).encode()
    return files


_RIGHT = dict(zip(TENSORS, ("a.safetensors", "b.safetensors", "b.safetensors"), strict=True))


def test_shards_that_their_index_describes_pass(tmp_path: Path) -> None:
    assert examined(write_model(tmp_path / "m", files=_shards(_RIGHT))).facts["parameters"] == 192


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "there are 2 weight files and no model.safetensors.index.json"),
        ({**_RIGHT, "x": "c.safetensors"}, "lists the file c.safetensors, which is not there"),
        ({**_RIGHT, "x": "a.safetensors"}, "tensor `x` is not in a.safetensors"),
        ({"model.embed_tokens.weight": "a.safetensors"}, "does not list tensor `model.layers.0.self_attn.k_proj.weight` of b.safetensors (and 1 more)"),
    ],
    ids=["no index", "a file that is missing", "a tensor that is missing", "tensors unlisted"],
)
def test_an_index_that_does_not_describe_its_shards_is_refused(tmp_path: Path, index: dict[str, str] | None, message: str) -> None:
    assert message in str(refusal(write_model(tmp_path / "m", files=_shards(index))))


def test_a_link_that_leaves_the_directory_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (tmp_path / "secret").write_text("x")
    (folder / "vocab.json").symlink_to("../secret")
    error = refusal(folder)
    assert "vocab.json: is a link that leaves the directory, to ../secret" in str(error)
    assert "cp -rL" in error.hint


def test_a_link_inside_the_directory_is_packed_as_what_it_points_to(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "copy.json").symlink_to("config.json")
    assert model.contents_of(folder, model.scan(folder)).sizes["copy.json"] == (folder / "config.json").stat().st_size


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    os.mkfifo(folder / "pipe")
    assert "pipe: is not a regular file" in str(refusal(folder))


def test_what_version_control_and_downloads_leave_behind_is_left_out(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", files={".git/config": b"x", ".cache/huggingface/x.bin": b"x", ".gitattributes": b"x"})
    assert not [name for name in model.scan(folder) if name.startswith(".")]
    examined(folder)


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        ({"LICENSE": None}, "no licence file"),
        ({"tokenizer_config.json": b"{}"}, "no chat template"),
        ({"modeling.py": b"x"}, "--trust-remote-code"),
    ],
)
def test_what_is_likely_not_meant_is_a_warning(tmp_path: Path, files: dict[str, bytes | None], warning: str) -> None:
    assert [each for each in examined(write_model(tmp_path / "m", files=files)).warnings if warning in each]
    assert examined(write_model(tmp_path / "whole")).warnings == ()
