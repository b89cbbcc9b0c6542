"""What the control planes of local clusters are given: flags, webhooks, configuration. Nothing is started."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import gateways, istio, karmada, kserve, manifests, pki
from local.failback import failback_unit
from local.host_cluster import HostCluster
from local.units import Unit
from specs.control_planes import karmada as settings
from specs.failover import CapacityFailoverSpec
from toolchain import paths, tools

CA = b"-----BEGIN CERTIFICATE-----\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostCluster:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    made = HostCluster("us-east")
    made.dir.mkdir(parents=True)
    return made


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units can be made without any tool at hand."""
    monkeypatch.setattr(tools, "path", lambda name: Path("/tools") / name)


def flags(unit: Unit) -> dict[str, str]:
    pairs = [part.lstrip("-").partition("=") for part in unit.argv[1:] if part.startswith("--")]
    return {name: value for name, _, value in pairs}


FLAGS = settings.flags(CapacityFailoverSpec())


def karmada_units(cluster: HostCluster, crds: str = "x") -> dict[str, Unit]:
    cert = pki.ServingCertificate(cluster.dir, cluster.dir / "tls.crt", cluster.dir / "tls.key", CA)
    return {unit.name: unit for unit in karmada.units(cluster, FLAGS, cert, crds)}


def test_a_webhook_keeps_its_path_whatever_form_its_address_had() -> None:
    hooks: list[dict[str, Any]] = [{"name": "a", "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/mutate-a"}}}]
    hooks.append({"name": "b", "clientConfig": {"url": "https://s.n.svc:443/validate-b"}})
    configuration = {"kind": "X", "metadata": {"name": "c", "creationTimestamp": None, "annotations": {"cert-manager": "x"}}, "webhooks": hooks}
    [pointed] = manifests.point_webhooks_at([configuration], "https://127.0.0.1:9", CA)
    bundle = base64.b64encode(CA).decode()
    assert [hook["clientConfig"] for hook in pointed["webhooks"]] == [
        {"url": "https://127.0.0.1:9/mutate-a", "caBundle": bundle},
        {"url": "https://127.0.0.1:9/validate-b", "caBundle": bundle},
    ]
    assert pointed["metadata"] == {"name": "c", "labels": {}}


def test_every_webhook_of_karmada_and_kserve_is_called_on_loopback(cluster: HostCluster) -> None:
    for configurations in (karmada.webhooks(cluster, CA), kserve.webhooks(cluster, CA)):
        urls = [hook["clientConfig"]["url"] for item in configurations for hook in item["webhooks"]]
        assert urls
        assert all(url.startswith("https://127.0.0.1:") for url in urls)
        assert all(hook["clientConfig"]["caBundle"] for item in configurations for hook in item["webhooks"])


def test_the_hub_holds_the_kinds_that_it_propagates_and_converts_bindings_on_loopback(cluster: HostCluster) -> None:
    crds = {crd["metadata"]["name"]: crd for crd in karmada.hub_crds(cluster, CA)}
    assert {"works.work.karmada.io", "inferenceservices.serving.kserve.io", "clusterservingruntimes.serving.kserve.io"} <= set(crds)
    assert {f"{plural}.networking.istio.io" for plural in ("gateways", "serviceentries", "destinationrules", "virtualservices")} <= set(crds)
    for name in ("resourcebindings.work.karmada.io", "clusterresourcebindings.work.karmada.io"):
        webhook = crds[name]["spec"]["conversion"]["webhook"]
        assert webhook["clientConfig"]["url"] == f"https://127.0.0.1:{cluster.port(karmada.WEBHOOK)}/convert"
        assert webhook["conversionReviewVersions"] == ["v1"]


def test_both_crd_charts_of_kserve_hold_the_same_kinds() -> None:
    def names(*, minimal: bool) -> list[str]:
        return sorted(crd["metadata"]["name"] for crd in karmada.kserve_crds(minimal=minimal))

    assert names(minimal=True) == names(minimal=False)
    assert "clusterstoragecontainers.serving.kserve.io" in names(minimal=True)


@pytest.mark.usefixtures("anywhere")
def test_the_switches_of_cluster_failover_are_on(cluster: HostCluster) -> None:
    units = karmada_units(cluster)
    controllers = flags(units[karmada.CONTROLLERS])
    assert controllers["feature-gates"] == "Failover=true"
    assert controllers["enable-no-execute-taint-eviction"] == "true"
    assert flags(units[karmada.WEBHOOK])["allow-no-execute-taint-policy"] == "true"


@pytest.mark.parametrize("name", karmada.UNITS)
def test_karmada_still_has_every_flag_that_it_is_given(name: str, cluster: HostCluster) -> None:
    unit = karmada_units(cluster)[name]
    shown = subprocess.run([unit.argv[0], "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", shown, re.MULTILINE))
    assert set(flags(unit)) <= known, "see docs/CHANGELOG of the release"


@pytest.mark.usefixtures("anywhere")
def test_every_process_of_karmada_gets_all_its_flags(cluster: HostCluster) -> None:
    units = karmada_units(cluster)
    for component, given in FLAGS.items():
        assert given.items() <= flags(units[component]).items()


@pytest.mark.usefixtures("anywhere")
def test_settings_of_another_release_are_refused(cluster: HostCluster) -> None:
    with pytest.raises(ValueError, match=r"settings must hold the flags of karmada-controller-manager.*got: `nothing`\n  hint: make up"):
        karmada.apply({"cluster": cluster.name, "settings": {"clusterFailureThreshold": 30}})


@pytest.mark.usefixtures("anywhere")
def test_new_kinds_on_the_hub_restart_the_controllers_and_nothing_else(cluster: HostCluster) -> None:
    before, after = karmada_units(cluster, crds="a"), karmada_units(cluster, crds="b")
    assert [name for name in before if before[name] != after[name]] == [karmada.CONTROLLERS]


@pytest.mark.usefixtures("anywhere")
def test_every_address_given_to_a_process_is_loopback(cluster: HostCluster) -> None:
    cert = cluster.dir / "pki"
    cert.mkdir(parents=True)
    for name in ("tls.crt", "tls.key"):
        (cert / name).write_text("")
    units = [
        *karmada_units(cluster).values(),
        kserve.unit(cluster, pki.ServingCertificate(cert, cert / "tls.crt", cert / "tls.key", CA)),
        istio.unit(cluster),
        failback_unit(cluster, {}, []),
    ]
    for unit in units:
        for name, value in flags(unit).items():
            if name.lower().endswith(("addr", "address")):
                assert value.startswith("127.0.0.1") or not value, f"{unit.name}: --{name}={value}"


def test_kserve_copies_no_stamp_of_karmada_into_pod_templates() -> None:
    data = kserve.configuration()["data"]
    disallowed = json.loads(data["inferenceService"])["serviceAnnotationDisallowedList"]
    assert "resourcetemplate.karmada.io/generation" in disallowed
    assert all(key.partition("/")[0].endswith("karmada.io") for key in disallowed)


def test_kserve_is_configured_by_its_own_release_with_the_fleet_s_changes() -> None:
    data = kserve.configuration()["data"]
    sections = {key: json.loads(value) for key, value in data.items()}
    assert sections["deploy"] == {"defaultDeploymentMode": "Standard"}
    assert sections["ingress"]["disableIngressCreation"] is True
    assert sections["ingress"]["ingressGateway"], "the manager exits without it"
    assert sections["service"] == {"serviceClusterIPNone": False}
    assert sections["storageInitializer"]["image"].endswith(f":v{kserve.PINS.kserve}")
    assert sections["storageInitializer"]["ociModelMode"] == "native", "the node agent cannot run a modelcar"
    assert ":latest" not in json.dumps(data)


def test_a_gateway_has_no_listener_of_its_own_and_says_where_it_is(cluster: HostCluster) -> None:
    config = gateways.bootstrap(cluster, gateways.FRONT_DOOR, "us-east", "us-east-1")
    assert "listeners" not in config["static_resources"]
    assert config["node"]["locality"] == {"region": "us-east", "zone": "us-east-1"}
    assert config["node"]["metadata"]["LABELS"] == {"istio": "front-door"}
    assert config["node"]["id"].startswith("router~127.0.0.1~")
    sockets = [value for key, value in _walk(config) if key == "socket_address"]
    assert len(sockets) == 2
    assert {socket["address"] for socket in sockets} == {"127.0.0.1"}


def _walk(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [pair for key, value in node.items() for pair in ((key, value), *_walk(value))]
    return [pair for value in node for pair in _walk(value)] if isinstance(node, list) else []


def test_addresses_of_gateways_never_change(cluster: HostCluster) -> None:
    first = gateways.addresses(cluster)
    assert first == gateways.addresses(HostCluster("us-east"))
    assert first["frontDoor"]["url"] == f"http://127.0.0.1:{first['frontDoor']['port']}"
    assert first["frontDoor"]["port"] != first["regionalGateway"]["port"]


def test_the_mesh_configuration_expects_no_certificates(cluster: HostCluster, anywhere: None) -> None:
    mesh = Path(flags(istio.unit(cluster))["meshConfig"])
    assert yaml.safe_load(mesh.read_text())["enableAutoMtls"] is False


def test_deleting_from_a_cluster_that_is_not_there_succeeds(cluster: HostCluster) -> None:
    for module in (karmada, kserve, istio, gateways):
        assert module.delete({"cluster": cluster.name}) == {}
