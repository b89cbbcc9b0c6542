"""The official kubernetes plugin, as this toolchain has it: what it says of itself, and what the fleet's objects rely on."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.federation.placement import TIMEOUT_SECONDS, WAIT_FOR
from tests.conftest import ApiServer, free_port, run_api_server, run_controllers, wait_until
from tests.offline.conftest import Done, Project
from toolchain import tools
from toolchain.catalogue import KUBERNETES_PLUGIN
from toolchain.pins import PINS

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.test.dev"},
    "spec": {
        "group": "test.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 9}}},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    # The plugin deletes in the foreground, which the garbage collector finishes: without one every deletion times out.
    with run_api_server(tmp_path_factory.mktemp("cluster")) as server, run_controllers(server, "garbage-collector-controller"):
        server.kube.create(WIDGETS)
        wait_until(lambda: _served(server), "the definition to be served")
        yield server


def _served(server: ApiServer) -> bool:
    with suppress(Exception):
        return server.kube.list("test.dev/v1", "Widget") == []
    return False


def _widget(name: str, annotations: dict[str, str], spec: dict[str, int], kubeconfig: Path | str) -> str:
    return f"""
    here = k8s.Provider("here", kubeconfig={str(kubeconfig)!r})
    k8s.apiextensions.CustomResource("{name}", api_version="test.dev/v1", kind="Widget",
        metadata={{"name": "{name}", "namespace": "default", "annotations": {annotations!r}}}, spec={spec!r}, opts=pulumi.ResourceOptions(provider=here))
    """


def test_the_plugin_answers_under_the_version_of_the_sdk() -> None:
    # It connects to its engine when it has something to say, so none has to be there.
    command = [str(tools.path(KUBERNETES_PLUGIN)), f"127.0.0.1:{free_port()}"]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert running.stdout is not None
        port = int(running.stdout.readline())
        options = [("grpc.max_receive_message_length", 64 << 20)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            provider = provider_pb2_grpc.ResourceProviderStub(channel)
            version = provider.GetPluginInfo(empty_pb2.Empty(), timeout=60).version
            schema = json.loads(provider.GetSchema(provider_pb2.GetSchemaRequest(), timeout=60).schema)
    finally:
        running.kill()
        running.wait()
    assert version.removeprefix("v") == PINS.pulumi_kubernetes
    assert (schema["name"], schema["version"]) == ("kubernetes", PINS.pulumi_kubernetes)
    assert "kubernetes:apiextensions.k8s.io:CustomResource" in schema["resources"]


def test_a_model_is_awaited_as_its_annotations_say(project: Project, cluster: ApiServer) -> None:
    waiting = {WAIT_FOR: "condition=Ready", TIMEOUT_SECONDS: "120"}
    project.write(_widget("slow", waiting, {"size": 1}, cluster.kubeconfig))
    done: list[Done] = []
    update = threading.Thread(target=lambda: done.append(project.up()))
    update.start()
    wait_until(lambda: cluster.kube.find("test.dev/v1", "Widget", "slow", "default") is not None, "the object", timeout_s=90)
    assert not done, "the update must not end before the object is ready"
    status = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Done", "message": "all is well"}]}}
    cluster.kube.patch("test.dev/v1", "Widget", "slow", status, namespace="default", subresource="status")
    update.join()
    done[0].ok()
    project.quiet()
    # One that is not ready in time fails the update and stays in the state, so that the next update waits for it again.
    project.write(_widget("never", {**waiting, TIMEOUT_SECONDS: "2"}, {"size": 1}, cluster.kubeconfig))
    late = project.up()
    assert late.code != 0
    assert "never" in [each["urn"].rpartition("::")[2] for each in project.resources()]
    cluster.kube.patch("test.dev/v1", "Widget", "never", status, namespace="default", subresource="status")
    project.up().ok()
    project.destroy().ok()
    assert cluster.kube.list("test.dev/v1", "Widget") == []


@pytest.mark.parametrize(("spec", "named"), [({"size": 10}, "less than or equal to 9"), ({"misspelt": 1}, "misspelt")])
def test_what_the_api_server_would_refuse_fails_the_preview(project: Project, cluster: ApiServer, spec: dict[str, int], named: str) -> None:
    project.write(_widget("bad", {}, spec, cluster.kubeconfig))
    refused = project.preview()
    assert refused.code != 0
    assert named in refused.output


def test_with_a_hub_that_is_away_previews_go_on_and_updates_stop(project: Project) -> None:
    away = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "away",
            "clusters": [{"name": "away", "cluster": {"server": f"https://127.0.0.1:{free_port()}"}}],
            "users": [{"name": "away", "user": {"token": "none"}}],
            "contexts": [{"name": "away", "context": {"cluster": "away", "user": "away"}}],
        }
    )
    project.write(_widget("some", {"a": "b"}, {"size": 1}, away))
    project.preview().ok()
    stopped = project.up()
    assert stopped.code != 0
    assert "configured Kubernetes cluster is unreachable" in stopped.output
    assert project.resources() == []
