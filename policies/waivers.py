"""Waivers: a breach that is accepted for a time, for a reason, by name. waivers.yaml holds them.

A waiver speaks of one rule, one stack and one resource. It ends on a date, and then it fails the preview until it is taken out
or renewed: nothing is accepted for ever by being forgotten.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from policies.rule import Finding, Rule
from specs import yaml_file
from specs.base import Problem, Spec, closest, parse, refuse

FILE = Path(__file__).with_name("waivers.yaml")
# A longer one is no exception any more.
LONGEST_DAYS = 366


def _date(value: str) -> str:
    try:
        # ISO has other ways to write a date; one is enough to read.
        if date.fromisoformat(value).isoformat() == value:
            return value
    except ValueError:
        pass
    raise refuse("must be a date such as `2027-01-31`")


class Waiver(Spec):
    """One accepted breach."""

    rule: str
    stack: str
    resource: Annotated[str, Field(min_length=1)]
    """The resource's name as the preview shows it, or `stack` for a breach of the stack as a whole."""
    reason: Annotated[str, Field(min_length=10)]
    expires: Annotated[str, AfterValidator(_date)]
    """The last day on which it holds, at most a year ahead."""

    @property
    def last_day(self) -> date:
        return date.fromisoformat(self.expires)

    def covers(self, stack: str, rule: str, finding: Finding) -> bool:
        return (self.stack, self.rule, self.resource) == (stack, rule, finding.subject)


class _File(Spec):
    waivers: tuple[Waiver, ...] = ()


def read() -> Any:
    """The file as YAML has it. Raises SpecError."""
    return yaml_file.read(FILE)


def waivers(raw: Any, rules: Sequence[Rule], today: date) -> tuple[Waiver, ...]:
    """Every waiver. Raises SpecError: wrong types, rules that do not exist, dates too far ahead, a breach that is waived twice."""
    known = [each.name for each in rules]

    def problems(whole: _File) -> Iterator[Problem]:
        places: dict[tuple[str, str, str], int] = {}
        for place, each in enumerate(whole.waivers):
            if each.rule not in known:
                yield Problem(("waivers", place, "rule"), "no such rule", each.rule, _known(each.rule, known))
            if (first := places.setdefault((each.rule, each.stack, each.resource), place)) != place:
                yield Problem(("waivers", place), f"waives what waivers[{first}] waives", each.resource, "keep the one whose reason and last day are meant")
            if (each.last_day - today).days > LONGEST_DAYS:
                yield Problem(("waivers", place, "expires"), "must be at most a year ahead", each.expires, "renew it then, if it is still wanted")

    return parse(_File, raw, problems, ("waivers",)).waivers


def _known(name: str, known: Sequence[str]) -> str:
    alike = closest(name, known) or ""
    return alike if alike.startswith("known") else f"{alike} known: {', '.join(f'`{each}`' for each in known)}"


def expired(waivers: Iterable[Waiver], stack: str, today: date) -> Iterator[str]:
    """What is said of each waiver of `stack` whose time is over."""
    for each in waivers:
        if each.stack == stack and each.last_day < today:
            yield (
                f"waiver of `{each.rule}` for `{each.resource}` expired on {each.expires}; its reason was: {each.reason}\n"
                "fix: fix the breach and take the waiver out of policies/waivers.yaml, or renew it there"
            )


def standing(waivers: Iterable[Waiver], stack: str, today: date) -> list[Waiver]:
    """The waivers of `stack` that hold today."""
    return [each for each in waivers if each.stack == stack and each.last_day >= today]
