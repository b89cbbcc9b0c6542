"""Works of Karmada that note for good that their object exists: fleet up has them looked at anew."""

from typing import Any

import pytest

from operations.stuck_works import is_stuck, release

_EXISTS = 'inferenceservices.serving.kserve.io "chat" already exists'


def work(name: str = "chat-1", *, status: str = "False", reason: str = "ReCreateFailed", message: str = _EXISTS, **spec: Any) -> dict[str, Any]:
    manifests = [{"kind": "InferenceService", "metadata": {"name": "chat"}}]
    return {
        "metadata": {"name": name, "namespace": "karmada-es-west"},
        "spec": {"workload": {"manifests": manifests}, **spec},
        "status": {"conditions": [{"type": "Applied", "status": status, "reason": reason, "message": message}]},
    }


@pytest.mark.parametrize(
    ("each", "want"),
    [
        pytest.param(work(), True, id="made twice"),
        pytest.param(work(status="True"), False, id="applied"),
        pytest.param(work(reason="AppliedFailed", message="already exists in the cluster, Karmada will not manage it"), False, id="somebody else's"),
        pytest.param(work(message="connection refused"), False, id="the member is away"),
        pytest.param({**work(), "status": {}}, False, id="not looked at yet"),
    ],
)
def test_a_work_is_stuck_where_its_object_was_made_twice(each: dict[str, Any], want: bool) -> None:
    assert is_stuck(each) is want


class Hub:
    def __init__(self, *works: dict[str, Any]) -> None:
        self.works = works
        self.patched: list[tuple[Any, ...]] = []

    def list(self, *_: str) -> tuple[dict[str, Any], ...]:
        return self.works

    def patch(self, _api: str, _kind: str, name: str, patch: Any, namespace: str) -> None:
        self.patched.append((namespace, name, patch["spec"]["suspendDispatching"]))


def test_each_is_changed_so_that_karmada_looks_and_dispatches_as_before() -> None:
    hub: Any = Hub(work("new"), work("again", suspendDispatching=False), work("well", status="True"))
    assert release(hub) == ["InferenceService chat in west"] * 2
    assert hub.patched == [("karmada-es-west", "new", False), ("karmada-es-west", "again", None)]
