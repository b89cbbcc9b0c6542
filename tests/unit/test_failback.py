"""The failback controller's Deployment and rights: what it calls is allowed, and no more than that."""

import json
import re
import subprocess
import sys
from typing import Any

import httpx
import pulumi
import pytest

from components.federation import failback
from federation import verification
from kube.client import Kube
from kube.kubeconfig import Connection
from local.failback import FAILBACK
from specs import failback_access
from tests.unit import fleets
from tests.unit.test_fleet import declare
from toolchain import golang
from toolchain.catalogue import FAILBACK_FAMILY, TOOLS

Object = dict[str, Any]
SOURCES = "\n".join(path.read_text() for path in sorted(golang.module(FAILBACK_FAMILY).rglob("*.go")) if not path.name.endswith("_test.go"))


@pytest.fixture(scope="module")
def deployment() -> Object:
    return failback.deployment("karmada-system", "registry/fleet-failback@sha256:0", "failback-kubeconfig", lease_namespace="fleet")


def test_every_flag_is_one_of_the_program(deployment: Object) -> None:
    flags = set(re.findall(r'flags\.\w+Var\(&[\w.]+, "([\w-]+)"', SOURCES))
    used = {argument.split("=")[0].removeprefix("--") for argument in deployment["spec"]["template"]["spec"]["containers"][0]["args"]}
    assert used <= flags, flags


def test_it_meets_the_restricted_pod_security_standard(deployment: Object) -> None:
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert {volume["secret"]["secretName"] for volume in pod["volumes"]} == {"failback-kubeconfig"}


def test_the_selector_finds_the_pods_and_probes_name_ports_that_are_there(deployment: Object) -> None:
    spec = deployment["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    (container,) = spec["template"]["spec"]["containers"]
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} <= {port["name"] for port in container["ports"]}
    assert spec["replicas"] == 2


def rules(manifests: list[Object], kind: str) -> list[Object]:
    (role,) = (each for each in manifests if each["kind"] == kind)
    return role["rules"]


def test_its_rights_on_the_hub_hold_no_wildcard_no_secret_and_nothing_that_it_does_not_call() -> None:
    granted = rules(failback_access.hub_access("fleet"), "ClusterRole")
    found = {(group, resource): set(rule["verbs"]) for rule in granted for group in rule["apiGroups"] for resource in rule["resources"]}
    assert not any("*" in text for key, verbs in found.items() for text in (*key, *verbs))
    assert "secrets" not in {resource for _, resource in found}
    writes = {resource: verbs - {"get", "list", "watch"} for (_, resource), verbs in found.items()}
    assert {resource: verbs for resource, verbs in writes.items() if verbs} == {
        "clusters/proxy": {"delete"},
        "resourcebindings": {"update"},
        "works": {"patch"},
        "workloadrebalancers": {"create", "delete"},
        "events": {"create", "patch"},
    }


def test_everything_is_granted_to_one_user_who_has_no_groups() -> None:
    granted = failback_access.hub_access("fleet")
    subjects = [subject for each in granted if each["kind"].endswith("Binding") for subject in each["subjects"]]
    assert len(subjects) == 2
    assert {(each["kind"], each["name"]) for each in subjects} == {("User", "fleet-failback")}


def test_the_program_is_a_tool_under_the_name_of_its_user() -> None:
    assert FAILBACK in {tool.name for tool in TOOLS}


def test_the_host_process_does_not_load_pulumi_for_it() -> None:
    subprocess.run([sys.executable, "-c", "import sys, local.failback; sys.exit('pulumi' in sys.modules)"], check=True)


def lease(**spec: Any) -> Object:
    return {"metadata": {"name": "fleet-failback", "namespace": "karmada-system"}, "spec": spec}


@pytest.mark.parametrize(
    ("status", "leases", "got"),
    [
        (200, [], "no Lease fleet-failback"),
        (200, [lease(holderIdentity="", renewTime="2099-01-01T00:00:00.000000Z")], "no Lease fleet-failback"),
        (200, [lease(holderIdentity="a", renewTime="2026-01-01T00:00:00.000000Z")], "last renewed 2026-01-01"),
        (403, [], "its lease cannot be read: denied"),
        (200, [lease(holderIdentity="a", renewTime="2099-01-01T00:00:00.000000Z")], None),
    ],
    ids=["never ran", "stopped", "died", "unknown", "runs"],
)
def test_a_hub_of_somebody_else_is_asked_whether_the_controller_runs(
    status: int, leases: list[Object], got: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/leases"):
            assert request.url.params["fieldSelector"] == "metadata.name=fleet-failback"
            return httpx.Response(status, json={"items": leases, "message": "denied"})
        return httpx.Response(200, json={"resources": [{"name": "leases", "kind": "Lease", "namespaced": True}]})

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=httpx.MockTransport(answer), base_url=options["base_url"]))
    with Kube(Connection("http://hub", None, {})) as kube:
        found = verification.failback_findings(kube)
    assert [each.required for each in found] == ([] if got is None else [False])
    assert got is None or got in found[0].got


@pytest.mark.parametrize(("kind", "told"), [("local", 0), ("existing", 1)])
def test_a_preview_warns_once_where_nobody_runs_the_controller(kind: str, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_, **__: warnings.append(text))
    driver = {"kind": kind, **({"kubeconfigSecret": "karmada"} if kind == "existing" else {})}
    declare({**fleets.small(), "hub": {"name": "control", "driver": driver}}, preview=True, control="apiVersion: v1\nkind: Config\n")
    assert len([each for each in warnings if each.startswith("hub `control`: this program does not run the failback controller")]) == told


def printed(*arguments: str) -> list[Object]:
    done = subprocess.run([sys.executable, "-m", failback.__name__, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["items"]


def test_what_has_to_be_applied_by_hand_is_printed() -> None:
    assert printed("hub", "--namespace", "fleet") == failback_access.hub_access("fleet")
    (made,) = printed("host", "--image", "registry/fleet-failback@sha256:0")
    assert made == failback.deployment("karmada-system", "registry/fleet-failback@sha256:0", "fleet-failback-kubeconfig", lease_namespace="karmada-system")
    text = (fleets.REPO / "docs" / "failback.md").read_text(encoding="utf-8")
    for command in (f"python -m {failback.__name__} hub", f"python -m {failback.__name__} host --image", "secret generic fleet-failback-kubeconfig"):
        assert command in text
