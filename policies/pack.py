"""The rules as policies of Pulumi: which level each has in an environment, what is waived, and what is reported.

All are policies of the stack as a whole: a rule may look at any object, also as clusters get it. What they judge are the inputs
of resources, and those are passed resource by resource: of the stack as a whole the engine passes outputs, and of an object on a hub
that does not exist yet there are none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from planning.stack_file import kept_choices, resolve_fleet
from policies import compatibility
from policies import settings as environments
from policies import waivers as accepted
from policies.declared import UNKNOWN, Resource, Stack
from policies.rule import Finding, Rule, findings
from policies.rules import RULES
from policies.settings import Settings
from policies.waivers import Waiver
from specs import yaml_file
from specs.base import Problem, SpecError
from specs.fleet import FleetSpec

NAME = "inference-fleet"
_STACKS = Path(__file__).parent.parent / "stacks"
# Policies of the pack's own, beside the rules.
NOTED = "declared"
FILES = "policy-files"
WAIVED = "waived"

# The rule that gets the cost of the stack before the change by configuration, and the key.
COST_CHANGE, DEPLOYED_COST = "cost-change", "deployedMonthlyCost"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the pack goes by for one stack."""

    stack: str
    settings: Settings
    waivers: Sequence[Waiver]
    today: date
    problems: Sequence[str] = ()
    """What is wrong with the pack's own files, and with waivers whose time is over."""


def ground(stack: str, today: date, files: Mapping[str, Any] | None = None) -> Ground:
    """Settings and waivers of `stack`. A file with errors counts as empty, and the errors are reported: nothing gets looser by one.

    `files`: contents of `environments` and `waivers`, instead of the files of those names.
    """
    problems: list[str] = []

    def tell(file: str, wrong: Iterable[Problem]) -> None:
        problems.extend(each.of(f"policies/{file}") if each.path else f"policies/{file}: {each.what}" for each in wrong)

    def checked(name: str, read: Callable[[], Any], parsed: Callable[[Any], Any], otherwise: Any) -> Any:
        try:
            return parsed(files[name] if files is not None else read())
        except SpecError as error:
            tell(f"{name}.yaml", error.problems)
            return otherwise

    settings = checked("environments", environments.read, lambda raw: environments.settings(stack, raw), Settings())
    waivers = checked("waivers", accepted.read, lambda raw: accepted.waivers(raw, RULES, today), ())
    tell(compatibility.FILE.name, compatibility.problems())
    problems += accepted.expired(waivers, stack, today)
    return Ground(stack=stack, settings=settings, waivers=waivers, today=today, problems=problems)


def level(rule: Rule, settings: Settings) -> EnforcementLevel:
    """What a breach of the rule does in an environment."""
    if settings.kind == "local" and not rule.local:
        return EnforcementLevel.DISABLED
    return EnforcementLevel.MANDATORY if settings.kind == "production" else EnforcementLevel.ADVISORY


def split(stack: Stack, rule: Rule, found: Sequence[Finding], standing: Sequence[Waiver]) -> tuple[list[Finding], list[tuple[Finding, Waiver]]]:
    """Breaches that count, and those that are waived, each with its waiver."""
    waived = [(each, next((waiver for waiver in standing if waiver.covers(stack.name, rule.name, each)), None)) for each in found]
    return [each for each, waiver in waived if waiver is None], [(each, waiver) for each, waiver in waived if waiver is not None]


def message(rule: Rule, finding: Finding) -> str:
    """What a preview says below the rule's title: the resource, the reason, the fix."""
    return f"{finding.text}\nwhy: {rule.why}\nfix: {rule.mend}"


@dataclass
class _View:
    """The stack of one request of the engine, and what rules found in it. The engine asks policy after policy, and each time tells
    all resources anew."""

    name: str
    spec: FleetSpec | None
    settings: Settings
    _inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    _asked: set[str] = field(default_factory=set[str])
    _stack: Stack | None = None
    _found: dict[str, list[Finding]] = field(default_factory=dict[str, list[Finding]])

    def note(self, args: ResourceValidationArgs) -> None:
        """Keeps the inputs of a resource, by URN."""
        self._inputs[args.urn] = _plain(args.props)

    def stack(self, policy: str, args: StackValidationArgs) -> Stack:
        # A policy that asks again asks for another request: in one `pulumi up` the preview's, then the update's.
        if self._stack is None or policy in self._asked:
            self._asked.clear()
            self._found.clear()
            self._stack = Stack(name=self.name, resources=[self._resource(each) for each in args.resources], settings=self.settings, spec=self.spec)
        self._asked.add(policy)
        return self._stack

    def _resource(self, each: PolicyResource) -> Resource:
        props = self._inputs[each.urn] if each.urn in self._inputs else _plain(each.props)
        return Resource(type=each.resource_type, name=each.name, props=props, urn=each.urn, protected=bool(each.opts.protect))

    def found(self, rule: Rule, stack: Stack) -> list[Finding]:
        if rule.name not in self._found:
            self._found[rule.name] = findings(rule, stack)
        return self._found[rule.name]


def policies(stack: str, raw: Any, today: date | None = None, files: Mapping[str, Any] | None = None) -> Iterator[Policy]:
    """Every policy of the pack for the stack of this name with this `fleet:spec`. `files`: as for `ground`."""
    base = ground(stack, today or datetime.now(UTC).date(), files)
    standing = accepted.standing(base.waivers, stack, base.today)
    view = _View(stack, _fleet(stack, raw), base.settings)
    yield ResourceValidationPolicy(
        name=NOTED, description="Notes what is declared, for the others.", enforcement_level=EnforcementLevel.ADVISORY, validate=lambda args, _: view.note(args)
    )
    yield StackValidationPolicy(
        name=FILES,
        description="The files of the policy pack are right, and no waiver has expired.",
        enforcement_level=EnforcementLevel.MANDATORY,
        validate=lambda _, report: _report(report, base.problems),
    )
    for rule in RULES:
        yield _policy(rule, view, standing)
    yield StackValidationPolicy(
        name=WAIVED,
        description="Breaches that are accepted for a time.",
        enforcement_level=EnforcementLevel.ADVISORY,
        validate=lambda args, report: _tell_waived(view, view.stack(WAIVED, args), standing, report),
    )


def _fleet(stack: str, raw: Any) -> FleetSpec | None:
    """As the program sees it, with what the planner chose."""
    try:
        return resolve_fleet(yaml_file.from_pulumi(raw), kept_choices(_STACKS, stack))[1].fleet
    except SpecError:
        # The program tells it, with its fields.
        return None


def _policy(rule: Rule, view: _View, standing: Sequence[Waiver]) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        stack = view.stack(rule.name, args)
        if DEPLOYED_COST in args.get_config():
            stack = replace(stack, deployed_cost=float(args.get_config()[DEPLOYED_COST]))
        for each in split(stack, rule, view.found(rule, stack), standing)[0]:
            report(message(rule, each), _urn(stack, each))

    schema = PolicyConfigSchema(properties={DEPLOYED_COST: {"type": "number"}}) if rule.name == COST_CHANGE else None
    return StackValidationPolicy(
        name=rule.name,
        description=rule.title,
        enforcement_level=level(rule, view.settings),
        remediation_steps=rule.mend,
        config_schema=schema,
        validate=validate,
    )


def _urn(stack: Stack, finding: Finding) -> str | None:
    """The resource that the preview names beside a breach: for a cluster of the stack file the component of that name."""
    if finding.resource:
        return finding.resource.urn
    return next((each.urn for each in stack.resources if each.name == finding.about and each.type.startswith("fleet:")), None)


def _report(report: ReportViolation, problems: Sequence[str]) -> None:
    for each in problems:
        report(each, None)


def _tell_waived(view: _View, stack: Stack, standing: Sequence[Waiver], report: ReportViolation) -> None:
    used: list[Waiver] = []
    for rule in RULES if standing else ():
        for finding, waiver in split(stack, rule, view.found(rule, stack), standing)[1]:
            used.append(waiver)
            report(f"{rule.name}: {finding.text}\nwaived until {waiver.expires}: {waiver.reason}", _urn(stack, finding))
    for each in standing:
        if each not in used:
            report(f"{each.rule}: nothing of `{each.resource}` breaks it\nfix: take the waiver out of policies/waivers.yaml", None)


def _plain(value: Any) -> Any:
    """The value without the SDK's wrappers, which raise where a value is not known yet."""
    if isinstance(value, Mapping):
        holder = cast(Mapping[str, Any], value)
        return {key: _read(holder, key) for key in holder}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        entries = cast(Sequence[Any], value)
        return [_read(entries, place) for place in range(len(entries))]
    return value


def _read(holder: Any, key: Any) -> Any:
    try:
        return _plain(holder[key])
    except UnknownValueError:
        return UNKNOWN
