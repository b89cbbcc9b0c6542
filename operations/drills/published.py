"""The settings that articles publish for a failover between regions, for a drill to compare with in the same run.

One DestinationRule with locality failover and outlier detection, and a VirtualService without retries of its own, so that
Istio's default applies. Articles also set `h2UpgradePolicy: UPGRADE`; without a sidecar that fails every request to a server
that speaks HTTP/1.1 alone, as vLLM does, so it is left out. Everything else is as the fleet has it: the same doors, the same
regional gateways, the same kind of server behind them.
"""

from collections.abc import Sequence
from typing import Any

from components.mesh.gateways import FRONT_DOOR, REGIONAL_GATEWAY
from components.mesh.regions import FLEET_HOST, FLEET_PORT, Endpoint
from components.mesh.routes import HEADER_CLUSTER, HEADER_MODEL, PREDICTOR_HOST, SERVICE_PORT
from specs import labels

_ISTIO = "networking.istio.io/v1"

Object = dict[str, Any]


def objects(model: str, endpoints: Sequence[Endpoint], cluster: str, region: str) -> list[Object]:
    """What the member `cluster`, which is in `region`, holds of the model. Endpoints come in failover order."""
    return [_destination_rule(model, endpoints, region), _service_entry(model, endpoints), _front_door(model), _regional(model, cluster)]


def _metadata(name: str, model: str) -> Object:
    return labels.metadata(name, labels.NAMESPACE_MODELS, component="mesh", model=model)


def _service_entry(model: str, endpoints: Sequence[Endpoint]) -> Object:
    return {
        "apiVersion": _ISTIO,
        "kind": "ServiceEntry",
        "metadata": _metadata(model, model),
        "spec": {
            "hosts": [FLEET_HOST.format(model=model)],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": FLEET_PORT, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": each.address, "ports": {"http": each.port}, "locality": each.region} for each in endpoints],
        },
    }


def _destination_rule(model: str, endpoints: Sequence[Endpoint], region: str) -> Object:
    regions = list(dict.fromkeys(each.region for each in endpoints))
    # Each region fails over to the next, the last one to the first; a door elsewhere goes to the first.
    following = dict(zip(regions, [*regions[1:], regions[0]], strict=True)) if len(regions) > 1 else {}
    if region not in regions:
        following[region] = regions[0]
    return {
        "apiVersion": _ISTIO,
        "kind": "DestinationRule",
        "metadata": _metadata(model, model),
        "spec": {
            "host": FLEET_HOST.format(model=model),
            "trafficPolicy": {
                "connectionPool": {"http": {"maxRequestsPerConnection": 100}},
                "loadBalancer": {"localityLbSetting": {"enabled": True, "failover": [{"from": one, "to": other} for one, other in following.items()]}},
                "outlierDetection": {"consecutive5xxErrors": 3, "interval": "10s", "baseEjectionTime": "30s", "maxEjectionPercent": 50},
            },
        },
    }


def _front_door(model: str) -> Object:
    route = {"destination": {"host": FLEET_HOST.format(model=model), "port": {"number": FLEET_PORT}}}
    return {
        "apiVersion": _ISTIO,
        "kind": "VirtualService",
        "metadata": _metadata(f"{model}-front-door", model),
        "spec": {
            "hosts": ["*"],
            "gateways": [f"{labels.NAMESPACE_INGRESS}/{FRONT_DOOR}"],
            "http": [{"name": "published", "match": [{"uri": {"prefix": f"/{model}/v1/"}}], "route": [route]}],
        },
    }


def _regional(model: str, cluster: str) -> Object:
    route = {"destination": {"host": PREDICTOR_HOST.format(model=model), "port": {"number": SERVICE_PORT}}}
    return {
        "apiVersion": _ISTIO,
        "kind": "VirtualService",
        "metadata": _metadata(f"{model}-regional", model),
        "spec": {
            "hosts": ["*"],
            "gateways": [f"{labels.NAMESPACE_INGRESS}/{REGIONAL_GATEWAY}"],
            "http": [
                {
                    "name": "published",
                    "match": [{"uri": {"prefix": f"/{model}/"}}],
                    "rewrite": {"uri": "/"},
                    "headers": {"response": {"set": {HEADER_CLUSTER: cluster, HEADER_MODEL: model}}},
                    "route": [route],
                }
            ],
        },
    }
