"""What a rule is, and what it says about a stack."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from policies.declared import Placed, Resource, Stack


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One breach of a rule. It is about an object, a resource, something named in the stack file, or the stack as a whole."""

    says: str
    """What is wrong, and the value last."""
    on: Placed | None = None
    about: str = ""
    """A cluster, model or namespace by name."""
    made_by: Resource | None = None
    """The resource, where it is no object of Kubernetes, or not the object that `says` begins with."""
    clusters: tuple[str, ...] = ()
    """The clusters that get the object so; empty where it is declared so."""

    @property
    def resource(self) -> Resource | None:
        return self.on.resource if self.on else self.made_by

    @property
    def subject(self) -> str:
        """The name by which a waiver speaks of it."""
        return self.resource.name if self.resource else self.about or STACK

    @property
    def text(self) -> str:
        """Where, and what is wrong."""
        there = f" in {', '.join(self.clusters)}" if self.clusters else ""
        return f"{self.on}{there}: {self.says}" if self.on else self.says


# The name of the whole stack as the resource of a waiver.
STACK = "stack"

Check = Callable[[Stack], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One file in rules/. Its texts are the paragraphs of the file's docstring."""

    name: str
    """As the file, with dashes."""
    title: str
    why: str
    mend: str
    check: Check
    local: bool = True
    """Whether it is checked for a fleet on one machine."""


def of_module(module: ModuleType) -> Rule:
    """The rule of a file in rules/.

    Its docstring has the title in the first paragraph, then paragraphs that begin with `Why:` and `Fix:`; its function is
    `check`; LOCAL is the field of that name. Raises ValueError where a paragraph is missing.
    """
    name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
    paragraphs = [" ".join(each.split()) for each in (inspect.getdoc(module) or "").split("\n\n")]
    told = {key: each.removeprefix(f"{key}: ") for each in paragraphs for key in ("Why", "Fix") if each.startswith(f"{key}: ")}
    if missing := {"Why", "Fix"} - told.keys():
        raise ValueError(f"policies/rules/{name}: docstring lacks the paragraph `{min(missing)}:`")
    return Rule(name=name, title=paragraphs[0], why=told["Why"], mend=told["Fix"], check=module.check, local=getattr(module, "LOCAL", True))


def findings(rule: Rule, stack: Stack) -> list[Finding]:
    """What the rule finds, each breach once: an object that is declared wrongly is wrong in every cluster that gets it."""
    found: dict[tuple[str, str, str], list[Finding]] = {}
    for each in rule.check(stack):
        found.setdefault((each.subject, str(each.on), each.says), []).append(each)
    return [replace(same[0], clusters=_clusters(same)) for same in found.values()]


def _clusters(same: Sequence[Finding]) -> tuple[str, ...]:
    clusters = [each.on.cluster if each.on else "" for each in same]
    return () if "" in clusters else tuple(dict.fromkeys(clusters))
