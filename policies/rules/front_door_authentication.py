"""Front doors let in only callers that they know.

Why: a GPU costs some dollars an hour, and whoever finds the address spends them; vLLM's own `--api-key` leaves paths open.

Mend: select the gateways `istio: front-door` by an AuthorizationPolicy that refuses a request without an identity: action CUSTOM
with an external authorizer, or DENY of notRequestPrincipals ["*"] beside a RequestAuthentication, which alone lets a request
without a token pass.
"""

from collections.abc import Iterator

from components import labels
from components.doors import FRONT_DOOR
from policies.declared import Placed, Stack, at, items, mappings
from policies.karmada import goes_everywhere
from policies.rule import Finding

AWAITS = "the program declares no authentication of callers yet"
LOCAL = False


def _selects_front_doors(each: Placed) -> bool:
    chosen = at(each.body, "spec", "selector", "matchLabels")
    return each.namespace == labels.NAMESPACE_INGRESS and (not chosen or chosen == {"istio": FRONT_DOOR})


def _demands(each: Placed, tokens: bool) -> bool:
    action = at(each.body, "spec", "action") or "ALLOW"
    if action == "CUSTOM":
        return True
    sources = [source.get("source") for rule in mappings(at(each.body, "spec", "rules")) for source in mappings(rule.get("from"))]
    if action == "DENY":
        return tokens and any("*" in items(at(source, "notRequestPrincipals")) for source in sources)
    return tokens and bool(sources) and all(items(at(source, "requestPrincipals")) for source in sources)


def check(stack: Stack) -> Iterator[Finding]:
    tokens = any(_selects_front_doors(each) and goes_everywhere(stack, each) for each in stack.of_kind("RequestAuthentication"))
    demanding = [each for each in stack.of_kind("AuthorizationPolicy") if _selects_front_doors(each) and _demands(each, tokens)]
    if not any(goes_everywhere(stack, each) for each in demanding):
        without = "; a RequestAuthentication alone lets requests without a token pass" if tokens else ""
        yield Finding(says=f"no AuthorizationPolicy that demands an identity goes to the front doors of every member{without}")
