"""Roles name what they allow, and nobody is bound to cluster-admin or to everyone.

Why: a wildcard also allows what is installed next year, Secrets and impersonation included; an account that leaks should be
worth what its task needs.

Mend: name apiGroups, resources and verbs; bind a role of the task's own to one service account.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, items, mappings, text
from policies.rule import Finding

_EVERYONE = ("system:authenticated", "system:unauthenticated", "system:anonymous", "system:serviceaccounts")


def check(stack: Stack) -> Iterator[Finding]:
    for each in stack.placed("Role", "ClusterRole"):
        for place, rule in enumerate(mappings(each.body.get("rules"))):
            for field in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
                if "*" in items(rule.get(field)):
                    yield Finding(says=f"`rules[{place}].{field}` is a wildcard", on=each)
    for each in stack.placed("RoleBinding", "ClusterRoleBinding"):
        if at(each.body, "roleRef", "name") == "cluster-admin":
            yield Finding(says="binds to `cluster-admin`", on=each)
        for subject in mappings(each.body.get("subjects")):
            name = text(subject.get("name"))
            if name in _EVERYONE:
                yield Finding(says=f"binds everyone, got: `{name}`", on=each)
