"""Types of fields that several Specs share."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from specs import naming
from specs.base import checked, dns_name

ClusterName = Annotated[str, *dns_name(naming.CLUSTER_LIMIT, "Karmada's limit for a cluster")]
Locality = Annotated[str, *checked(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, "must hold only a-z, 0-9 and `-`", "it becomes a label")]
# Codes are the team's own (EU, US, DE, …); they are compared, never interpreted.
Jurisdiction = Annotated[str, *checked(r"[A-Z][A-Z0-9-]*", 16, "must be a code in capitals such as `EU`", "it is a code, not a name")]
LatencyClass = Literal["interactive", "standard", "batch"]
# The nearest first.
LATENCY_CLASSES: tuple[LatencyClass, ...] = get_args(LatencyClass)
Port = Annotated[int, Field(ge=1, le=65535)]
Url = Annotated[str, *checked(r"https?://[^\s/]+(/[^\s]*)?", 2048, "must be a URL such as `https://llm.example.com`", "it is a URL")]

ControlPlaneName = Literal["karmada", "kserve", "istio"]

# How a control plane gets into a cluster: one class each in components/control_planes.
InstallerName = Literal["host-processes", "provided"]
