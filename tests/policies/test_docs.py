"""The page about policies is what the rules say now."""

from policies import docs
from policies.rules import RULES
from tests.policies import changes


def test_the_tables_are_current() -> None:
    assert docs.DOCUMENT.read_text(encoding="utf-8").split(docs.MARK, 1)[1] == f"\n\n{docs.tables()}", "run: make generate"


def test_every_rule_has_a_bad_change() -> None:
    # These two are asked of settings that the examples do not have; tests of their own ask them.
    asked_elsewhere = {"cost-change", "image-signed"}
    assert {each.rule for each in changes.BAD} | asked_elsewhere == {rule.name for rule in RULES}
