"""The failback controller's Deployment and rights: what it calls is allowed, and no more than that."""

import re
import subprocess
import sys
from typing import Any

import pytest

from components.federation import failback
from local.failback import FAILBACK
from specs import failback_access
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
