"""istiod on a member, as a host process. Gateways (the Envoys) are gateways.py; their routes come from the hub.

No sidecars, no CA, no webhooks, no Gateway API: the two gateways of a cluster speak plain HTTP on loopback. What a
cluster that is not on this machine needs instead is its own installation of Istio.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from kube.client import Kube
from local import karmada, manifests
from local.host_cluster import HostCluster
from local.units import HttpReady, Unit
from specs.control_planes.istio import HOST_PROCESS_ENVIRONMENT, HOST_PROCESS_MESH, NAMESPACE
from toolchain import tools

UNIT = "istiod"
LOOPBACK_POLICY = "inference-fleet-gateways-on-loopback"

Object = dict[str, Any]


def apply(spec: Object) -> Object:
    """Makes istiod answer on the member `spec["cluster"]`; again and again with the same result.

    Returns {"version"}. Raises ApiError, Unreachable, TimeoutError, or UnitError that names the unit and its log.
    """
    member = HostCluster(spec["cluster"])
    with Kube.from_kubeconfig(member.kubeconfig, timeout=60) as kube:
        print(f"Istio's CRDs on `{member.name}`", file=sys.stderr, flush=True)
        # Before istiod starts: it watches only the kinds that it finds.
        manifests.apply_crds(kube, karmada.istio_crds())
        # The namespace of the Gateways comes with them from the hub: made here, Karmada would refuse to manage it.
        manifests.apply_all(kube, [manifests.namespace(NAMESPACE), *loopback_policy()])
    member.put_unit(unit(member))
    member.wait_ready(UNIT, 90)
    # "<version>-<revision>-<state of the working tree>"; the last two are unknown to a build from the module proxy.
    said = karmada.ask(f"http://127.0.0.1:{member.port('istiod-metrics')}/version")
    return {"version": said.removesuffix("-unknown-unknown")}


def delete(spec: Object) -> Object:
    """Stops istiod. The gateways keep their last configuration."""
    member = HostCluster(spec["cluster"])
    if member.exists():
        member.remove_unit(UNIT)
    return {}


def loopback_policy() -> list[Object]:
    """Refuses a Gateway whose servers do not bind to a loopback address.

    A Gateway without `bind` opens its port on every interface of this machine. The local address comes by an override
    of the hub; should the Gateway arrive before its override does, the API server refuses it and Karmada tries again.
    """
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": LOOPBACK_POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["gateways"]},
                ],
            },
            "validations": [
                {
                    "expression": "object.spec.servers.all(server, has(server.bind) && server.bind.startsWith('127.'))",
                    "message": "on a local cluster every server of a Gateway must bind to a loopback address (127.0.0.1)",
                },
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": LOOPBACK_POLICY},
        "spec": {"policyName": LOOPBACK_POLICY, "validationActions": ["Deny"]},
    }
    return [policy, binding]


def unit(member: HostCluster) -> Unit:
    mesh = Path(member.dir) / "istio-mesh.yaml"
    mesh.write_text(yaml.safe_dump(HOST_PROCESS_MESH), encoding="utf-8")
    return Unit(
        name=UNIT,
        gives_way=True,
        argv=[
            str(tools.path("pilot-discovery")),
            "discovery",
            f"--kubeconfig={member.kubeconfig}",
            f"--clusterID={member.name}",
            f"--meshConfig={mesh}",
            "--domain=cluster.local",
            f"--grpcAddr=127.0.0.1:{member.port('istiod-xds')}",
            f"--httpAddr=127.0.0.1:{member.port('istiod-http')}",
            f"--monitoringAddr=127.0.0.1:{member.port('istiod-metrics')}",
            # With 0 it would open a random port.
            f"--ctrlz_port={member.port('istiod-ctrlz')}",
            "--ctrlz_address=127.0.0.1",
            "--httpsAddr=",
            "--secureGRPCAddr=",
            "--profile=false",
            "--log_output_level=default:warn",
        ],
        env={
            "POD_NAME": UNIT,
            "POD_NAMESPACE": NAMESPACE,
            "CLUSTER_ID": member.name,
            "REVISION": "default",
            **HOST_PROCESS_ENVIRONMENT,
            **karmada.LEAN,
        },
        after=["kube-apiserver"],
        ready=HttpReady(url=f"http://127.0.0.1:{member.port('istiod-http')}/ready"),
    )
