"""Which network traffic the pods of models need beyond the gateways."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator

from specs.base import Spec, checked, refuse
from specs.types import Port


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise refuse(f"must be a network such as `10.20.0.0/16` ({error})") from None
    return value


Cidr = Annotated[str, AfterValidator(_network)]
NamespaceName = Annotated[str, *checked(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, "must be the name of a namespace", "Kubernetes' limit")]


class ModelStoreSpec(Spec):
    """Where pods may fetch weights from."""

    cidr: Cidr
    """A network. Where it holds more than link-local addresses, these stay closed: a cloud's credentials lie there."""
    port: Port = 443


class NetworkPoliciesSpec(Spec):
    """What is allowed in the namespace of models. All else is denied, in and out."""

    monitoring_namespaces: tuple[NamespaceName, ...] = ("monitoring",)
    """Their pods may read metrics."""
    model_stores: tuple[ModelStoreSpec, ...] = (ModelStoreSpec(cidr="0.0.0.0/0"), ModelStoreSpec(cidr="::/0"))
    """Pods of models with a source `hf://` or `s3://` may connect there, and ask DNS. Images are pulled by the node."""
