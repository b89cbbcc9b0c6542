"""What control planes are set to, what follows from it, and what is found where a provided one is set otherwise."""

import json
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from operations import existing_clusters_document
from specs.control_planes import istio, karmada, kserve
from specs.control_planes.finding import Finding, version_of
from specs.failover import CapacityFailoverSpec
from toolchain import tools

Object = dict[str, Any]

CAPACITY = CapacityFailoverSpec.model_validate({"statusIntervalSeconds": 2, "failureThresholdSeconds": 4, "successThresholdSeconds": 4})
FLAGS = karmada.flags(CAPACITY)


def values(chart: Path) -> Object:
    return yaml.safe_load(chart.read_text(encoding="utf-8"))


def leaves(tree: Object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        found.update(leaves(cast(Object, value), (*path, key)) if isinstance(value, dict) else {(*path, key): value})
    return found


def arguments_of(hint: str, command: str) -> list[str]:
    """Of the line of a hint that starts with `command`, as a shell reads it."""
    [line] = [line.strip() for line in hint.splitlines() if line.strip().startswith(command)]
    return shlex.split(line, comments=True)


# Karmada


def test_the_flags_of_karmada_are_these() -> None:
    assert FLAGS == {
        karmada.CONTROLLERS: {
            "controllers": "*,-federatedHorizontalPodAutoscaler,-cronFederatedHorizontalPodAutoscaler,-serviceExport,-serviceImport,-endpointSlice,"
            "-endpointsliceCollect,-endpointsliceDispatch,-multiclusterservice,-remedy,-agentcsrapproving,-unifiedAuth",
            "feature-gates": "Failover=true",
            "enable-no-execute-taint-eviction": "true",
            "cluster-status-update-frequency": "2s",
            "cluster-failure-threshold": "4s",
            "cluster-success-threshold": "4s",
            "cluster-monitor-period": "1s",
            "cluster-monitor-grace-period": "20s",
            "cluster-startup-grace-period": "60s",
            "resource-eviction-rate": "10",
            "graceful-eviction-timeout": "600s",
            "rate-limiter-max-delay": "10s",
        },
        karmada.WEBHOOK: {"allow-no-execute-taint-policy": "true"},
        karmada.SCHEDULER: {"rate-limiter-max-delay": "10s"},
    }


def test_arguments_keep_the_order_of_the_flags() -> None:
    given = karmada.arguments(FLAGS, karmada.CONTROLLERS)
    assert given[1:3] == ["--feature-gates=Failover=true", "--enable-no-execute-taint-eviction=true"]
    assert len(given) == len(FLAGS[karmada.CONTROLLERS])


def test_every_value_for_karmada_s_chart_is_one_that_the_chart_has() -> None:
    chart = values(tools.share("karmada") / "charts/karmada/values.yaml")
    free = {("controllerManager", "extraCommandArgs"), ("controllerManager", "featureGates")}
    for path in leaves(karmada.chart_values(CAPACITY)):
        place: Any = chart
        for key in path[:-1]:
            place = place[key]
        assert isinstance(place, dict)
        assert path[:-1] in free or path[-1] in place, ".".join(path)
    # What of a setting the chart changes by itself.
    assert chart["controllerManager"]["featureGates"]["PropagateDeps"] is False
    assert chart["controllerManager"]["controllers"] == ""
    assert "extraCommandArgs" not in chart["webhook"]
    assert "extraCommandArgs" not in chart["scheduler"]


def test_chart_values_and_post_rendering_make_a_karmada_in_which_nothing_is_found() -> None:
    given = karmada.chart_values(CAPACITY)["controllerManager"]
    assert isinstance(given, dict)
    gates = ",".join(f"{name}={str(value).lower()}" for name, value in {"PropagateDeps": False, **given["featureGates"]}.items())
    extra = [f"--{name}={value}" for name, value in given["extraCommandArgs"].items()]
    processes: dict[karmada.Component, karmada.Process] = {
        # As templates/karmada-controller-manager.yaml writes it.
        karmada.CONTROLLERS: process(
            karmada.CONTROLLERS, "--cluster-status-update-frequency=10s", f"--controllers={given['controllers']}", f"--feature-gates={gates}", *extra
        ),
        karmada.WEBHOOK: process(karmada.WEBHOOK),
        karmada.SCHEDULER: process(karmada.SCHEDULER),
    }
    for component, flags in karmada.post_render(CAPACITY).items():
        each = processes[cast(karmada.Component, component)]
        processes[cast(karmada.Component, component)] = replace(each, command=(*each.command, *(f"--{name}={value}" for name, value in flags.items())))
    assert karmada.findings(processes, FLAGS) == []


def process(component: karmada.Component, *arguments: str) -> karmada.Process:
    image = f"docker.io/karmada/{component}:v1.18.2"
    return karmada.Process(namespace="karmada-system", deployment=component, image=image, container=0, command=(f"/bin/{component}", *arguments))


def right_processes() -> dict[karmada.Component, karmada.Process]:
    return {component: process(component, *karmada.arguments(FLAGS, component)) for component in karmada.COMPONENTS}


BROKEN_FLAGS = {
    "karmada-controller-manager --controllers": "*,-clustertaintpolicy",
    "karmada-controller-manager --feature-gates=Failover": "false",
    "karmada-controller-manager --feature-gates=PropagateDeps": "false",
    "karmada-controller-manager --enable-no-execute-taint-eviction": "false",
    "karmada-controller-manager --enable-taint-manager": "false",
    "karmada-controller-manager --cluster-status-update-frequency": "10s",
    "karmada-controller-manager --cluster-failure-threshold": "30s",
    "karmada-controller-manager --cluster-success-threshold": "30s",
    "karmada-controller-manager --resource-eviction-rate": "0.5",
    "karmada-controller-manager --graceful-eviction-timeout": "5m0s",
    "karmada-controller-manager --rate-limiter-max-delay": "1000s",
    "karmada-scheduler --rate-limiter-max-delay": "1000s",
    "karmada-controller-manager --skipped-propagating-apis": "serving.kserve.io/v1beta1;batch",
    "karmada-controller-manager --skipped-propagating-namespaces": "kube-.*,mod.*",
    "karmada-webhook --allow-no-execute-taint-policy": "false",
    "karmada-scheduler --plugins": "*,-TaintToleration",
    "karmada-scheduler --scheduler-name": "other",
}


def test_every_verified_flag_is_broken_once() -> None:
    assert {each.name for each in karmada.SETTINGS if each.verified} == set(BROKEN_FLAGS)


@pytest.mark.parametrize("name", BROKEN_FLAGS)
def test_a_flag_that_is_set_otherwise_is_the_only_finding_and_its_command_fixes_it(name: str) -> None:
    [setting] = [each for each in karmada.SETTINGS if each.name == name]
    processes = right_processes()
    before = processes[setting.component]
    processes[setting.component] = replace(before, command=(*before.command, setting.argument(BROKEN_FLAGS[name])))
    [found] = karmada.findings(processes, FLAGS)
    assert (found.setting, found.got, found.required) == (name, BROKEN_FLAGS[name], setting.required)

    command = arguments_of(found.hint, "kubectl")
    assert command[:7] == ["kubectl", "-n", "karmada-system", "patch", "deployment", setting.component, "--type"]
    processes[setting.component] = patched(processes[setting.component], json.loads(command[-1]))
    assert karmada.findings(processes, FLAGS) == []


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ("*", "*,-unifiedAuth"),
        ("*,-unifiedAuth,-remedy", "*,-unifiedAuth,-remedy"),
        ("*,-gracefulEviction", "*,-unifiedAuth"),
        (",".join([*karmada.NEEDED_CONTROLLERS, "unifiedAuth"]), ",".join(karmada.NEEDED_CONTROLLERS)),
    ],
)
def test_the_controller_that_needs_rights_on_rbac_is_taken_out(found: str, right: str) -> None:
    [setting] = [each for each in karmada.SETTINGS if each.flag == "controllers"]
    assert setting.right is not None
    assert setting.right(found) == right


def patched(process: karmada.Process, patch: list[Object]) -> karmada.Process:
    lists = {"command": list(process.command), "args": list(process.args)}
    for each in patch:
        where, _, place = each["path"].removeprefix("/spec/template/spec/containers/0/").partition("/")
        if not place:
            assert each["op"] == "add"
            assert not lists[where]
            lists[where] = each["value"]
        elif each["op"] == "add":
            assert place == "-"
            assert lists[where]
            lists[where].append(each["value"])
        else:
            lists[where][int(place)] = each["value"]
    return replace(process, command=tuple(lists["command"]), args=tuple(lists["args"]))


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (("/bin/karmada-webhook",), ("--allow-no-execute-taint-policy=false",)),
        (("/bin/karmada-webhook",), ("--v=2",)),
        (("/bin/karmada-webhook", "--allow-no-execute-taint-policy=false"), ("--v=2",)),
        (("/bin/karmada-webhook",), ()),
        ((), ("--allow-no-execute-taint-policy=false",)),
        ((), ()),
    ],
)
def test_a_flag_is_fixed_where_the_process_reads_it_last(command: tuple[str, ...], args: tuple[str, ...]) -> None:
    processes = right_processes()
    processes[karmada.WEBHOOK] = replace(processes[karmada.WEBHOOK], command=command, args=args)
    [found] = karmada.findings(processes, FLAGS)
    processes[karmada.WEBHOOK] = patched(processes[karmada.WEBHOOK], json.loads(arguments_of(found.hint, "kubectl")[-1]))
    assert karmada.findings(processes, FLAGS) == []


def test_a_karmada_with_its_own_defaults_lacks_what_failover_needs() -> None:
    default = CapacityFailoverSpec.model_validate({"evictionsPerSecond": 0.5})
    found = karmada.findings({component: process(component) for component in karmada.COMPONENTS}, karmada.flags(default))
    assert [each.setting for each in found if each.required] == [
        "karmada-controller-manager --controllers",
        "karmada-controller-manager --feature-gates=Failover",
        "karmada-controller-manager --enable-no-execute-taint-eviction",
        "karmada-webhook --allow-no-execute-taint-policy",
    ]
    assert found[1].got == "not set, which is false"


def test_a_timing_can_be_fixed_on_either_side() -> None:
    processes = right_processes()
    processes[karmada.CONTROLLERS] = process(karmada.CONTROLLERS, "--feature-gates=Failover=true", "--enable-no-execute-taint-eviction")
    found = {each.setting: each for each in karmada.findings(processes, FLAGS)}
    assert "failover.capacity.failureThresholdSeconds: 30" in found["karmada-controller-manager --cluster-failure-threshold"].hint
    assert "failover.capacity.evictionsPerSecond: 0.5" in found["karmada-controller-manager --resource-eviction-rate"].hint


@pytest.mark.parametrize(
    ("gates", "on"),
    [
        ("Failover=true", True),
        ("AllBeta=true", True),
        ("AllAlpha=true", False),
        ("AllBeta=true,Failover=false", False),
        ("Failover=false,Failover=true", True),
        ("PropagateDeps=true", False),
    ],
)
def test_gates_are_read_as_karmada_reads_them(gates: str, on: bool) -> None:
    [failover] = [each for each in karmada.SETTINGS if each.gate == "Failover"]
    assert (karmada.effective(failover, {"feature-gates": gates}) == "true") is on


def test_flags_are_read_as_pflag_reads_them() -> None:
    argv = ["--v", "4", "--feature-gates=A=true", "--switch", "--feature-gates=B=true", "--rate=1", "--rate=2", "positional", "--last"]
    assert karmada.parse_flags(argv) == {"v": "4", "feature-gates": "A=true,B=true", "switch": "true", "rate": "2", "last": "true"}


@pytest.mark.parametrize(("one", "other"), [("10m0s", "600s"), ("1h", "3600s"), ("500ms", "0.5s"), ("1", "true"), ("10.0", "10")])
def test_values_that_mean_the_same_are_the_same(one: str, other: str) -> None:
    assert karmada.same(one, other)


@pytest.mark.parametrize(("one", "other"), [("10m", "10s"), ("false", "true"), ("0.5", "10"), ("", "true"), ("10", "10s")])
def test_values_that_differ_are_not_the_same(one: str, other: str) -> None:
    assert not karmada.same(one, other)


def test_a_process_is_found_by_its_binary_whatever_its_deployment_is_called() -> None:
    def deployment(name: str, *containers: Object) -> Object:
        return {"metadata": {"name": name, "namespace": "hub"}, "spec": {"template": {"spec": {"containers": list(containers)}}}}

    sidecar: Object = {"name": "proxy", "image": "proxy:1"}
    ours: Object = {"name": "mine-controller-manager", "image": "k:v1.18.2", "command": ["/bin/karmada-controller-manager"], "args": ["--v=2"]}
    found = karmada.process_of(deployment("mine-controller-manager", sidecar, ours), karmada.CONTROLLERS)
    assert found is not None
    assert (found.container, found.given) == (1, {"v": "2"})
    other: Object = {"name": "kube-controller-manager", "image": "k:v1", "command": ["kube-controller-manager"]}
    assert karmada.process_of(deployment("kube-controller-manager", other), karmada.CONTROLLERS) is None
    by_entrypoint: Object = {"name": "karmada-webhook", "image": "k:v1.18.2", "args": ["--allow-no-execute-taint-policy"]}
    found = karmada.process_of(deployment("webhook", by_entrypoint), karmada.WEBHOOK)
    assert found is not None
    assert found.given == {"allow-no-execute-taint-policy": "true"}


def test_an_old_karmada_and_an_absent_process_are_named() -> None:
    processes = right_processes()
    processes[karmada.CONTROLLERS] = replace(processes[karmada.CONTROLLERS], image="karmada:v1.16.3@sha256:0")
    del processes[karmada.SCHEDULER]
    found = {each.setting: each for each in karmada.findings(processes, FLAGS)}
    assert found["Karmada"].got == "1.16.3"
    assert found["karmada-scheduler"].got == "no such Deployment"
    assert len(found) == 2


# KServe


def shipped() -> dict[str, str]:
    [config] = yaml.safe_load_all((tools.share("kserve") / "charts/kserve-resources/files/common/configmap.yaml").read_text(encoding="utf-8"))
    return config["data"]


BROKEN_SECTIONS: dict[str, Object] = {
    "defaultDeploymentMode": {"defaultDeploymentMode": "Knative"},
    "disableIngressCreation": {"disableIngressCreation": False},
    "serviceAnnotationDisallowedList": {"serviceAnnotationDisallowedList": ["mine.example.com/a", *kserve.KARMADA_ANNOTATIONS[:-1]]},
    "ociModelMode": {"ociModelMode": "", "enableModelcar": False, "enableOciModelSupport": False},
    "serviceClusterIPNone": {"serviceClusterIPNone": True},
}


def test_every_verified_setting_of_kserve_is_broken_once() -> None:
    assert {each.key for each in kserve.SETTINGS if each.verified} == set(BROKEN_SECTIONS)


def test_a_kserve_of_ours_has_no_finding() -> None:
    assert kserve.findings(kserve.configuration(shipped())) == []


@pytest.mark.parametrize("key", BROKEN_SECTIONS)
def test_a_setting_of_kserve_that_is_otherwise_is_the_only_finding_and_its_command_fixes_it(key: str) -> None:
    [setting] = [each for each in kserve.SETTINGS if each.key == key]
    data = kserve.configuration(shipped())
    data[setting.section] = json.dumps({**json.loads(data[setting.section]), "kept": "it's", **BROKEN_SECTIONS[key]})
    [found] = kserve.findings(data)
    assert (found.setting, found.required) == (setting.name, setting.required)

    fixed = merged(data, found)
    assert kserve.findings(fixed) == []
    assert json.loads(fixed[setting.section])["kept"] == "it's"
    if isinstance(BROKEN_SECTIONS[key][key], list):
        assert "mine.example.com/a" in json.loads(fixed[setting.section])[key]


def merged(data: dict[str, str], found: Finding) -> dict[str, str]:
    """The ConfigMap after the command of a finding."""
    command = arguments_of(found.hint, "kubectl")
    assert command[:8] == ["kubectl", "-n", "kserve", "patch", "configmap", "inferenceservice-config", "--type", "merge"]
    return {**data, **json.loads(command[command.index("-p") + 1])["data"]}


def test_a_kserve_as_it_ships_is_fixed_by_the_commands_of_its_findings() -> None:
    data = shipped()
    found = kserve.findings(data)
    assert [each.setting.rpartition(" ")[2] for each in found if each.required] == ["disableIngressCreation", "serviceAnnotationDisallowedList"]
    for each in found:
        data = merged(data, each)
    assert kserve.findings(data) == []


def test_what_a_release_ships_right_is_marked() -> None:
    for setting in kserve.SETTINGS:
        if setting.verified:
            assert setting.accepts(json.loads(shipped().get(setting.section, "{}"))) is setting.shipped, setting.key


@pytest.mark.skipif(shutil.which("jq") is None, reason="a tool of the reader's, not of ours")
def test_the_command_of_the_page_makes_a_kserve_in_which_nothing_is_found() -> None:
    program = kserve.set_with_jq().partition("jq '")[2].partition("' |")[0]
    given = json.dumps({"data": {**shipped(), "inferenceService": json.dumps({"serviceAnnotationDisallowedList": ["mine.example.com/a"]})}})
    done = subprocess.run(["jq", program], input=given, capture_output=True, text=True, check=True)
    data = json.loads(done.stdout)["data"]
    assert kserve.findings(data) == []
    assert "mine.example.com/a" in json.loads(data["inferenceService"])["serviceAnnotationDisallowedList"]


def test_the_command_of_the_page_sets_what_a_release_ships_otherwise() -> None:
    program = kserve.set_with_jq()
    for setting in kserve.SETTINGS:
        assert (f".{setting.key} = " in program) is not setting.shipped
        assert setting.shipped or json.dumps(setting.value) in program


@pytest.mark.parametrize("mode", ["Standard", "RawDeployment"])
def test_both_names_of_the_deployment_mode_are_right(mode: str) -> None:
    data = {**kserve.configuration(shipped()), "deploy": json.dumps({"defaultDeploymentMode": mode})}
    assert kserve.findings(data) == []


@pytest.mark.parametrize("storage", [{"enableModelcar": True}, {"ociModelMode": "fetch"}, {"enableOciModelSupport": True}])
def test_any_way_to_get_at_a_model_s_image_is_right(storage: Object) -> None:
    assert kserve.findings({**kserve.configuration(shipped()), "storageInitializer": json.dumps(storage)}) == []


def test_a_configmap_that_is_absent_or_broken_is_one_finding() -> None:
    assert [each.got for each in kserve.findings(None)] == ["no such ConfigMap"]
    [found] = kserve.findings({**kserve.configuration(shipped()), "ingress": "{"})
    assert (found.wrong, found.got) == ("must be a JSON object", "{")


def test_every_value_for_kserve_s_chart_is_one_that_the_chart_has() -> None:
    chart = leaves(values(tools.share("kserve") / "charts/kserve-resources/values.yaml"))
    assert leaves(kserve.chart_values()).keys() <= chart.keys()
    template = (tools.share("kserve") / "charts/kserve-resources/files/common/configmap-patch.yaml").read_text(encoding="utf-8")
    for setting in kserve.SETTINGS:
        # Where it starts to be set by the chart, it belongs to its values.
        assert (f'"{setting.key}"' in template) == bool(setting.chart_key), setting.key


# Istio

MESH: Object = {"discoverySelectors": [{"matchLabels": {"app.kubernetes.io/part-of": "inference-fleet"}}], "extensionProviders": [{"name": "opa"}]}
BROKEN_MESH: dict[str, Any] = {
    "defaultServiceExportTo": ["."],
    "defaultVirtualServiceExportTo": ["models"],
    "defaultDestinationRuleExportTo": ["~"],
    "discoverySelectors": [{"matchLabels": {"team": "a"}}, {"matchLabels": {"kubernetes.io/metadata.name": "models"}}],
}


def test_every_setting_of_the_mesh_is_broken_once() -> None:
    assert {each.key for each in istio.SETTINGS} == set(BROKEN_MESH)


@pytest.mark.parametrize("key", BROKEN_MESH)
def test_a_mesh_that_is_set_otherwise_is_the_only_finding(key: str) -> None:
    [found] = istio.mesh_findings({**MESH, key: BROKEN_MESH[key]}, "opa", "istio-canary")
    assert found.setting == f"Istio's ConfigMap istio-system/istio-canary, mesh, {key}"
    assert arguments_of(found.hint, "kubectl") == ["kubectl", "-n", "istio-system", "edit", "configmap", "istio-canary"]


def test_a_mesh_without_a_configuration_has_no_finding() -> None:
    assert istio.mesh_findings(None, "", "istio") == []
    assert istio.mesh_findings(MESH, "opa", "istio") == []
    assert istio.mesh_findings({**istio.HOST_PROCESS_MESH}, "", "istio") == []


@pytest.mark.parametrize(
    ("expressions", "seen"),
    [
        ([{"key": "team", "operator": "DoesNotExist"}], True),
        ([{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}], True),
        ([{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["models"]}], False),
        ([{"key": "team", "operator": "Exists"}], False),
    ],
)
def test_discovery_selectors_are_read_as_kubernetes_reads_them(expressions: list[Object], seen: bool) -> None:
    assert (istio.mesh_findings({"discoverySelectors": [{"matchExpressions": expressions}]}, "", "istio") == []) is seen


def test_an_authorizer_that_the_mesh_does_not_know_is_found() -> None:
    [found] = istio.mesh_findings(MESH, "ext-authz", "istio")
    assert found.got == "opa"
    assert "ext-authz" in found.hint


def pod(gateway: str, *, ready: bool = True, host: bool = False) -> Object:
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"metadata": {"name": f"{gateway}-0", "labels": {"istio": gateway, "app": gateway}}, "spec": {"hostNetwork": host}, "status": status}


def service(gateway: str, port: int = 80, target: int | str | None = None) -> Object:
    ports = [{"port": 15021}, {"port": port, **({"targetPort": target} if target else {})}]
    return {"metadata": {"name": gateway}, "spec": {"selector": {"istio": gateway}, "ports": ports}}


PODS = [pod("front-door"), pod("regional-gateway")]
SERVICES = [service("front-door"), service("regional-gateway")]


@pytest.mark.parametrize(
    ("pods", "services", "setting", "got"),
    [
        ([PODS[0]], SERVICES, "pods in istio-ingress with the label istio=regional-gateway", "1 pods, label istio: front-door"),
        ([pod("front-door", ready=False), PODS[1]], SERVICES, "pods in istio-ingress with the label istio=front-door", "front-door-0"),
        (PODS, [SERVICES[0]], "Services in istio-ingress that select istio=regional-gateway", "no such Service"),
        (PODS, [service("front-door", 8080), SERVICES[1]], "Services in istio-ingress that select istio=front-door", "15021, 8080"),
    ],
)
def test_a_gateway_that_lacks_something_is_the_only_finding(pods: list[Object], services: list[Object], setting: str, got: str) -> None:
    [found] = istio.gateway_findings(pods, services)
    assert (found.setting, found.got, found.required) == (setting, got, True)


@pytest.mark.parametrize(
    ("pods", "services"),
    [
        (PODS, SERVICES),
        # Istio takes the port of the Service or, where none has it, of the pod.
        (PODS, [service("front-door", 443, 80), service("regional-gateway", 80, "http")]),
        ([pod("front-door", host=True), pod("regional-gateway", host=True)], []),
        ([*PODS, pod("other", ready=False)], [*SERVICES, service("other", 1)]),
    ],
)
def test_gateways_that_can_be_reached_have_no_finding(pods: list[Object], services: list[Object]) -> None:
    assert istio.gateway_findings(pods, services) == []


def test_every_value_for_istio_s_gateway_chart_is_one_that_the_chart_has() -> None:
    charts = tools.share("istio") / "manifests/charts"
    gateway = values(charts / "gateway/values.yaml")["_internal_defaults_do_not_set"]
    discovery = values(charts / "istio-control/istio-discovery/values.yaml")["_internal_defaults_do_not_set"]
    for name in istio.LISTENERS:
        given = istio.gateway_chart_values(name)
        assert given.keys() <= gateway.keys()
        assert given["service"].keys() <= gateway["service"].keys()
        assert {each["port"] for each in given["service"]["ports"]} <= {each["port"] for each in gateway["service"]["ports"]}
    assert istio.chart_values() == {}
    assert "meshConfig" in discovery


# Findings


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker.io/karmada/karmada-webhook:v1.18.2", (1, 18, 2)),
        ("registry:5000/istio/pilot:1.31.1-distroless@sha256:ab", (1, 31, 1)),
        ("registry:5000/istio/pilot", None),
        ("pilot:latest", None),
        ("pilot@sha256:ab", None),
    ],
)
def test_versions_are_read_from_tags(image: str, version: tuple[int, ...] | None) -> None:
    assert version_of(image) == version


@pytest.mark.parametrize(
    ("findings", "setting", "required"),
    [
        (kserve.manager_findings("kserve/kserve-controller:v0.15.2"), "KServe", True),
        (kserve.manager_findings("kserve/kserve-controller:latest"), "KServe", False),
        (kserve.manager_findings(None), "KServe's Deployment kserve/kserve-controller-manager", False),
        (istio.istiod_findings("istio/pilot:1.29.4"), "Istio", True),
        (istio.istiod_findings(None), "Istio's Deployment in istio-system with the label app=istiod", False),
    ],
)
def test_a_version_that_is_too_old_is_refused_and_an_unknown_one_is_a_warning(findings: list[Finding], setting: str, required: bool) -> None:
    assert [(each.setting, each.required) for each in findings] == [(setting, required)]


def test_current_versions_have_no_finding() -> None:
    assert kserve.manager_findings("kserve/kserve-controller:v0.20.0") == []
    assert istio.istiod_findings("istio/pilot:1.31.1") == []


def test_a_finding_names_cluster_setting_value_and_command() -> None:
    found = Finding(setting="a --b", wrong="must be `c`: it matters", got="d", hint="kubectl e")
    assert found.told("us-east") == "us-east: a --b: must be `c`: it matters, got: `d`\n  hint: kubectl e"


def test_the_page_about_existing_clusters_is_current() -> None:
    page = existing_clusters_document.DOCUMENT.read_text(encoding="utf-8").split(existing_clusters_document.MARK, 1)[1]
    assert page == f"\n\n{existing_clusters_document.tables()}", "run: make generate"
