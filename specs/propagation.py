"""What the hub propagates to the members: the one registry of kinds."""

from specs import labels

INFERENCE_SERVICE = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}

# What every member holds alike, found by LABEL_PROPAGATE.
SHARED_KINDS = (
    ("v1", "ConfigMap"),
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"),
    ("networking.istio.io/v1", "Gateway"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)

# Labels that every object has which Karmada put on a member for this fleet.
MANAGED = f"karmada.io/managed=true,{labels.LABEL_PART_OF}={labels.PART_OF}"
# All of them, as `apiVersion/Kind`, namespaces apart.
REQUIRED_KINDS = tuple(f"{api_version}/{kind}" for api_version, kind in ((INFERENCE_SERVICE["apiVersion"], INFERENCE_SERVICE["kind"]), *SHARED_KINDS))


def resources() -> list[tuple[str, str]]:
    """(API group, plural) of all propagated kinds, as RBAC names them."""
    return [(api_version.rpartition("/")[0], _plural(kind)) for api_version, kind in (each.rsplit("/", 1) for each in REQUIRED_KINDS)]


def _plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") and name[-2] not in "aeiou" else f"{name}s"
