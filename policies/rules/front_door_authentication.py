"""Front doors let in only callers that they know.

Why: a GPU costs some dollars an hour, and whoever finds the address spends them; vLLM's own `--api-key` leaves paths open.

Fix: say under `frontDoors.authentication` of the stack file who may call: `kind: jwt` with the issuers of tokens, or `kind:
external` with a service of your own.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.mesh.gateways import FRONT_DOOR
from policies.declared import Placed, Stack, at, items, mapping, mappings
from policies.karmada import without
from policies.rule import Finding
from specs import labels

LOCAL = False


def _selects_front_doors(each: Placed) -> bool:
    chosen = at(each.body, "spec", "selector", "matchLabels")
    return each.namespace == labels.NAMESPACE_INGRESS and (not chosen or chosen == {"istio": FRONT_DOOR})


def _everyone_is_asked(rule: Mapping[str, Any]) -> bool:
    """Whether the rule holds for every request. One port may be left out: the egress, where the relay comes from, on loopback."""
    operations = [mapping(each.get("operation")) for each in mappings(rule.get("to"))]
    return not rule.get("when") and all(set(each) <= {"notPorts"} and len(items(each.get("notPorts"))) <= 1 for each in operations)


def _sources(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [mapping(source.get("source")) for source in mappings(rule.get("from"))]


def _asks(each: Placed) -> bool:
    """Whether it asks an extension provider about everyone."""
    rules = mappings(at(each.body, "spec", "rules"))
    return at(each.body, "spec", "action") == "CUSTOM" and any(_everyone_is_asked(rule) and not rule.get("from") for rule in rules)


def _wants_a_token(each: Placed) -> bool:
    rules = mappings(at(each.body, "spec", "rules"))
    if at(each.body, "spec", "action") == "DENY":
        return any("*" in items(source.get("notRequestPrincipals")) for rule in rules if _everyone_is_asked(rule) for source in _sources(rule))
    sources = [source for rule in rules for source in _sources(rule)]
    allows = (at(each.body, "spec", "action") or "ALLOW") == "ALLOW"
    return allows and bool(sources) and all(items(source.get("requestPrincipals")) for source in sources)


def check(stack: Stack) -> Iterator[Finding]:
    def none(holds: Callable[[Placed], bool], kind: str) -> set[str]:
        return set(without(stack, lambda each: _selects_front_doors(each) and holds(each), kind))

    unread = none(lambda _: True, "RequestAuthentication")
    open_in = none(_asks, "AuthorizationPolicy") & (none(_wants_a_token, "AuthorizationPolicy") | unread)
    if open_in:
        alone = "; a RequestAuthentication alone lets requests without a token pass" if open_in - unread else ""
        yield Finding(says=f"no AuthorizationPolicy demands an identity at the front doors of {', '.join(sorted(open_in))}{alone}")
