"""What the hub propagates to members: the one registry of kinds and namespaces.

Plain data. From it follow Karmada's policies (components/federation), what a join waits for and the rights that Karmada gets
on a member (federation/), and what may be removed there as left behind. Add a kind here before anything declares it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from specs.callers import JwtAuthenticationSpec
from specs.fleet import FleetEntry, FleetSpec
from specs.labels import LABEL_PART_OF, NAMESPACE_INGRESS, NAMESPACE_MODELS, PART_OF

# Labels of every object that Karmada put on a member for this fleet.
MANAGED = f"karmada.io/managed=true,{LABEL_PART_OF}={PART_OF}"

# Declared once on the hub and propagated; Karmada creates none of them by itself, and keeps them where a member leaves.
NAMESPACES = (NAMESPACE_MODELS, NAMESPACE_INGRESS)

Sent = Literal["model", "shared", "dependency", "namespace"]
"""What carries objects of a kind to the members: the PropagationPolicy of a model, the policy that selects LABEL_PROPAGATE, an
InferenceService that names them (components/federation/lua/get_dependencies.lua), or the policy of namespaces."""


Fleet = FleetEntry | FleetSpec


def _always(_: Fleet) -> bool:
    return True


def _models(spec: Fleet) -> bool:
    return bool(spec.models)


def _tokens(spec: Fleet) -> bool:
    return isinstance(spec.front_doors.authentication, JwtAuthenticationSpec)


def _never(_: Fleet) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object that the hub sends."""

    api_version: str
    kind: str
    resource: str
    """Its plural, as RBAC and URLs have it."""
    namespaces: tuple[str, ...] = ()
    """Where the hub sends objects of it, empty for a kind without namespaces."""
    sent: tuple[Sent, ...]
    served_by: str = "Kubernetes"
    """What a member must run to serve the kind."""
    declared: Callable[[Fleet], bool] = _always
    """Whether a fleet declares an object of this kind on the hub."""
    readable: bool = True
    """Whether Karmada may read all objects of this kind on a member, which it needs to propagate one: it watches a kind in all
    namespaces."""

    @property
    def group(self) -> str:
        """The API group, empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def selector(self) -> dict[str, str]:
        """As resource selectors of policies have it."""
        return {"apiVersion": self.api_version, "kind": self.kind}

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


def _istio(api_version: str, kind: str, resource: str, namespace: str, declared: Callable[[Fleet], bool] = _always) -> Kind:
    return Kind(api_version=api_version, kind=kind, resource=resource, namespaces=(namespace,), sent=("shared",), served_by="Istio", declared=declared)


def _dependency(kind: str, resource: str, *, readable: bool = True) -> Kind:
    return Kind(api_version="v1", kind=kind, resource=resource, namespaces=_MODELS, sent=("dependency",), declared=_never, readable=readable)


_NETWORKING, _FILTERS, _SECURITY = "networking.istio.io/v1", "networking.istio.io/v1alpha3", "security.istio.io/v1"

_MODELS = (NAMESPACE_MODELS,)

KINDS = (
    Kind(api_version="v1", kind="Namespace", resource="namespaces", sent=("namespace",)),
    # A member with this kind missing has no use for the hub, whatever is declared today.
    Kind(
        api_version="serving.kserve.io/v1beta1", kind="InferenceService", resource="inferenceservices", namespaces=_MODELS, sent=("model",), served_by="KServe"
    ),
    Kind(api_version="v1", kind="ConfigMap", resource="configmaps", namespaces=_MODELS, sent=("shared", "dependency")),
    Kind(
        api_version="serving.kserve.io/v1alpha1",
        kind="ClusterServingRuntime",
        resource="clusterservingruntimes",
        sent=("shared",),
        served_by="KServe",
    ),
    _istio(_NETWORKING, "Gateway", "gateways", NAMESPACE_INGRESS),
    _istio(_NETWORKING, "ServiceEntry", "serviceentries", NAMESPACE_MODELS, lambda spec: _models(spec) or spec.failover.streams.relay),
    _istio(_NETWORKING, "DestinationRule", "destinationrules", NAMESPACE_MODELS),
    _istio(_NETWORKING, "VirtualService", "virtualservices", NAMESPACE_MODELS, _models),
    _istio(_FILTERS, "EnvoyFilter", "envoyfilters", NAMESPACE_INGRESS),
    # Without these two a front door would be open to everyone.
    _istio(_SECURITY, "RequestAuthentication", "requestauthentications", NAMESPACE_INGRESS, _tokens),
    _istio(_SECURITY, "AuthorizationPolicy", "authorizationpolicies", NAMESPACE_INGRESS, lambda spec: spec.front_doors.authentication is not None),
    Kind(api_version="networking.k8s.io/v1", kind="NetworkPolicy", resource="networkpolicies", namespaces=_MODELS, sent=("shared",)),
    # What an InferenceService may name. The program declares none of them; Karmada sends those that somebody puts on the hub.
    _dependency("PersistentVolumeClaim", "persistentvolumeclaims"),
    _dependency("ServiceAccount", "serviceaccounts"),
    # No stack file can name one, and to read all Secrets of a cluster is to own it: credentials of stores stay on the member.
    _dependency("Secret", "secrets", readable=False),
)

NAMESPACE, INFERENCE_SERVICE = KINDS[0], KINDS[1]


def sent(*ways: Sent) -> tuple[Kind, ...]:
    """Kinds that travel in one of these ways."""
    return tuple(each for each in KINDS if set(ways) & set(each.sent))


def required_kinds(spec: Fleet) -> tuple[Kind, ...]:
    """What every member of this fleet must serve: the kinds of all objects that the fleet declares on the hub for members.

    Karmada's scheduler passes over a cluster without the kind, without an error anywhere.
    """
    return tuple(each for each in KINDS if each.declared(spec))


def removable_kinds() -> tuple[str, ...]:
    """`apiVersion/Kind` of what may be removed from a member once nothing on the hub stands for it. The hub alone declares these."""
    return tuple(str(each) for each in sent("model", "shared"))


def of(references: Iterable[str]) -> tuple[Kind, ...]:
    """Kinds by `apiVersion/Kind`. Raises ValueError for one that is not in the registry."""
    known = {str(each): each for each in KINDS}
    asked = list(references)
    unknown = [each for each in asked if each not in known]
    if unknown:
        raise ValueError(f"kinds: not in the registry of propagated kinds, got: `{', '.join(unknown)}`")
    return tuple(known[each] for each in asked)
