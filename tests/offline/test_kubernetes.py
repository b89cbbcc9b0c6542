"""The offline kubernetes plugin under the real engine, against a real API server."""

import json
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.conftest import ApiServer, wait_until
from tests.offline.conftest import Project

Program = Callable[..., Project]

WIDGETS = """
    definition = k8s.apiextensions.v1.CustomResourceDefinition(
        "widgets",
        metadata={"name": "widgets.test.dev"},
        spec={
            "group": "test.dev",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 9}}},
                    "status": {"type": "object", "x_kubernetes_preserve_unknown_fields": True},
                }}},
            }],
        },
        opts=opts,
    )
"""


@pytest.fixture
def no_widgets(cluster: ApiServer) -> Iterator[None]:
    """Removes the definition that a test declared, and its objects with it."""
    yield
    kind = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.test.dev")
    for widget in cluster.kube.list("test.dev/v1", "Widget"):
        cluster.kube.patch("test.dev/v1", "Widget", widget["metadata"]["name"], {"metadata": {"finalizers": None}}, namespace="default")
    cluster.kube.delete(*kind)
    wait_until(lambda: cluster.kube.find(*kind) is None, "the definition to be gone")


def _widget(name: str, annotations: dict[str, str], size: int = 1) -> str:
    return f"""
    k8s.apiextensions.CustomResource(
        "{name}", api_version="test.dev/v1", kind="Widget", metadata={{"name": "{name}", "annotations": {annotations!r}}}, spec={{"size": {size}}},
        opts=pulumi.ResourceOptions(provider=here, depends_on=[definition]),
    )
"""


def test_an_object_comes_stays_and_goes(program: Program, cluster: ApiServer) -> None:
    project = program(
        """
        space = k8s.core.v1.Namespace("space", metadata={"name": "first"}, opts=opts)
        settings = k8s.core.v1.ConfigMap("settings", metadata={"namespace": space.metadata.name}, data={"a": "1"}, opts=opts)
        pulumi.export("name", settings.metadata.name)
        """
    )
    project.up().ok()
    name = project.outputs()["name"]
    assert name.startswith("settings-")
    assert len(name) == len("settings-") + 8
    live = cluster.kube.get("v1", "ConfigMap", name, "first")
    assert live["data"] == {"a": "1"}
    assert live["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}
    assert "labels" not in live["metadata"]
    project.quiet()
    project.destroy().ok()
    assert cluster.kube.find("v1", "Namespace", "first") is None


def test_an_update_is_made_in_place_and_takes_over_the_fields(program: Program, cluster: ApiServer) -> None:
    body = """
    k8s.core.v1.Service("door", metadata={{"name": "door", "labels": {labels}}},
        spec={{"type": "ExternalName", "external_name": "{host}"}}, opts=opts)
    """
    project = program(body.format(labels={"tier": "front", "old": "1"}, host="one.test"))
    project.up().ok()
    uid = cluster.kube.get("v1", "Service", "door", "default")["metadata"]["uid"]
    program(body.format(labels={"tier": "back"}, host="two.test"))
    shown = project.preview().ok().output
    assert "one.test" in shown
    assert "two.test" in shown
    assert cluster.kube.get("v1", "Service", "door", "default")["spec"]["externalName"] == "one.test", "a preview changed the object"
    project.up().ok()
    live = cluster.kube.get("v1", "Service", "door", "default")
    assert (live["metadata"]["uid"], live["spec"]["externalName"], live["metadata"]["labels"]) == (uid, "two.test", {"tier": "back"})
    managers = [(entry["manager"][: len("pulumi-kubernetes-")], entry["operation"]) for entry in live["metadata"]["managedFields"]]
    assert managers == [("pulumi-kubernetes-", "Apply")]
    project.quiet()


def test_another_managers_field_is_a_conflict_unless_forced(program: Program, cluster: ApiServer) -> None:
    body = 'k8s.core.v1.Namespace("shared", metadata={{"name": "shared", "labels": {{"who": "{who}"}}, "annotations": {annotations}}}, opts=opts)'
    project = program(body.format(who="me", annotations={}))
    project.up().ok()
    cluster.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shared", "labels": {"who": "them"}}}, field_manager="them")
    program(body.format(who="me too", annotations={}))
    refused = program(body.format(who="me-too", annotations={})).up()
    assert refused.code != 0
    assert "conflict" in refused.output
    assert '"them"' in refused.output
    assert "pulumi.com/patchForce" in refused.output
    program(body.format(who="me-too", annotations={"pulumi.com/patchForce": "true"})).up().ok()
    assert cluster.kube.get("v1", "Namespace", "shared")["metadata"]["labels"]["who"] == "me-too"
    project.destroy().ok()


def test_what_cannot_change_is_replaced(program: Program, cluster: ApiServer) -> None:
    body = """
    k8s.core.v1.ConfigMap("named", metadata={{"name": "named"}}, data={{"a": "{value}"}}, opts=opts)
    made = k8s.core.v1.ConfigMap("made", data={{"a": "{value}"}}, opts=opts)
    k8s.apps.v1.Deployment("none", metadata={{"name": "none"}}, spec={{
        "replicas": 0, "selector": {{"match_labels": {{"app": "{value}"}}}},
        "template": {{"metadata": {{"labels": {{"app": "{value}"}}}}, "spec": {{"containers": [
            {{"name": "c", "image": "i", "resources": {{"limits": {{"cpu": "1000m"}}}}}}
        ]}}}},
    }}, opts=opts)
    pulumi.export("made", made.metadata.name)
    """
    project = program(body.format(value="one"))
    project.up().ok()
    project.quiet()
    first = project.outputs()["made"]
    program(body.format(value="two"))
    assert set(project.steps().values()) <= {"replace", "create-replacement", "delete-replaced"}
    project.up().ok()
    assert cluster.kube.get("v1", "ConfigMap", "named", "default")["data"] == {"a": "two"}
    assert project.outputs()["made"] != first
    assert cluster.kube.find("v1", "ConfigMap", first, "default") is None
    assert cluster.kube.get("apps/v1", "Deployment", "none", "default")["spec"]["selector"]["matchLabels"] == {"app": "two"}
    project.destroy().ok()


def test_mutable_config_maps_are_updated_in_place(program: Program, cluster: ApiServer) -> None:
    body = 'k8s.core.v1.ConfigMap("mutable", metadata={{"name": "mutable"}}, data={{"a": "{value}"}}, opts=opts)'
    project = program(body.format(value="one"), "enable_config_map_mutable=True")
    project.up().ok()
    uid = cluster.kube.get("v1", "ConfigMap", "mutable", "default")["metadata"]["uid"]
    program(body.format(value="two"), "enable_config_map_mutable=True").up().ok()
    live = cluster.kube.get("v1", "ConfigMap", "mutable", "default")
    assert (live["metadata"]["uid"], live["data"]) == (uid, {"a": "two"})


def test_refresh_finds_drift_and_loss_and_an_update_heals_them(program: Program, cluster: ApiServer) -> None:
    project = program(
        """
        force = {"pulumi.com/patchForce": "true"}
        k8s.core.v1.Namespace("drift", metadata={"name": "drift", "labels": {"mine": "1"}, "annotations": force}, opts=opts)
        k8s.core.v1.ConfigMap("lost", metadata={"name": "lost"}, data={"a": "1"}, opts=opts)
        """
    )
    project.up().ok()
    cluster.kube.patch("v1", "Namespace", "drift", {"metadata": {"labels": {"mine": "2", "theirs": "3"}}})
    cluster.kube.delete("v1", "ConfigMap", "lost", "default")
    project.pulumi("refresh", "--yes", "--skip-preview", "--stack", "test").ok()
    steps = project.steps()
    assert steps == {"drift": "update", "lost": "create"}
    project.up().ok()
    assert cluster.kube.get("v1", "Namespace", "drift")["metadata"]["labels"]["mine"] == "1"
    assert cluster.kube.get("v1", "Namespace", "drift")["metadata"]["labels"]["theirs"] == "3", "a label of others was removed"
    project.quiet()


@pytest.mark.usefixtures("no_widgets")
def test_custom_resources_follow_their_definition_and_wait_for_a_condition(program: Program, cluster: ApiServer) -> None:
    waiting = {"pulumi.com/waitFor": 'jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', "pulumi.com/timeoutSeconds": "3"}
    project = program(WIDGETS + _widget("ready", {}) + _widget("slow", waiting))
    done = project.up()
    assert done.code != 0
    assert "timed out after 3 s waiting for Widget default/slow" in done.output
    assert "expected `True`" in done.output
    kinds = [entry["type"] for entry in project.resources()]
    assert kinds.count("kubernetes:test.dev/v1:Widget") == 2, "what exists but is not ready has to be recorded"
    status = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Done", "message": "all is well"}]}}
    cluster.kube.patch("test.dev/v1", "Widget", "slow", status, namespace="default", subresource="status")
    project.up().ok()
    project.quiet()
    named = {"pulumi.com/waitFor": '["condition=Ready", "jsonpath={.status.phase}"]', "pulumi.com/timeoutSeconds": "2"}
    program(WIDGETS + _widget("ready", {}) + _widget("slow", named))
    done = project.up()
    assert "{.status.phase} selects nothing yet" in done.output
    rejected = program(WIDGETS + _widget("ready", {}) + _widget("slow", {"pulumi.com/waitFor": "Ready"})).preview()
    assert "must start with `jsonpath=` or `condition=`" in rejected.output


@pytest.mark.usefixtures("no_widgets")
def test_a_bad_field_fails_the_preview(program: Program) -> None:
    wrong = program(
        """
        k8s.apps.v1.Deployment("wrong", spec=dict(selector={"matchLabels": {"a": "b"}}, template={
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "imagePulPolicy": "Always"}]}}), opts=opts)
        """
    ).preview()
    assert wrong.code != 0
    assert 'unknown field "spec.template.spec.containers[0].imagePulPolicy"' in wrong.output
    too_big = program(WIDGETS)
    too_big.up().ok()
    refused = program(WIDGETS + _widget("big", {}, size=10)).preview()
    assert refused.code != 0
    assert "spec.size" in refused.output
    assert "less than or equal to 9" in refused.output


def test_secret_data_is_nowhere_in_clear(program: Program, cluster: ApiServer) -> None:
    project = program(
        """
        secret = k8s.core.v1.Secret("token", metadata={"name": "token"}, string_data={"key": "hunter2secret"}, opts=opts)
        k8s.core.v1.ConfigMap("copy", metadata={"name": "copy"}, data={"key": pulumi.Output.secret("hunter2secret"), "open": "visible"}, opts=opts)
        pulumi.export("data", secret.data)
        """
    )
    shown = project.preview().ok().output + project.up("--diff").ok().output
    exported = project.pulumi("stack", "export", "--stack", "test").ok().output
    for text in (shown, exported):
        assert "hunter2secret" not in text
        assert "aHVudGVyMnNlY3JldA==" not in text
    assert "visible" in exported
    assert cluster.kube.get("v1", "Secret", "token", "default")["data"] == {"key": "aHVudGVyMnNlY3JldA=="}
    project.quiet()


def test_an_existing_object_is_not_taken_over_but_can_be_imported(program: Program, cluster: ApiServer) -> None:
    cluster.kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "there", "namespace": "default"}, "data": {"a": "1"}})
    body = 'k8s.core.v1.ConfigMap("there", metadata={{"name": "there"}}, data={{"a": "1"}}, opts=pulumi.ResourceOptions(provider=here{more}))'
    refused = program(body.format(more="")).up()
    assert refused.code != 0
    assert "already exists" in refused.output
    assert "import_" in refused.output
    project = program(body.format(more=', import_="default/there"'))
    project.up().ok()
    program(body.format(more=""))
    project.quiet()
    read = program('pulumi.export("a", k8s.core.v1.ConfigMap.get("read", "default/there", opts=opts).data["a"])')
    read.up().ok()
    assert str(read.outputs()["a"]) == "1"


def test_a_deployment_is_awaited(program: Program) -> None:
    body = """
    k8s.apps.v1.Deployment("app", metadata={{"name": "app", "annotations": {{"pulumi.com/timeoutSeconds": "4"}}}}, spec={{
        "replicas": {replicas}, "selector": {{"match_labels": {{"app": "a"}}}},
        "template": {{"metadata": {{"labels": {{"app": "a"}}}}, "spec": {{"containers": [{{"name": "c", "image": "i"}}]}}}},
    }}, opts=opts)
    """
    project = program(body.format(replicas=0))
    project.up().ok()
    failed = program(body.format(replicas=1)).up()
    assert failed.code != 0
    assert "timed out after 4 s waiting for Deployment default/app" in failed.output
    program(body.format(replicas=0)).up().ok()
    project.quiet()
    project.destroy().ok()


def test_services_with_a_selector_wait_for_pods_and_others_do_not(program: Program) -> None:
    project = program(
        """
        k8s.core.v1.Service("headless", metadata={"name": "headless"}, spec={"cluster_ip": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}, opts=opts)
        k8s.core.v1.Service("plain", metadata={"name": "plain"}, spec={"ports": [{"port": 80, "target_port": 8080}]}, opts=opts)
        """
    )
    project.up().ok()
    project.quiet()
    project.destroy().ok()


def test_a_deletion_waits_for_finalizers_and_says_so(program: Program, cluster: ApiServer) -> None:
    meta = {"name": "held", "finalizers": ["test.dev/hold"], "annotations": {"pulumi.com/timeoutSeconds": "2"}}
    project = program(f'k8s.core.v1.ConfigMap("held", metadata={meta!r}, opts=opts)')
    project.up().ok()
    stuck = project.destroy()
    assert stuck.code != 0
    assert "finalizers might be preventing deletion: test.dev/hold" in stuck.output
    cluster.kube.patch("v1", "ConfigMap", "held", {"metadata": {"finalizers": None}}, namespace="default")
    project.destroy().ok()


def test_an_object_deleted_by_others_is_deleted_without_complaint(program: Program, cluster: ApiServer) -> None:
    project = program('k8s.core.v1.ConfigMap("gone", metadata={"name": "gone"}, opts=opts)')
    project.up().ok()
    cluster.kube.delete("v1", "ConfigMap", "gone", "default")
    project.destroy().ok()


def test_ignored_changes_stay_with_their_owner(program: Program, cluster: ApiServer) -> None:
    body = """
    k8s.apps.v1.Deployment("scaled", metadata={{"name": "scaled", "labels": {{"v": "{v}"}}}}, spec={{
        "replicas": {replicas}, "selector": {{"match_labels": {{"app": "s"}}}},
        "template": {{"metadata": {{"labels": {{"app": "s"}}}}, "spec": {{"containers": [{{"name": "c", "image": "i"}}]}}}},
    }}, opts=pulumi.ResourceOptions(provider=here, ignore_changes=["spec.replicas"]))
    """
    project = program(body.format(v=1, replicas=0))
    project.up().ok()
    program(body.format(v=1, replicas=5))
    project.quiet()
    program(body.format(v=2, replicas=5)).up().ok()
    assert cluster.kube.get("apps/v1", "Deployment", "scaled", "default")["spec"]["replicas"] == 0
    project.destroy().ok()


def test_a_preview_does_not_need_the_kubeconfig_or_the_cluster(project: Project) -> None:
    project.write(
        """
        made = command.local.Command("make", create="echo later")
        here = k8s.Provider("here", kubeconfig=made.stdout)
        space = k8s.core.v1.Namespace("space", metadata={"name": "later"}, opts=pulumi.ResourceOptions(provider=here))
        k8s.core.v1.ConfigMap("settings", metadata={"namespace": space.metadata.name}, data={"a": "1"}, opts=pulumi.ResourceOptions(provider=here))
        """
    )
    assert project.steps() == {"make": "create", "space": "create", "settings": "create"}


def test_an_unreachable_cluster_is_named_and_can_be_skipped_or_dropped(program: Program, cluster: ApiServer, project: Project) -> None:
    body = 'k8s.core.v1.ConfigMap("far", metadata={{"name": "far"}}, data={{"a": "{value}"}}, opts=opts)'
    project = program(body.format(value="one"), "enable_config_map_mutable=True, cluster_identifier='same', skip_update_unreachable=True")
    project.up().ok()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    dead = project.folder / "dead"
    dead.write_text(yaml.safe_dump(config))
    settings = "enable_config_map_mutable=True, cluster_identifier='same', skip_update_unreachable={skip}"
    head = "here = k8s.Provider('here', kubeconfig={path!r}, " + settings + ")\nopts = pulumi.ResourceOptions(provider=here)\n"
    project.write(head.format(path=str(dead), skip=True) + body.format(value="two"))
    skipped = project.up().ok()
    assert "skipped: Kubernetes cluster is unreachable: https://127.0.0.1:9" in skipped.output
    assert cluster.kube.get("v1", "ConfigMap", "far", "default")["data"] == {"a": "one"}
    project.write(head.format(path=str(dead), skip=False) + body.format(value="two"))
    assert project.steps() == {"far": "update"}, "a preview compares with what is recorded"
    failed = project.up()
    assert failed.code != 0
    assert "Kubernetes cluster is unreachable: https://127.0.0.1:9" in failed.output
    refused = project.destroy()
    assert refused.code != 0
    assert "PULUMI_K8S_DELETE_UNREACHABLE" in refused.output
    project.pulumi("destroy", "--yes", "--skip-preview", "--stack", "test", PULUMI_K8S_DELETE_UNREACHABLE="true").ok()
    project.write(head.format(path=str(cluster.kubeconfig), skip=True) + body.format(value="two"))
    cluster.kube.delete("v1", "ConfigMap", "far", "default")


def test_what_is_not_covered_is_refused_by_name(program: Program) -> None:
    patch = program('k8s.core.v1.NamespacePatch("p", metadata={"name": "default", "labels": {"a": "b"}}, opts=opts)').preview()
    assert patch.code != 0
    assert "Patch resources are not covered by the offline kubernetes plugin" in patch.output
    release = program('k8s.helm.v3.Release("r", k8s.helm.v3.ReleaseArgs(chart="nginx"), opts=opts)').preview()
    assert release.code != 0
    assert "`kubernetes:helm.sh/v3:Release`" in release.output
    group = program('k8s.yaml.v2.ConfigGroup("g", yaml="a: b", opts=opts)').preview()
    assert group.code != 0
    assert "`kubernetes:yaml/v2:ConfigGroup`" in group.output
    listed = program('k8s.core.v1.ConfigMapList("l", items=[], opts=opts)').preview()
    assert listed.code != 0
    assert "List resources cannot be created" in listed.output
    rendered = program("", "render_yaml_to_directory='out'").preview()
    assert rendered.code != 0
    assert "renderYamlToDirectory" in rendered.output


def test_outputs_hold_the_live_object(program: Program) -> None:
    project = program(
        """
        space = k8s.core.v1.Namespace("out", opts=opts)
        pulumi.export("phase", space.status.phase)
        pulumi.export("uid", space.metadata.uid)
        pulumi.export("id", space.id)
        pulumi.export("name", space.metadata["name"])
        """
    )
    project.up().ok()
    outputs = project.outputs()
    assert outputs["phase"] == "Active"
    assert outputs["id"] == outputs["name"]
    assert len(outputs["uid"]) == 36
    state = next(entry for entry in project.resources() if entry["type"] == "kubernetes:core/v1:Namespace")
    assert state["outputs"]["__initialApiVersion"] == "v1"
    assert state["outputs"]["__fieldManager"].startswith("pulumi-kubernetes-")
    assert json.dumps(state["outputs"]["__inputs"], sort_keys=True) == json.dumps(state["inputs"], sort_keys=True)
    project.destroy().ok()
