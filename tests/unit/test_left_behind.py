"""What counts as left behind on a member: fleet up deletes it."""

from typing import Any

import pytest

from operations import left_behind
from operations.left_behind import is_left_behind

SPACE = "karmada-es-west"


def held(work: str | None = "chat-1", space: str = SPACE, **metadata: Any) -> dict[str, Any]:
    notes = {"work.karmada.io/namespace": space, "work.karmada.io/name": work} if work else {}
    return {"metadata": {"name": "chat", "annotations": notes, **metadata}}


@pytest.mark.parametrize(
    ("each", "works", "want"),
    [
        pytest.param(held(), {"other-2"}, True, id="its Work is gone"),
        pytest.param(held(), {"chat-1"}, False, id="its Work is there, on its way out or not"),
        pytest.param(held(deletionTimestamp="2026-01-01T00:00:00Z"), set[str](), False, id="being deleted"),
        pytest.param(held(space="karmada-es-elsewhere"), set[str](), False, id="of another hub"),
        pytest.param(held(work=None), set[str](), False, id="not Karmada's"),
    ],
)
def test_an_object_is_left_behind_once_its_work_is_gone(each: dict[str, Any], works: set[str], want: bool) -> None:
    assert is_left_behind(each, SPACE, frozenset(works)) is want


class Server:
    """An API server that answers lists, or nothing."""

    def __init__(self, objects: list[dict[str, Any]], away: bool = False) -> None:
        self.objects, self.away = objects, away
        self.deleted: list[str] = []

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None: ...

    def list(self, api_version: str, kind: str, namespace: str | None = None, label_selector: str | None = None) -> list[dict[str, Any]]:
        if self.away:
            raise left_behind.Unreachable("away")
        return [{"apiVersion": api_version, "kind": kind, **each} for each in self.objects] if kind in ("Work", "InferenceService") else []

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None) -> bool:
        self.deleted.append(name)
        return True


def test_what_is_left_behind_is_deleted_and_a_member_that_is_away_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = {"hub": Server([{"metadata": {"name": "kept-1"}}]), "east": Server([], away=True), "west": Server([held(), held("kept-1")])}

    def connect(kubeconfig: str, **_: Any) -> Server:
        return servers[kubeconfig]

    monkeypatch.setattr(left_behind.Kube, "from_kubeconfig", connect)
    found = left_behind.find({name: name for name in servers}, remove=True)
    assert [str(each) for each in found] == ["InferenceService chat in west"]
    assert servers["west"].deleted == ["chat"]
    assert left_behind.find({name: name for name in servers}) == found, "only told of"
    assert servers["west"].deleted == ["chat"]
