"""Which models are divided afresh when a cluster comes back."""

import pytest

from local.rebalance import lacks, rebalancer


def binding(held: dict[str, int], named: list[str] | None, kind: str = "InferenceService") -> dict[str, object]:
    placement = {"clusterAffinity": {"clusterNames": named}} if named is not None else {}
    clusters = [{"name": name, "replicas": replicas} for name, replicas in held.items()]
    return {"spec": {"resource": {"kind": kind, "name": "chat"}, "placement": placement, "clusters": clusters}}


@pytest.mark.parametrize(
    ("held", "named", "kind", "want"),
    [
        pytest.param({"west": 2}, ["east", "west"], "InferenceService", True, id="moved away"),
        pytest.param({"west": 1, "east": 1}, ["east", "west"], "InferenceService", False, id="still there"),
        pytest.param({"west": 2, "east": 0}, ["east", "west"], "InferenceService", True, id="there without replicas"),
        pytest.param({"west": 2}, ["west"], "InferenceService", False, id="never meant for it"),
        pytest.param({"west": 2}, ["east", "west"], "ConfigMap", False, id="not a model"),
        pytest.param({}, None, "InferenceService", False, id="no placement"),
    ],
)
def test_a_model_is_divided_afresh_when_its_share_went_elsewhere(held: dict[str, int], named: list[str] | None, kind: str, want: bool) -> None:
    assert lacks(binding(held, named, kind), "east") is want


def test_the_request_names_every_model_and_goes_by_itself() -> None:
    request = rebalancer("east", ["chat", "code"])
    assert [workload["name"] for workload in request["spec"]["workloads"]] == ["chat", "code"]
    assert request["spec"]["ttlSecondsAfterFinished"] > 0
