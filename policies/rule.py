"""What a rule is, and what it says about a stack."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from policies.declared import Resource, Stack


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One breach of a rule."""

    says: str
    """Where in the resource, what is wrong, and the value last."""
    resource: Resource | None = None
    about: str = ""
    """Without a resource: the cluster or model of the stack file that is meant; empty for the stack as a whole."""

    @property
    def subject(self) -> str:
        """The name by which a waiver speaks of it."""
        return self.resource.name if self.resource else self.about or STACK


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
    awaits: str = ""
    """Why no fleet can satisfy the rule yet. While it says something, the rule reports and refuses nothing."""
    local: bool = True
    """Whether it is asked of a fleet on one machine."""


def of_module(module: ModuleType) -> Rule:
    """The rule of a file in rules/.

    Its docstring has the title in the first paragraph, then paragraphs that begin with `Why:` and `Mend:`; its function is
    `check`; AWAITS and LOCAL are the fields of those names. Raises ValueError where a paragraph is missing.
    """
    name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
    paragraphs = [" ".join(each.split()) for each in (inspect.getdoc(module) or "").split("\n\n")]
    told = {key: each.removeprefix(f"{key}: ") for each in paragraphs for key in ("Why", "Mend") if each.startswith(f"{key}: ")}
    if missing := {"Why", "Mend"} - told.keys():
        raise ValueError(f"policies/rules/{name}: docstring lacks the paragraph `{min(missing)}:`")
    more: dict[str, Any] = {key.lower(): getattr(module, key) for key in ("AWAITS", "LOCAL") if hasattr(module, key)}
    return Rule(name=name, title=paragraphs[0], why=told["Why"], mend=told["Mend"], check=module.check, **more)
