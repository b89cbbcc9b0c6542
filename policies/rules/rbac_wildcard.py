"""Roles name what they allow, and nobody is bound to cluster-admin or to everyone.

Why: a wildcard also allows what is installed next year, Secrets and impersonation included; an account that leaks should be
worth what its task needs.

Fix: name apiGroups, resources and verbs, and by resourceNames what may be bound, escalated or impersonated; bind
a role of the task's own to one service account.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, items, mappings, text
from policies.rule import Finding

_EVERYONE = ("system:authenticated", "system:unauthenticated", "system:anonymous", "system:serviceaccounts")
_ADMINISTRATORS = "system:masters"
# By these verbs whoever has the role takes rights that it does not name, unless they are for named resources.
_GIVES = ("escalate", "bind", "impersonate")


def _is_wildcard(field: str, name: str) -> bool:
    # A path may end in one: `/healthz/*` names what it allows.
    return name in ("*", "/*") if field == "nonResourceURLs" else "*" in name


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.placed("Role", "ClusterRole"):
        for place, rule in enumerate(mappings(each.body.get("rules"))):
            for field in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
                if wide := [name for name in map(text, items(rule.get(field))) if _is_wildcard(field, name)]:
                    yield Finding(says=f"`rules[{place}].{field}` is a wildcard, got: `{wide[0]}`", on=each)
            given = [verb for verb in _GIVES if verb in items(rule.get("verbs"))]
            if given and not items(rule.get("resourceNames")):
                yield Finding(says=f"`rules[{place}].verbs` gives rights that nobody named, got: `{given[0]}`", on=each)
    for each in stack.placed("RoleBinding", "ClusterRoleBinding"):
        if at(each.body, "roleRef", "name") == "cluster-admin":
            yield Finding(says="binds to `cluster-admin`", on=each)
        for subject in mappings(each.body.get("subjects")):
            name = text(subject.get("name"))
            if name == _ADMINISTRATORS:
                yield Finding(says=f"binds the group of administrators, got: `{name}`", on=each)
            if name in _EVERYONE:
                yield Finding(says=f"binds everyone, got: `{name}`", on=each)
