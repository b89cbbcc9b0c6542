"""What Istio must be set to on every member, and what its gateways are called.

Istio's own defaults serve the fleet; what is here is what must not be set otherwise, what the gateways need, and what an istiod
without pods needs.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specs.control_planes.finding import Finding, version_finding
from specs.labels import LABEL_PART_OF, NAMESPACE_INGRESS, NAMESPACE_MODELS, PART_OF

NAMESPACE = "istio-system"

# Values of the label `istio` by which Gateway objects choose their proxies.
FRONT_DOOR = "front-door"
REGIONAL_GATEWAY = "regional-gateway"

# Port of each Gateway's listener where every gateway has an address of its own.
LISTENERS: Mapping[str, int] = {FRONT_DOOR: 80, REGIONAL_GATEWAY: 80}

OLDEST = (1, 30)
OLDEST_REASON = "the EnvoyFilters of the fleet were never tried with an older one"

MeshConfig = dict[str, Any]

# Where no SDS is served, mTLS between the gateways would keep their listeners from ever coming up.
HOST_PROCESS_MESH: MeshConfig = {"enableAutoMtls": False, "accessLogFile": ""}

# One istiod per cluster beside plain Envoys: no sidecars, no CA, no webhooks.
HOST_PROCESS_ENVIRONMENT: Mapping[str, str] = {
    # Upstream Envoy has none of Istio's own filters and rejects a configuration that names them.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_DISABLE_MX_ALPN": "true",
    "PILOT_ENABLE_TELEMETRY_LABEL": "false",
    "PILOT_ENDPOINT_TELEMETRY_LABEL": "false",
    # One istiod per cluster, no sidecars to inject or to sign for.
    "ENABLE_LEADER_ELECTION": "false",
    "ENABLE_CA_SERVER": "false",
    "INJECT_ENABLED": "false",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
    "PILOT_ENABLE_GATEWAY_API": "false",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of the mesh configuration that must not be set otherwise."""

    key: str
    value: Any
    """What is right for sure. None: that it is not set, Istio's default."""
    accepts: Callable[[Any], bool]
    """Whether what was found, None where it is not set, is right."""
    must: str
    why: str
    """What breaks where it is otherwise; a sentence without its full stop."""


_SEEN = "otherwise gateways in `istio-ingress` do not see the routes in `models`, and answer 404"


def _exported(found: Any) -> bool:
    return not found or "*" in found


def _discovered(found: Any) -> bool:
    """Whether a list of label selectors, any of which may match, matches both namespaces as the hub labels them."""
    namespaces = [{"kubernetes.io/metadata.name": name, LABEL_PART_OF: PART_OF} for name in (NAMESPACE_MODELS, NAMESPACE_INGRESS)]
    return not found or all(any(_matches(selector, each) for selector in found) for each in namespaces)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or ():
        value, values = labels.get(each["key"]), each.get("values") or ()
        fits = {"In": value in values, "NotIn": value not in values, "Exists": value is not None, "DoesNotExist": value is None}
        if not fits.get(each["operator"], False):
            return False
    return True


SETTINGS: tuple[Setting, ...] = (
    *(
        Setting(key=key, value=None, accepts=_exported, must="must contain `*` or be left out", why=_SEEN)
        for key in ("defaultServiceExportTo", "defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo")
    ),
    Setting(
        key="discoverySelectors",
        value=[{"matchLabels": {LABEL_PART_OF: PART_OF}}],
        accepts=_discovered,
        must=f"must be left out, or match namespaces with the label {LABEL_PART_OF}={PART_OF}",
        why=f"istiod looks at nothing in `{NAMESPACE_MODELS}` and `{NAMESPACE_INGRESS}`",
    ),
)


def chart_values() -> dict[str, Any]:
    """Values of the chart istiod: none, its defaults are right. An external authorizer adds meshConfig.extensionProviders."""
    return {}


def gateway_chart_values(gateway: str) -> dict[str, Any]:
    """Values of the chart gateway for the front door or the regional gateway, in namespace istio-ingress."""
    port = LISTENERS[gateway]
    ports = [
        {"name": "status-port", "port": 15021, "protocol": "TCP", "targetPort": 15021},
        {"name": "http2", "port": port, "protocol": "TCP", "targetPort": port},
    ]
    return {"name": gateway, "labels": {"istio": gateway}, "service": {"ports": ports}}


def install_gateway(gateway: str) -> str:
    """The command that installs a gateway by Istio's own chart."""
    return f"helm upgrade --install {gateway} istio/gateway -n {NAMESPACE_INGRESS} --create-namespace --set labels.istio={gateway}"


# Verification of an Istio that somebody else installed


def mesh_findings(mesh: MeshConfig | None, provider: str, config_map: str) -> list[Finding]:
    """What the mesh configuration sets otherwise than it must. `provider`: the extension provider that authenticates callers, or "".

    `mesh` is None where istiod has no ConfigMap, and runs with its defaults.
    """
    found = mesh or {}
    wrong = [
        Finding(
            setting=f"Istio's ConfigMap {NAMESPACE}/{config_map}, mesh, {each.key}",
            wrong=f"{each.must}: {each.why}",
            got=json.dumps(found[each.key]),
            hint=_edit(config_map, each.key, "remove it" if each.value is None else f"add {json.dumps(each.value)}"),
        )
        for each in SETTINGS
        if each.key in found and not each.accepts(found[each.key])
    ]
    names = [each.get("name") for each in found.get("extensionProviders") or ()]
    if provider and provider not in names:
        wrong.append(
            Finding(
                setting=f"Istio's ConfigMap {NAMESPACE}/{config_map}, mesh, extensionProviders",
                wrong=f"must have the provider `{provider}`, which frontDoors.authentication names: without it every request is refused",
                got=", ".join(map(str, names)) or "none",
                hint=_edit(config_map, "extensionProviders", f"add one with the name {provider}"),
            )
        )
    return wrong


def _edit(config_map: str, key: str, change: str) -> str:
    return f"kubectl -n {NAMESPACE} edit configmap {config_map}   # in data.mesh, {key}: {change}\n        with Helm: meshConfig.{key} of the chart istiod"


def istiod_findings(image: str | None) -> list[Finding]:
    """The version of istiod, None where no Deployment of it is there."""
    if image is None:
        setting, wrong = f"Istio's Deployment in {NAMESPACE} with the label app=istiod", "is where the version of Istio is read, which cannot be verified"
        return [Finding(setting=setting, wrong=wrong, got="no such Deployment", hint="kubectl get deployments --all-namespaces -l app=istiod", required=False)]
    return version_finding("Istio", image, OLDEST, OLDEST_REASON)


def gateway_findings(pods: Sequence[dict[str, Any]], services: Sequence[dict[str, Any]]) -> list[Finding]:
    """What the gateways lack, from the pods and Services of istio-ingress."""
    return [each for gateway, port in LISTENERS.items() for each in _gateway(gateway, port, pods, services)]


def _gateway(gateway: str, port: int, pods: Sequence[dict[str, Any]], services: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    where = f"pods in {NAMESPACE_INGRESS} with the label istio={gateway}"
    own = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get("istio") == gateway]
    if not own:
        others = sorted({(pod["metadata"].get("labels") or {}).get("istio") or "none" for pod in pods})
        wrong = "must exist: the Gateway objects of the fleet choose their proxies by this label"
        got = f"{len(pods)} pods, label istio: {', '.join(others)}" if pods else "no pods"
        yield Finding(setting=where, wrong=wrong, got=got, hint=install_gateway(gateway))
        return
    if not any(_ready(pod) for pod in own):
        names = ", ".join(sorted(pod["metadata"]["name"] for pod in own))
        yield Finding(setting=where, wrong="one at least must be Ready", got=names, hint=f"kubectl -n {NAMESPACE_INGRESS} describe pods -l istio={gateway}")
    if any(pod["spec"].get("hostNetwork") for pod in own):
        return
    leading = [service for service in services if _selects(service, own)]
    ports = [each for service in leading for each in service["spec"].get("ports") or ()]
    if not any(port in (each["port"], each.get("targetPort", each["port"])) for each in ports):
        selector = f"Services in {NAMESPACE_INGRESS} that select istio={gateway}"
        if leading:
            name = leading[0]["metadata"]["name"]
            entry = f'{{"name":"http2","port":{port},"targetPort":{port},"protocol":"TCP"}}'
            patch = f"""kubectl -n {NAMESPACE_INGRESS} patch service {name} --type json -p '[{{"op":"add","path":"/spec/ports/-","value":{entry}}}]'"""
        else:
            patch = install_gateway(gateway)
        got = ", ".join(str(each["port"]) for each in ports) or "no such Service"
        yield Finding(setting=selector, wrong=f"one must have port {port}, where the Gateway `{gateway}` listens", got=got, hint=patch)


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions: Iterable[Mapping[str, str]] = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _selects(service: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> bool:
    selector: Mapping[str, str] = service["spec"].get("selector") or {}
    return bool(selector) and any(selector.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods)
