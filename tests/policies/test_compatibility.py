"""The matrix of tested versions, where a stack stands in it, and the next step."""

from datetime import date

import pytest

from operations import version_report as cli
from policies import compatibility
from policies.compatibility import COMPONENTS, Row, Site, Trial
from tests.policies import changes
from tests.policies.changes import AMERICAS
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from toolchain.pins import PINS

_NONE = dict.fromkeys(COMPONENTS, "none")
_TEST = (Trial(what="everything", how="make test", when=date(2026, 11, 21)),)


def row(*, ran: bool = True, **versions: str) -> Row:
    return Row(versions={**_NONE, "karmada": PINS.karmada, "kserve": "0.20.0", "istio": "1.31", "vllm": "0.32.0", **versions}, tests=_TEST, ran=ran)


def site(**versions: str | None) -> dict[str, str | None]:
    return {**row().versions, "kubernetes": "1.36.3", **versions}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    held: list[Row] = []
    monkeypatch.setattr(compatibility, "matrix", lambda: tuple(held))
    return held


def test_what_this_clone_runs_has_a_row_that_ran() -> None:
    now = {
        "kubernetes": PINS.kubernetes,
        "karmada": PINS.karmada,
        "kserve": PINS.kserve,
        "istio": compatibility.named(PINS.istio),
        "vllm": PINS.vllm,
        "gatewayApi": "none",
        "inferenceExtension": "none",
        "gpuOperator": "none",
    }
    found = compatibility.tested(now)
    assert found is not None
    assert found.ran, "a new pin needs a run of the tests, and a row"


def test_the_local_stack_stands_in_the_matrix() -> None:
    sites = list(compatibility.sites(parse_fleet(fleets.read(fleets.REPO / "stacks" / "Pulumi.local.yaml"))))
    assert {each.cluster for each in sites} == {"us-east", "us-west", "eu-west"}
    assert all(compatibility.tested(each.versions) and not each.unknown for each in sites)


def test_a_release_without_a_patch_is_any_patch_of_it(rows: list[Row]) -> None:
    rows.append(row(kubernetes="1.36.3"))
    assert compatibility.tested(site(kubernetes="1.36"))
    assert compatibility.tested(site(kubernetes="1.36.3"))
    assert not compatibility.tested(site(kubernetes="1.36.4"))
    assert not compatibility.tested(site(kubernetes="1.3"))


def test_the_next_step_is_small_forward_and_was_run(rows: list[Row]) -> None:
    far, near = row(kubernetes="1.37.0", kserve="0.21.0", vllm="0.33.0"), row(kubernetes="1.37.0")
    rows.extend([row(kubernetes="1.38.1"), far, row(kubernetes="1.37.0", vllm="0.31.0"), row(kubernetes="1.36.9", ran=False), near, row(kubernetes="1.36.3")])
    assert compatibility.next_step(site()) == near
    rows.remove(near)
    assert compatibility.next_step(site()) == far
    rows.remove(far)
    # What is left is two minor versions of Kubernetes ahead, older in a part, or was never run.
    assert compatibility.next_step(site()) is None


def test_versions_outside_name_the_nearest_row(rows: list[Row]) -> None:
    rows.extend([row(kubernetes="1.30.0", istio="1.20"), row(kubernetes="1.36.3")])
    told = "\n".join(cli.lines([Site(cluster="east", versions=site(istio="1.30")), Site(cluster="west", versions=site(istio="1.30"))]))
    assert told.startswith("east, west\n")
    assert "Istio                1.30   tested: 1.31" in told
    assert "not tested together; the nearest row differs in Istio" in told
    assert "next step: Istio 1.30 → 1.31" in told


def test_a_cluster_that_tells_no_version_cannot_be_judged(rows: list[Row]) -> None:
    rows.append(row(kubernetes="1.36.3"))
    told = "\n".join(cli.lines([Site(cluster="east", versions=site(kserve=None))]))
    assert "cannot be judged: unknown version of KServe" in told
    assert "tested together" not in told


def test_the_version_of_vllm_is_that_of_the_image_that_runs() -> None:
    spec = changes.read(AMERICAS)
    spec["runtimes"]["vllm"]["image"] = f"registry.example.com/llm/vllm-openai:v0.32.0-cu130@{changes.DIGEST}"
    assert {each.versions["vllm"] for each in compatibility.sites(parse_fleet(spec))} == {"0.32.0"}
    spec["runtimes"]["vllm"]["image"] = f"registry.example.com/llm/vllm-openai@{changes.DIGEST}"
    assert {each.versions["vllm"] for each in compatibility.sites(parse_fleet(spec))} == {None}


@pytest.mark.parametrize(
    ("told", "tested"),
    [("v1.36.3", True), ("1.36.3-gke.1087000", True), ("v1.36.3-eks-1a2b3c4", True), ("1.36.3+k3s1", True), ("1.36.3-rc.1", False), ("1.99.0", False)],
)
def test_a_vendors_build_of_a_version_is_that_version(told: str, tested: bool) -> None:
    spec = changes.read(AMERICAS)
    spec["clusters"][1]["driver"]["versions"]["kubernetes"] = told
    found = {each.cluster: compatibility.tested(each.versions) for each in compatibility.sites(parse_fleet(spec))}
    assert (found["us-west"] is not None) == tested


def test_a_cluster_too_far_behind_is_told_so(rows: list[Row]) -> None:
    rows.extend([row(kubernetes="1.38.0"), row(kubernetes="1.37.2")])
    [*_, step] = cli.lines([Site(cluster="east", versions=site(kubernetes="1.34"))])
    assert step == "  next step: none was run; a cluster goes on by one minor version of Kubernetes, and from 1.34 to 1.37.2 it is more"
    [*_, step] = cli.lines([Site(cluster="east", versions=site(kubernetes="1.99.0"))])
    assert step == "  next step: none; nothing newer was run together"
    [*_, step] = cli.lines([Site(cluster="east", versions=site(kserve=None))])
    assert step == "  next step: tell the versions under `driver.versions`"


def test_a_cluster_without_a_model_is_judged_too(rows: list[Row]) -> None:
    rows.append(row(kubernetes="1.36.3", vllm="0.33.0"))
    spec = changes.read(AMERICAS)
    for each in spec["models"]:
        each["placement"] |= {"clusters": [{"name": "us-east"}], "minimumClusters": 1}
        each.pop("objectives", None)
    spec["clusters"][1]["driver"]["versions"] = {"kubernetes": "1.34", "kserve": "0.20.0", "istio": "1.31"}
    [east, west] = compatibility.sites(parse_fleet(spec))
    assert compatibility.tested(east.versions)
    assert not west.unknown
    assert not compatibility.tested(west.versions)
    assert "  vLLM                 serves no model" in cli.lines([west])


def test_clusters_of_different_versions_are_told_apart(rows: list[Row]) -> None:
    rows.append(row(kubernetes="1.36.3"))
    sites = [Site(cluster=name, versions=site(kubernetes=version)) for name, version in (("east", "1.36.3"), ("west", "1.36"), ("north", "1.36.3"))]
    told = list(cli.lines(sites))
    assert [each for each in told if not each.startswith(" ")] == ["east, north", "west"]
