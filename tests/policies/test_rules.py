"""Every rule lets the example stacks pass, and refuses each bad change alone."""

import pytest

from tests.policies import changes
from tests.policies.changes import AMERICAS, BAD, EUROPE, Change
from tests.policies.stacks import breaches, stack


@pytest.mark.parametrize("name", [AMERICAS, EUROPE])
def test_an_example_breaks_no_rule(name: str) -> None:
    assert breaches(stack(name, changes.read(name))) == {}


def test_an_object_beside_the_fleet_can_satisfy_every_rule() -> None:
    assert breaches(stack(AMERICAS, changes.read(AMERICAS), [changes.deployment("exporter")])) == {}


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_bad_change_is_refused_by_its_rule_alone(change: Change) -> None:
    found = breaches(stack(change.stack, changes.edited(change), change.objects))
    assert list(found) == [change.rule]
    assert any(change.told in each.text and each.subject == change.about for each in found[change.rule]), found
