"""`fleet check`: which clusters it verifies, with what, and how all that is wrong is told. What is verified: test_control_planes.py."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import FleetError
from federation import membership, verification
from kube.client import Unreachable
from operations import check, stack_file
from specs.control_planes import karmada
from specs.control_planes.finding import Finding
from specs.failover import CapacityFailoverSpec
from tests.unit import fleets

Object = dict[str, Any]

FINDING = Finding(setting="KServe", wrong="must be `a`: it matters", got="b", hint="kubectl c")
# Port 1 is reserved and refuses connections.
NOBODY = """apiVersion: v1
kind: Config
current-context: x
clusters: [{name: x, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: x, user: {token: secret-token}}]
contexts: [{name: x, context: {cluster: x, user: x}}]
"""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Object:
    """A hub and two members that stand already, by files. `write` is called by the tests that change it."""
    monkeypatch.setattr(stack_file, "FOLDER", tmp_path)
    raw = fleets.small()
    for each in raw["clusters"]:
        fleets.make_existing(each)
        each["driver"]["context"] = "admin"
        (tmp_path / f"{each['name']}.yaml").write_text(f"of {each['name']}")
    host = {"kubeconfigPath": "host.yaml", "context": "management", "namespace": "karmada"}
    raw["hub"] = {"name": "control", "driver": {"kind": "existing", "kubeconfigPath": "hub.yaml", "host": host}}
    raw["failover"] = {"capacity": {"failureThresholdSeconds": 20}}
    (tmp_path / "hub.yaml").write_text("of the hub")
    (tmp_path / "host.yaml").write_text("of the host")
    write(tmp_path, raw)
    return raw


def write(folder: Path, raw: Object) -> None:
    (folder / "Pulumi.prod.yaml").write_text(yaml.safe_dump({"config": {"fleet:spec": raw}}))


def test_every_cluster_is_verified_and_everything_that_is_wrong_is_told(
    stack: Object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Object] = []

    def verify(spec: Object) -> Object:
        given.append(spec)
        raise Unreachable("https://hub does not answer")

    def member(spec: Object) -> Object:
        given.append(spec)
        verification.require(spec["cluster"], [FINDING] if spec["cluster"] == "west" else [])
        return {}

    monkeypatch.setattr(verification, "verify", verify)
    monkeypatch.setattr(membership, "check", member)
    with pytest.raises(FleetError) as caught:
        check.check("prod")
    assert str(caught.value).splitlines() == [
        "control: https://hub does not answer",
        "west: 1 setting to fix before it can be used; nothing was changed",
        "west: KServe: must be `a`: it matters, got: `b`",
        "  hint: kubectl c",
    ]
    assert caught.value.hint == "docs/existing-clusters.md lists every setting"
    assert capsys.readouterr().out == "east: ready\n"

    hub, east, west = given
    assert (hub["kubeconfig"], hub["hostKubeconfig"], hub["hostContext"], hub["hostNamespace"]) == ("of the hub", "of the host", "management", "karmada")
    assert hub["settings"]["flags"][karmada.CONTROLLERS]["cluster-failure-threshold"] == "20s"
    assert (east["memberKubeconfig"], west["memberKubeconfig"], west["context"]) == ("of east", "of west", "admin")
    assert "serving.kserve.io/v1beta1/InferenceService" in west["kinds"]


def test_a_kubeconfig_that_is_not_there_is_named_by_its_field(stack: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "check", dict)
    monkeypatch.setattr(verification, "verify", dict)
    (tmp_path / "west.yaml").unlink()
    (tmp_path / "host.yaml").unlink()
    with pytest.raises(FleetError) as caught:
        check.check("prod")
    host, hint, west, _ = str(caught.value).splitlines()
    assert hint == "  hint: it is relative to the folder of the stack file"
    assert host.startswith("control: driver.host.kubeconfigPath: cannot be read")
    assert west.startswith("west: driver.kubeconfigPath: cannot be read")


def test_a_stack_of_local_clusters_has_nothing_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stack_file, "FOLDER", tmp_path)
    write(tmp_path, fleets.small())
    check.check("prod")
    assert capsys.readouterr().out.startswith("nothing to check")


def test_warnings_end_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    verification.require("west", [Finding(setting="a", wrong="b", got="c", hint="d", required=False)])
    assert capsys.readouterr().err == "warning: west: a: b, got: `c`\n  hint: d\n"


def test_a_member_that_does_not_answer_is_skipped_and_a_hub_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"cluster": "west", "kubeconfig": NOBODY, "kinds": [], "settings": {"flags": {key: {} for key in karmada.COMPONENTS}}}
    assert verification.verify({**spec, "controlPlane": "kserve"}) == {}
    assert capsys.readouterr().err.startswith("skipped: kserve of cluster west was not verified: https://127.0.0.1:1")
    with pytest.raises(Unreachable):
        verification.verify({**spec, "controlPlane": "karmada"})


def test_a_flag_that_karmada_s_api_and_its_deployment_both_show_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*_: object) -> list[Finding]:
        return [karmada.refused_taint_policy("denied")]

    def processes(*_: object) -> dict[karmada.Component, karmada.Process]:
        image, command = "karmada:v1.18.2", ("/bin/karmada",)
        return {each: karmada.Process(namespace="k", deployment=each, image=image, container=0, command=command) for each in karmada.COMPONENTS}

    monkeypatch.setattr(verification, "hub_findings", shown)
    monkeypatch.setattr(verification, "karmada_processes", processes)
    spec = {"cluster": "hub", "controlPlane": "karmada", "kubeconfig": NOBODY, "hostKubeconfig": NOBODY, "kinds": []}
    with pytest.raises(verification.VerificationError) as caught:
        verification.verify({**spec, "settings": {"flags": karmada.flags(CapacityFailoverSpec())}})
    told = [line for line in str(caught.value).splitlines() if line.startswith("hub: karmada-webhook")]
    # The Deployment's finding: its command names the namespace in which Karmada runs.
    assert len(told) == 1
    assert "kubectl -n k patch deployment karmada-webhook" in str(caught.value)
    assert "kubectl -n karmada-system" not in str(caught.value)
