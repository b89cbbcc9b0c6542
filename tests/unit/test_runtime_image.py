"""A runtime image of one's own in a stack: what is baked, what is named by digest, and what pods run."""

from typing import Any

import pytest

from runtime_image.image import inputs
from specs.base import SpecError
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet
from tests.unit.test_fleet import declare

REPOSITORY = "registry.example.com/fleet/vllm"
DIGEST = "sha256:" + "a" * 64


def small(**image: Any) -> dict[str, Any]:
    raw = fleets.small()
    raw["runtimes"] = {"image": {"repository": REPOSITORY, **image}}
    return raw


def images(declared: engine.Engine) -> dict[str, str]:
    return {each.inputs["metadata"]["name"]: each.inputs["spec"]["containers"][0]["image"] for each in declared.of_kind("ClusterServingRuntime")}


def commands(declared: engine.Engine) -> list[str]:
    return [each.inputs["create"] for each in declared.declared if each.type == "command:local:Command" and "image" in each.inputs["create"]]


def test_what_is_baked_is_pushed_first_and_run_by_its_digest() -> None:
    declared, outputs = declare(small())
    assert images(declared) == {"vllm": f"{REPOSITORY}@sha256:gpu", "vllm-cpu": f"{REPOSITORY}-cpu@sha256:cpu"}
    # One command: two would build at once, and the tag is that of both.
    assert commands(declared) == [f"fleet image push {REPOSITORY} --variant gpu --variant cpu --json"]
    assert "runtime-image-push" in declared.all_before("runtimes-vllm")
    definition = inputs.read("gpu")
    assert outputs["runtimeImage"]["gpu"] == {
        "repository": REPOSITORY,
        "digest": "sha256:gpu",
        "image": f"{REPOSITORY}@sha256:gpu",
        "vllm": definition.vllm,
        "torch": definition.torch,
        "sbom": f"oci://{REPOSITORY}@sha256:sbom",
    }


def test_only_what_it_is_made_of_bakes_it_anew() -> None:
    def triggers(raw: dict[str, Any]) -> list[str]:
        return declare(raw)[0].named("runtime-image-push").inputs["triggers"]

    raw = small()
    other = small()
    other["models"][0]["replicas"] += 1
    assert triggers(other) == triggers(raw) == [inputs.read(variant).digest for variant in inputs.VARIANTS]
    assert triggers(small(base="debian", variants=["cpu"])) != triggers(small(variants=["cpu"])) == [inputs.read("cpu").digest]


def test_a_digest_of_the_stack_file_needs_no_builder() -> None:
    declared, outputs = declare(small(variants=["gpu"], digests={"gpu": DIGEST}))
    assert commands(declared) == []
    assert images(declared)["vllm"] == f"{REPOSITORY}@{DIGEST}"
    assert outputs["runtimeImage"]["gpu"]["digest"] == DIGEST
    # The other runtime keeps the image that vLLM publishes.
    assert outputs["runtimeImage"]["cpu"]["image"] == images(declared)["vllm-cpu"]
    assert images(declared)["vllm-cpu"].startswith("vllm/vllm-openai-cpu:")


def test_arguments_are_checked_against_the_vllm_in_the_image() -> None:
    runtimes = parse_fleet(small()).runtimes
    assert runtimes.vllm.parser.version == inputs.read("gpu").vllm


@pytest.mark.parametrize(
    ("image", "runtimes", "told"),
    [
        ({"repository": f"{REPOSITORY}:v1"}, {}, r"without scheme, tag and digest"),
        ({"repository": "vllm"}, {}, r"runtimes\.image\.repository: must be a registry"),
        ({"digests": {"gpu": "sha256:short"}}, {}, r"runtimes\.image\.digests\.gpu: must be `sha256:`"),
        ({"variants": ["cpu"], "digests": {"gpu": DIGEST}}, {}, r"`digests` names `gpu`, which is not one of `variants`"),
        ({"variants": ["cpu", "cpu"]}, {}, r"must name each variant once"),
        ({"base": "debian"}, {}, r"`base` is of one variant, and several are baked"),
        ({"base": "debian", "variants": ["gpu"]}, {}, r"`base: debian` can carry the variant `cpu` alone"),
        ({"variants": ["gpu"], "digests": {"gpu": DIGEST}, "base": "x"}, {}, r"`base` has no effect"),
        ({}, {"vllmCpu": {"image": "vllm/vllm-openai-cpu:v0.32.0-x86_64"}}, r"`image` gives `vllmCpu` its image, and it names another"),
    ],
)
def test_what_contradicts_is_refused(image: dict[str, Any], runtimes: dict[str, Any], told: str) -> None:
    raw = small(**image)
    raw["runtimes"] |= runtimes
    with pytest.raises(SpecError, match=told):
        parse_fleet(raw)
