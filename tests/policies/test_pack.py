"""The pack as the engine asks it: levels by environment, waivers, and files that are wrong."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pulumi_policy import EnforcementLevel, Policy, PolicyResource, ResourceValidationArgs, ResourceValidationPolicy, StackValidationArgs, StackValidationPolicy
from pulumi_policy.policy import PolicyCustomTimeouts, PolicyResourceOptions
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policies import compatibility, pack
from policies import settings as environments
from policies import waivers as accepted
from policies.declared import Resource
from policies.rules import RULES
from tests.policies import changes, stacks
from tests.policies.changes import AMERICAS

TODAY = date(2026, 11, 21)
_OURS = {"environments": {"environments": {AMERICAS: {"allowedRegistries": ["registry.example.com"]}}}, "waivers": {}}
_WAIVER = {"rule": "failover-partner", "stack": AMERICAS, "resource": "llama-3-8b-isvc", "reason": "the second region opens in March", "expires": "2027-03-31"}
_DAY_AFTER = date(2027, 4, 1)

Said = dict[str, list[str]]


def _one_region() -> Any:
    return changes.edited(next(each for each in changes.BAD if each.rule == "failover-partner"))


def _options(protect: bool) -> PolicyResourceOptions:
    return PolicyResourceOptions(protect, [], None, [], PolicyCustomTimeouts(0, 0, 0), [], None)


def asked(raw: Any, files: dict[str, Any] | None, today: date = TODAY, name: str = AMERICAS, *, times: int = 1) -> tuple[Said, dict[str, EnforcementLevel]]:
    """What each policy of the pack says of a stack, and its level. The engine tells inputs by resource, then the stack without them."""
    declared = stacks.stack(name, raw, settings=environments.Settings()).resources
    made = list(pack.policies(name, raw, today, files))
    said: Said = {}
    for _ in range(times):
        said = dict(found for policy in made if (found := _asked(policy, declared))[1])
    levels = {each.name: each.enforcement_level for each in made if each.enforcement_level is not None}
    return said, levels


def _asked(policy: Policy, declared: Sequence[Resource]) -> tuple[str, list[str]]:
    said: list[str] = []
    if isinstance(policy, ResourceValidationPolicy):
        for each in declared:
            props = unknown_checking_proxy({**each.props, "later": UNKNOWN_STRING_VALUE})
            policy.validate(ResourceValidationArgs(each.type, props, each.urn, each.name, _options(each.protected), None), lambda *_: None)
    elif isinstance(policy, StackValidationPolicy) and policy.enforcement_level != EnforcementLevel.DISABLED:
        told = [PolicyResource(each.type, unknown_checking_proxy({}), each.urn, each.name, _options(each.protected), None, None, [], {}) for each in declared]
        policy.validate(StackValidationArgs(told), lambda message, urn=None: said.append(message))
    return policy.name, said


def refused(said: Said, levels: dict[str, EnforcementLevel]) -> set[str]:
    return {name for name in said if levels[name] == EnforcementLevel.MANDATORY}


def test_what_the_preview_does_not_know_yet_stops_no_rule() -> None:
    said, levels = asked(changes.read(AMERICAS), _OURS)
    assert refused(said, levels) == set()


def test_a_breach_is_refused_in_production_and_told_elsewhere() -> None:
    assert refused(*asked(_one_region(), _OURS)) == {"failover-partner"}
    for kind in ("development", "local"):
        files = {**_OURS, "environments": {"environments": {AMERICAS: {"kind": kind, "allowedRegistries": ["registry.example.com"]}}}}
        said, levels = asked(_one_region(), files)
        assert "failover-partner" in said
        assert refused(said, levels) == set()


def test_rules_about_what_one_machine_has_not_are_left_out_there() -> None:
    settings = {"kind": "local", "allowedRegistries": ["registry.example.com"]}
    _, levels = asked(changes.read(AMERICAS), {**_OURS, "environments": {"environments": {AMERICAS: settings}}})
    assert {name for name, level in levels.items() if level == EnforcementLevel.DISABLED} == {rule.name for rule in RULES if not rule.local}


def test_a_second_question_is_answered_about_the_second_state() -> None:
    # One `pulumi up` asks twice: about its preview and about its update.
    once, again = asked(_one_region(), _OURS), asked(_one_region(), _OURS, times=2)
    assert again == once


def test_a_waived_breach_is_told_with_its_reason_and_refuses_nothing() -> None:
    said, levels = asked(_one_region(), {**_OURS, "waivers": {"waivers": [_WAIVER]}})
    assert refused(said, levels) == set()
    what = "failover-partner: InferenceService models/llama-3-8b: runs in one region only, got: `us-east-1`"
    assert said[pack.WAIVED] == [f"{what}\nwaived until 2027-03-31: the second region opens in March"]


@pytest.mark.parametrize("field", ["rule", "stack", "resource"])
def test_a_waiver_covers_nothing_else(field: str) -> None:
    other = {"rule": "front-door-tls", "stack": "prod-europe", "resource": "llama-3-70b-isvc"}[field]
    files = {**_OURS, "waivers": {"waivers": [{**_WAIVER, field: other}]}}
    assert refused(*asked(_one_region(), files)) == {"failover-partner"}


def test_a_waiver_that_is_of_no_use_is_told() -> None:
    said, levels = asked(changes.read(AMERICAS), {**_OURS, "waivers": {"waivers": [_WAIVER]}})
    assert said[pack.WAIVED] == ["failover-partner: nothing of `llama-3-8b-isvc` breaks it\nfix: take the waiver out of policies/waivers.yaml"]
    assert refused(said, levels) == set()


def test_an_expired_waiver_fails_even_where_the_breach_is_gone() -> None:
    files = {**_OURS, "waivers": {"waivers": [_WAIVER]}}
    assert refused(*asked(_one_region(), files, date(2027, 3, 31))) == set()
    assert refused(*asked(_one_region(), files, _DAY_AFTER)) == {"failover-partner", pack.FILES}
    said, levels = asked(changes.read(AMERICAS), files, _DAY_AFTER)
    assert refused(said, levels) == {pack.FILES}
    assert "waiver of `failover-partner` for `llama-3-8b-isvc` expired on 2027-03-31" in said[pack.FILES][0]
    assert "fix: " in said[pack.FILES][0]


def test_a_waiver_of_an_unknown_rule_is_an_error_that_names_the_rules() -> None:
    said, levels = asked(changes.read(AMERICAS), {**_OURS, "waivers": {"waivers": [{**_WAIVER, "rule": "failover-parter"}]}})
    assert refused(said, levels) == {pack.FILES}
    assert said[pack.FILES][0].startswith(
        "policies/waivers.yaml: waivers[0].rule: no such rule, got: `failover-parter`\n  hint: did you mean `failover-partner`?"
    )
    assert all(f"`{rule.name}`" in said[pack.FILES][0] for rule in RULES)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("expires", "2028-01-01", "waivers[0].expires: must be at most a year ahead"),
        ("expires", "next year", "waivers[0].expires: must be a date such as `2027-01-31`"),
        ("expires", "20270101", "waivers[0].expires: must be a date such as `2027-01-31`"),
        ("reason", "", "waivers[0].reason: must have at least 10 character"),
        ("rule", ["failover-partner"], "waivers[0].rule: must be text"),
        ("until", "2027-01-01", "waivers[0].until: unknown field"),
    ],
)
def test_a_wrong_waiver_names_its_field_and_waives_nothing(field: str, value: Any, told: str) -> None:
    said, levels = asked(_one_region(), {**_OURS, "waivers": {"waivers": [{**_WAIVER, field: value}]}})
    assert told in said[pack.FILES][0]
    assert refused(said, levels) == {pack.FILES, "failover-partner"}


def test_wrong_settings_are_told_and_judge_as_production() -> None:
    files = {**_OURS, "environments": {"environments": {AMERICAS: {"kind": "local", "monthlyBudgt": 5}}}}
    said, levels = asked(_one_region(), files)
    assert "policies/environments.yaml: environments.prod-americas.monthlyBudgt: unknown field" in said[pack.FILES][0]
    assert {"failover-partner", "image-registry", pack.FILES} <= refused(said, levels)


_ROW = "[[rows]]\nkubernetes = '1.36.3'\nkarmada = '1'\nkserve = '1'\nistio = '1'\ngatewayApi = '1'\ninferenceExtension = '1'\nvllm = '1'\n"


@pytest.mark.parametrize(
    ("module", "written", "told"),
    [
        (accepted, None, "policies/waivers.yaml: cannot be read: No such file or directory"),
        (accepted, "waivers: [", "policies/waivers.yaml: is not valid YAML: "),
        (accepted, "- 1", "policies/waivers.yaml: must be a mapping of fields, got: "),
        (accepted, "waivers: []\nwaivers: []", "policies/waivers.yaml: waivers: is set twice, in lines 1 and 2"),
        (environments, None, "policies/environments.yaml: cannot be read: No such file or directory"),
        (environments, b"\xff\xfe", "policies/environments.yaml: is not valid UTF-8"),
        (environments, "a: &a [*a]", "policies/environments.yaml: a[0]: is an alias of what it is part of"),
        (environments, "environments:\n  prod: {}\n  prod: {kind: local}", "environments.prod: is set twice, in lines 2 and 3"),
        (environments, "environments: {1: {}}", "environments.1: the name of a field must be text"),
        (environments, "environments: [prod]", "policies/environments.yaml: environments: must be a mapping of fields"),
        (environments, "others: {kind: lokal}", "policies/environments.yaml: others.kind: must be one of"),
        (compatibility, None, "policies/compatibility.toml: cannot be read: No such file or directory"),
        (compatibility, "[[rows]", "policies/compatibility.toml: is not valid TOML: "),
        (compatibility, "rows = []", "policies/compatibility.toml: rows: must have at least 1 entries"),
        (compatibility, _ROW + "ran = true\ntests = [{what = 'a', how = 'b', when = 2026-11-21}]", "compatibility.toml: rows[0].gpuOperator: is required"),
        (compatibility, _ROW + "gpuOperator = '1'\nran = true\ntests = []", "compatibility.toml: rows[0].tests: must have at least 1 entries"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_words_and_refuses(
    module: Any, written: str | bytes | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / module.FILE.name
    if written is not None:
        file.write_bytes(written.encode() if isinstance(written, str) else written)
    monkeypatch.setattr(module, "FILE", file)
    caches: tuple[Any, ...] = (compatibility.matrix, compatibility._read)  # pyright: ignore[reportPrivateUsage]
    for each in caches:
        each.cache_clear()
    try:
        said, levels = asked(changes.read(AMERICAS), None)
    finally:
        for each in caches:
            each.cache_clear()
    assert told in said[pack.FILES][0]
    # And nothing got looser by it.
    assert refused(said, levels) >= {pack.FILES}
    assert ("versions-tested" in said) == (module is compatibility)
    assert ("image-registry" in said) == (module is environments)


def test_two_waivers_of_one_breach_are_refused() -> None:
    twice = [_WAIVER, {**_WAIVER, "expires": "2027-06-30"}]
    said, levels = asked(_one_region(), {**_OURS, "waivers": {"waivers": twice}})
    assert "waivers[1]: waives what waivers[0] waives" in said[pack.FILES][0]
    assert refused(said, levels) == {pack.FILES, "failover-partner"}


def test_a_waiver_holds_on_its_last_day_and_for_a_year_at_most() -> None:
    for expires, wrong in (("2026-11-21", False), ("2026-11-20", True), ("2027-11-22", False), ("2027-11-23", True)):
        said, levels = asked(_one_region(), {**_OURS, "waivers": {"waivers": [{**_WAIVER, "expires": expires}]}})
        assert (pack.FILES in refused(said, levels)) == wrong, expires
        assert ("failover-partner" in said) == wrong, expires


def test_the_files_of_the_clone_are_right() -> None:
    assert pack.ground(AMERICAS, TODAY).problems == []
