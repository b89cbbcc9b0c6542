"""Front doors let in only callers that they know.

Why: a GPU costs some dollars an hour, and whoever finds the address spends them; vLLM's own `--api-key` leaves paths open.

Mend: say under `frontDoors.authentication` of the stack file who may call: `kind: jwt` with the issuers of tokens, or `kind:
external` with a service of your own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from components import labels
from components.doors import FRONT_DOOR
from policies.declared import Placed, Stack, at, items, mappings
from policies.karmada import goes_everywhere
from policies.rule import Finding

LOCAL = False


def _selects_front_doors(each: Placed) -> bool:
    chosen = at(each.body, "spec", "selector", "matchLabels")
    return each.namespace == labels.NAMESPACE_INGRESS and (not chosen or chosen == {"istio": FRONT_DOOR})


def _everyone_is_asked(rule: Mapping[str, Any]) -> bool:
    """Whether the rule holds for every request; the egress is left out by what comes from the relay, on loopback."""
    operations = [each.get("operation") or {} for each in mappings(rule.get("to"))]
    return not rule.get("when") and all(set(each) <= {"notPorts"} and len(items(each.get("notPorts"))) <= 1 for each in operations)


def _demands(each: Placed, tokens: bool) -> bool:
    rules = [rule for rule in mappings(at(each.body, "spec", "rules")) if _everyone_is_asked(rule)]
    action = at(each.body, "spec", "action") or "ALLOW"
    if action == "CUSTOM":
        return any(not rule.get("from") for rule in rules)
    if action == "DENY":
        return tokens and any("*" in items(source.get("notRequestPrincipals")) for rule in rules for source in _sources(rule))
    sources = [source for rule in mappings(at(each.body, "spec", "rules")) for source in _sources(rule)]
    return tokens and bool(sources) and all(items(source.get("requestPrincipals")) for source in sources)


def _sources(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [source.get("source") or {} for source in mappings(rule.get("from"))]


def check(stack: Stack) -> Iterator[Finding]:
    tokens = any(_selects_front_doors(each) and goes_everywhere(stack, each) for each in stack.of_kind("RequestAuthentication"))
    demanding = [each for each in stack.of_kind("AuthorizationPolicy") if _selects_front_doors(each) and _demands(each, tokens)]
    if not any(goes_everywhere(stack, each) for each in demanding):
        without = "; a RequestAuthentication alone lets requests without a token pass" if tokens else ""
        yield Finding(says=f"no AuthorizationPolicy that demands an identity goes to the front doors of every member{without}")
