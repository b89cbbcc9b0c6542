"""KServe on a member: its CRDs, configuration, webhooks and controller manager as a host process.

Runtimes and InferenceServices are not declared here; they come from the hub. No LLMInferenceService controller either:
the fleet serves InferenceServices in Standard mode.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kube.client import ApiError, Kube
from local import karmada, manifests, pki
from local.host_cluster import HostCluster
from local.units import HttpReady, Unit
from specs.control_planes import kserve as settings
from specs.control_planes.kserve import CONFIG, MANAGER, NAMESPACE
from toolchain import tools
from toolchain.pins import PINS

UNIT = "kserve"

Object = dict[str, Any]


class KServeSettings(BaseModel):
    """What can be chosen about KServe on a local member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crds: Literal["minimal", "full"] = "minimal"
    """KServe ships its CRDs twice. The full schemas cost every local API server 200 MB and ten seconds of CPU at start. With
    the minimal ones KServe's webhooks check services as before, but a misspelt field is ignored, not refused; the schema
    tests hold every manifest against the full ones."""


def apply(spec: Object) -> Object:
    """Makes KServe answer on the member `spec["cluster"]`; again and again with the same result.

    Returns {"version"}. Raises ApiError, Unreachable, TimeoutError, or UnitError that names the unit and its log.
    """
    choices = KServeSettings.model_validate(spec.get("settings") or {})
    member = HostCluster(spec["cluster"])
    cert = pki.serving_certificate(member, UNIT, [])
    with Kube.from_kubeconfig(member.kubeconfig, timeout=60) as kube:
        print(f"KServe's CRDs on `{member.name}`", file=sys.stderr, flush=True)
        # Before the manager starts: it exits when a kind it watches is missing. (The supervisor would start it again.)
        manifests.apply_crds(kube, karmada.kserve_crds(minimal=choices.crds == "minimal"))
        manifests.apply_all(kube, [manifests.namespace(NAMESPACE, {"control-plane": MANAGER}), configuration()])
        member.put_unit(unit(member, cert))
        member.wait_ready(UNIT, 90)
        # Only once the webhooks answer: they fail closed. RBAC is left out, as the manager runs with the admin
        # kubeconfig of its own cluster.
        manifests.apply_all(kube, webhooks(member, cert.ca_pem))
        kube.wait(lambda: _webhook_answers(kube), 30, f"KServe's webhook on `{member.name}`")
        manifests.apply_all(kube, _pinned(manifests.read(_files() / "common/storagecontainer.yaml")))
    # The manager tells its version nowhere; it was built from the pinned module.
    return {"version": f"v{PINS.kserve}"}


def delete(spec: Object) -> Object:
    """Stops the manager. While the cluster answers, its webhooks go too: without the manager they refuse every pod."""
    member = HostCluster(spec["cluster"])
    if not member.exists():
        return {}
    if member.alive():
        with Kube.from_kubeconfig(member.kubeconfig) as kube:
            for item in manifests.read(tools.share("kserve") / "config/webhook/manifests.yaml"):
                kube.delete(item["apiVersion"], item["kind"], item["metadata"]["name"])
    member.remove_unit(UNIT)
    return {}


def configuration() -> Object:
    """ConfigMap inferenceservice-config: the pinned release's own, with the changes the fleet needs."""
    [shipped] = _pinned(manifests.read(_files() / "common/configmap.yaml"))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG, "namespace": NAMESPACE}, "data": settings.configuration(shipped["data"])}


def _pinned(objects: list[Object]) -> list[Object]:
    """The chart's files name images by `:latest`, which Helm would replace by the release."""
    return json.loads(json.dumps(objects).replace(":latest", f":v{PINS.kserve}"))


def _files() -> Path:
    return tools.share("kserve") / "charts/kserve-resources/files"


def webhooks(member: HostCluster, ca: bytes) -> list[Object]:
    path = tools.share("kserve") / "config/webhook/manifests.yaml"
    return manifests.point_webhooks_at(manifests.read(path), f"https://127.0.0.1:{member.port('kserve-webhook')}", ca)


def unit(member: HostCluster, cert: pki.ServingCertificate) -> Unit:
    # The manager has no flag for its certificate: it reads $TMPDIR/k8s-webhook-server/serving-certs.
    folder = member.dir / "tmp" / UNIT / "k8s-webhook-server" / "serving-certs"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cert.cert, folder / "tls.crt")
    shutil.copyfile(cert.key, folder / "tls.key")
    (folder / "tls.key").chmod(0o600)
    config = manifests.digest(configuration())
    return Unit(
        name=UNIT,
        gives_way=True,
        argv=[
            str(tools.path("kserve-manager")),
            f"--kubeconfig={member.kubeconfig}",
            f"--webhook-port={member.port('kserve-webhook')}",
            f"--metrics-addr=127.0.0.1:{member.port('kserve-metrics')}",
            f"--health-probe-addr=127.0.0.1:{member.port('kserve-health')}",
            "--zap-log-level=info",
        ],
        # Part of the configuration is read at start only, so a change of it restarts the manager.
        env={"POD_NAMESPACE": NAMESPACE, "FLEET_KSERVE_CONFIG": config, **karmada.LEAN},
        after=["kube-apiserver"],
        ready=HttpReady(url=f"http://127.0.0.1:{member.port('kserve-health')}/readyz"),
    )


def _webhook_answers(kube: Kube) -> bool:
    """A dry run that the defaulter and the validator see; the runtime it names need not exist for that."""
    model = {"modelFormat": {"name": "vLLM"}, "runtime": "probe", "storageUri": "pvc://probe/probe"}
    probe = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "inference-fleet-probe", "namespace": "default"},
        "spec": {"predictor": {"model": model}},
    }
    try:
        kube.create(probe, dry_run=True)
    except ApiError as error:
        # A refusal by the validator is an answer too; a webhook that does not answer is an InternalError.
        return error.reason != "InternalError"
    return True
