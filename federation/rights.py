"""Who may do what on a member: Karmada and the failback controller.

Plain data and the RBAC objects that follow from it. docs/member-rights.md shows the same tables. What is propagated is
specs/propagation.py; the accounts are made by membership.py.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from specs import propagation
from specs.failback_access import NAME as FAILBACK_USER
from specs.naming import CLUSTER_NAMESPACE
from specs.propagation import NAMESPACE, NAMESPACES, Kind

RBAC_GROUP = "rbac.authorization.k8s.io"
RBAC_API = f"{RBAC_GROUP}/v1"

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Right:
    """One rule of RBAC, and who needs it."""

    verbs: tuple[str, ...]
    group: str = ""
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    needed_by: str

    def rule(self) -> Object:
        """As a ClusterRole or a Role has it."""
        if self.urls:
            return {"nonResourceURLs": list(self.urls), "verbs": list(self.verbs)}
        named = {"resourceNames": list(self.names)} if self.names else {}
        return {"apiGroups": [self.group], "resources": list(self.resources), **named, "verbs": list(self.verbs)}


_READ, _WRITE = ("get", "list", "watch"), ("create", "update", "delete")

_PROPAGATED = tuple(each for each in propagation.KINDS if each.readable)


def _of(kinds: Sequence[Kind], verbs: tuple[str, ...], needed_by: str) -> tuple[Right, ...]:
    """One right for each API group."""
    groups = list(dict.fromkeys(each.group for each in kinds))
    return tuple(
        Right(verbs=verbs, group=group, resources=tuple(sorted(each.resource for each in kinds if each.group == group)), needed_by=needed_by)
        for group in groups
    )


def karmada_everywhere() -> tuple[Right, ...]:
    """What Karmada may do in the whole member."""
    global_kinds = [each for each in _PROPAGATED if not each.namespaces and each is not NAMESPACE]
    return (
        Right(
            verbs=("get",),
            urls=("/readyz", "/healthz", "/version", "/api", "/api/*", "/apis", "/apis/*"),
            needed_by="cluster-status-controller: health, version and served kinds",
        ),
        # It has a switch, --enable-cluster-resource-modeling, and fails a cluster's status where it is on and may not read.
        Right(verbs=("list", "watch"), resources=("nodes", "pods"), needed_by="cluster-status-controller: capacity"),
        *_of(_PROPAGATED, _READ, "execution-controller, work-status-controller: state and drift of what was sent; Karmada watches a kind in all namespaces"),
        *_of(global_kinds, _WRITE, "execution-controller: kinds without namespaces"),
        # The join makes them; with the right to create, Karmada could make any. They are never deleted.
        Right(verbs=("update",), resources=(NAMESPACE.resource,), names=NAMESPACES, needed_by="execution-controller: labels of the fleet's namespaces"),
    )


def karmada_in(namespace: str) -> tuple[Right, ...]:
    """What Karmada may do in one of the fleet's namespaces only."""
    kinds = [each for each in _PROPAGATED if namespace in each.namespaces]
    return _of(kinds, _WRITE, f"execution-controller: what the hub declares in `{namespace}`")


def failback_everywhere() -> tuple[Right, ...]:
    """What the failback controller may read on a member, and delete where the kind has no namespaces."""
    removable = propagation.of(propagation.removable_kinds())
    return (
        *_of(removable, ("list",), "failback controller: what was left behind"),
        *_of([each for each in removable if not each.namespaces], ("delete",), "failback controller: removes what was left behind"),
    )


def failback_in(namespace: str) -> tuple[Right, ...]:
    """What the failback controller may remove in one of the fleet's namespaces."""
    removable = propagation.of(propagation.removable_kinds())
    return _of([each for each in removable if namespace in each.namespaces], ("delete",), "failback controller: removes what was left behind")


# The proxy acts as one user and no group. Karmada's own rules, which its unifiedAuth controller would put there, reach to
# system:masters.
IMPERSONATOR = (
    Right(
        verbs=("impersonate",),
        resources=("users",),
        names=(FAILBACK_USER,),
        needed_by="karmada-aggregated-apiserver: the cluster proxy, for the failback controller",
    ),
)


def account(name: str) -> str:
    """Karmada's service account on the member `name`, as `karmadactl join` calls it."""
    return f"karmada-{name}"


IMPERSONATOR_ACCOUNT = "karmada-impersonator"


def grants(name: str, labels: dict[str, str]) -> list[Object]:
    """Roles and bindings on the member `name`."""
    karmada = {"kind": "ServiceAccount", "name": account(name), "namespace": CLUSTER_NAMESPACE}
    impersonator = {"kind": "ServiceAccount", "name": IMPERSONATOR_ACCOUNT, "namespace": CLUSTER_NAMESPACE}
    failback = {"apiGroup": RBAC_GROUP, "kind": "User", "name": FAILBACK_USER}
    karmada_role = f"karmada-controller-manager:{account(name)}"
    objects = [
        *_grant(karmada_role, karmada_everywhere(), karmada, labels),
        *_grant("inference-fleet:impersonator", IMPERSONATOR, impersonator, labels),
        *_grant("inference-fleet:failback", failback_everywhere(), failback, labels),
    ]
    for namespace in NAMESPACES:
        objects += _grant(karmada_role, karmada_in(namespace), karmada, labels, namespace)
        objects += _grant("inference-fleet:failback", failback_in(namespace), failback, labels, namespace)
    return objects


def _grant(role: str, rights: Sequence[Right], subject: Object, labels: dict[str, str], namespace: str = "") -> list[Object]:
    """A role and its binding: in the namespace, or in the whole cluster without one."""
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": role, **({"namespace": namespace} if namespace else {}), "labels": labels}
    return [
        {"apiVersion": RBAC_API, "kind": kind, "metadata": metadata, "rules": [each.rule() for each in rights]},
        {
            "apiVersion": RBAC_API,
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": kind, "name": role},
            "subjects": [subject],
        },
    ]


@cache
def digest() -> str:
    """Another one whenever a join grants something else. A part of what a join is given, so that an upgrade of this program grants it
    to members that joined before."""
    return hashlib.sha256(json.dumps(grants("", {}), sort_keys=True).encode()).hexdigest()[:16]


def document() -> str:
    """The tables of docs/member-rights.md."""
    sections = [
        ("Karmada, in the whole member", karmada_everywhere()),
        *((f"Karmada, in the namespace `{each}`", karmada_in(each)) for each in NAMESPACES),
        ("Karmada's cluster proxy", IMPERSONATOR),
        (f"User `{FAILBACK_USER}`, in the whole member", failback_everywhere()),
        *((f"User `{FAILBACK_USER}`, in the namespace `{each}`", failback_in(each)) for each in NAMESPACES),
    ]
    tables = ["\n".join([f"### {title}\n", "| may | what | needed by |", "|---|---|---|", *map(_row, given)]) for title, given in sections]
    return "\n\n".join(tables)


def _row(right: Right) -> str:
    group = f".{right.group}" if right.group else ""
    what = [f"`{each}`" for each in right.urls] or [f"`{each}{group}`" for each in right.resources]
    named = f", named {', '.join(f'`{each}`' for each in right.names)}" if right.names else ""
    return f"| {', '.join(right.verbs)} | {', '.join(what)}{named} | {right.needed_by} |"


if __name__ == "__main__":
    print(document())
