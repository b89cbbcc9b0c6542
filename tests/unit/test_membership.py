"""What joining declares, and what counts as joined. Joining real clusters: test_control_planes_real.py."""

from typing import Any, cast

import pytest

from federation import membership
from kube.client import Kube, Unreachable

SPEC = {"cluster": "us-east", "region": "us-east", "zone": "us-east-1", "provider": "local", "labels": {"tier": "prod"}}
# Port 1 is reserved and refuses connections.
NOBODY = """apiVersion: v1
kind: Config
current-context: x
clusters: [{name: x, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: x, user: {token: secret-token}}]
contexts: [{name: x, context: {cluster: x, user: x}}]
"""


class Hub:
    """Answers as a hub that knows the given Cluster objects."""

    def __init__(self, *clusters: dict[str, Any]) -> None:
        self.clusters = list(clusters)

    def list(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        assert (api_version, kind) == (membership.CLUSTER_API, "Cluster")
        return self.clusters


def test_the_cluster_object_says_where_it_is() -> None:
    cluster = membership.cluster_object(SPEC, "https://127.0.0.1:20000", "uid")
    assert cluster["metadata"] == {"name": "us-east", "labels": {"tier": "prod"}}
    assert cluster["spec"] == {
        "syncMode": "Push",
        "id": "uid",
        "apiEndpoint": "https://127.0.0.1:20000",
        "secretRef": {"namespace": "karmada-cluster", "name": "us-east"},
        "impersonatorSecretRef": {"namespace": "karmada-cluster", "name": "us-east-impersonator"},
        "region": "us-east",
        "provider": "local",
        "zones": ["us-east-1"],
    }


def test_an_unknown_place_is_left_out_of_the_cluster_object() -> None:
    cluster = membership.cluster_object({"cluster": "a", "zone": "", "provider": ""}, "https://x", "uid")
    assert not {"region", "provider", "zones"} & set(cluster["spec"])


def test_karmada_gets_an_account_with_all_rights_and_one_to_impersonate_and_failback_a_few() -> None:
    objects = membership.member_objects("us-east")
    accounts = [item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"]
    assert accounts == ["karmada-impersonator", "karmada-us-east"]
    bound = [(subject["kind"], subject["name"]) for item in objects if item["kind"] == "ClusterRoleBinding" for subject in item["subjects"]]
    assert bound == [("ServiceAccount", "karmada-us-east"), ("User", "fleet-failback")]


def test_a_member_counts_as_joined_once_it_reports_every_propagated_kind() -> None:
    def reporting(kinds: dict[str, set[str]]) -> dict[str, Any]:
        apis = [{"groupVersion": version, "resources": [{"kind": kind} for kind in kinds[version]]} for version in kinds]
        return {"status": {"apiEnablements": apis}}

    assert membership.absent_kinds(reporting(membership.PROPAGATED)) == []
    without = {version: kinds for version, kinds in membership.PROPAGATED.items() if version != "serving.kserve.io/v1beta1"}
    assert membership.absent_kinds(reporting(without)) == ["InferenceService (serving.kserve.io/v1beta1)"]
    assert "Gateway (networking.istio.io/v1)" in membership.absent_kinds({})


def test_the_same_cluster_under_two_names_is_refused() -> None:
    hub = cast(Kube, Hub({"metadata": {"name": "other"}, "spec": {"id": "uid"}}))
    with pytest.raises(ValueError, match="cluster `us-east`: is a member already, under the name: `other`"):
        membership.refuse_twin(hub, "us-east", "uid")
    membership.refuse_twin(hub, "other", "uid")


def test_a_hub_that_is_away_is_told_without_a_secret(capfd: pytest.CaptureFixture[str]) -> None:
    spec = {**SPEC, "hubKubeconfig": NOBODY, "memberKubeconfig": NOBODY}
    for call in (membership.join, membership.unjoin):
        with pytest.raises(Unreachable) as failure:
            call(spec)
        said = capfd.readouterr()
        assert "secret-token" not in str(failure.value) + said.out + said.err


def test_credentials_that_cannot_be_read_make_a_member_dead_not_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert membership.reach("apiVersion: v1\nkind: Config\n") is None
    assert membership.reach(None) is None
    assert "kubeconfig" in capfd.readouterr().err
