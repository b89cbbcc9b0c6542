"""The node agent on a real member cluster: real API server, scheduler and controllers; containers are Python servers."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kube.client import Kube, condition
from local import kubernetes, model_store, node_agent, processes, registry, tiny_model
from local.host_cluster import HostCluster
from local.node_agent import processes as containers
from local.node_agent.mesh import API_VERSION, KIND
from toolchain import paths, tools

Object = dict[str, Any]
T = TypeVar("T")

NODE = "agent-test-cpu-0"
PORT = 8080

# A server that tells what it was started with, and can be told to be ill, to exit and to note what happens to it.
SERVER = textwrap.dedent(
    """
    import http.server, json, os, signal, sys, threading
    notes = os.environ["NOTES"]
    def note(word):
        with open(notes, "a") as stream:
            stream.write(word + "\\n")
    def end(*_):
        note("SIGTERM")
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/exit":
                os._exit(3)
            ill = os.path.exists(notes + ".ill")
            body = json.dumps({"argv": sys.argv[1:], "env": dict(os.environ), "pid": os.getpid()}).encode()
            self.send_response(500 if ill and self.path == "/health" else 200)
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_):
            pass
    print("serving at", os.environ["POD_IP"], flush=True)
    http.server.ThreadingHTTPServer((os.environ["POD_IP"], int(os.environ["PORT"])), Handler).serve_forever()
    """
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostCluster]:
    before, paths.STATE = paths.STATE, tmp_path_factory.mktemp("state")
    made = HostCluster("agent-test")
    try:
        kubernetes.apply({"name": made.name, "role": "member", "region": "region-a", "zone": "zone-a"})
        node_agent.apply(made, "region-a", "zone-a")
        images = {"test/server": {"path": [str(Path(sys.executable).parent)], "entrypoint": [sys.executable, "-c", SERVER]}}
        (made.dir / "images.json").write_text(json.dumps(images))
        with api_of(made) as api:
            wait(lambda: api.find("v1", "ServiceAccount", "default", "default"), "the service account `default`")
        yield made
    finally:
        made.delete()
        paths.STATE = before


def api_of(cluster: HostCluster) -> Kube:
    return Kube.from_kubeconfig(cluster.kubeconfig)


@pytest.fixture
def api(cluster: HostCluster) -> Iterator[Kube]:
    with api_of(cluster) as made:
        yield made
        for pod in made.list("v1", "Pod"):
            made.delete("v1", "Pod", pod["metadata"]["name"], "default", grace_period_seconds=1)
        wait(lambda: not made.list("v1", "Pod"), "all pods to be gone", 60)


def wait(check: Callable[[], T | None], what: str, timeout: float = 30) -> T:
    deadline = time.monotonic() + timeout
    while not (result := check()):
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.1)
    return result


def pod(name: str, notes: Path, *, container: Object | None = None, **spec: Any) -> Object:
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1}
    main = {
        "name": "server",
        "image": "test/server:v1",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NOTES", "value": str(notes)},
            {"name": "PORT", "value": str(PORT)},
        ],
        "readinessProbe": probe,
    }
    extra = dict(container or {})
    main["env"] += extra.pop("env", [])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 10, "containers": [main | extra], **spec},
    }


def ready(api: Kube, name: str) -> Object | None:
    found = api.find("v1", "Pod", name, "default")
    return found if found and condition(found, "Ready").get("status") == "True" else None


def run(api: Kube, manifest: Object) -> Object:
    api.create(manifest)
    name = manifest["metadata"]["name"]
    return wait(lambda: ready(api, name), f"pod {name} to be Ready")


def address(cluster: HostCluster, found: Object) -> str:
    table = json.loads((cluster.dir / "addresses.json").read_text())["hosts"]
    host = table[found["metadata"]["uid"]]
    return f"127.{10 + cluster.index}.{host >> 8}.{host & 255}"


def ask(cluster: HostCluster, found: Object, path: str = "/") -> Object:
    with urllib.request.urlopen(f"http://{address(cluster, found)}:{PORT}{path}", timeout=5) as answer:
        return json.load(answer)


def container_status(api: Kube, name: str) -> Object:
    return api.get("v1", "Pod", name, "default")["status"]["containerStatuses"][0]


def servers(found: Object) -> list[int]:
    return containers.members(found["metadata"]["uid"])


def test_the_node_is_ready_and_says_where_it_is(cluster: HostCluster, api: Kube) -> None:
    node = api.get("v1", "Node", NODE)
    assert condition(node, "Ready")["status"] == "True"
    labels = node["metadata"]["labels"]
    assert labels["inference-fleet.dev/accelerator"] == "cpu"
    assert (labels["topology.kubernetes.io/region"], labels["topology.kubernetes.io/zone"]) == ("region-a", "zone-a")
    lease = wait(lambda: api.find("coordination.k8s.io/v1", "Lease", NODE, "kube-node-lease"), "the lease", 15)
    assert lease["spec"]["holderIdentity"] == NODE
    wait(lambda: not api.get("v1", "Node", NODE)["spec"].get("taints"), "the node's taints to go")


def test_a_pod_becomes_ready_by_its_probe_and_has_no_pod_ip(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("plain", tmp_path / "notes"))
    status = found["status"]
    assert status["phase"] == "Running"
    assert "podIP" not in status
    assert "hostIP" not in status
    (container,) = status["containerStatuses"]
    assert container["ready"]
    assert container["started"]
    assert container["restartCount"] == 0
    assert {each["type"]: each["status"] for each in status["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    assert {listener[0] for listener in containers.listeners(servers(found))} == {address(cluster, found)}


def test_environment_arguments_and_volumes_reach_the_process(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"}, "data": {"colour": "blue"}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden", "namespace": "default"}, "stringData": {"word": "sesame"}}
    api.apply(secret)
    manifest = pod(
        "env",
        tmp_path / "notes",
        container={
            "args": ["--host=$(POD_IP)", "$$(POD_IP)", "$(NOBODY)", "/data/settings/colour", "--dir=/data/scratch", "/data-other"],
            "env": [
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
                {"name": "BOTH", "value": "$(COLOUR) $(WORD)"},
                {"name": "WHERE", "value": "/data/scratch/x"},
            ],
            "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "settings"}}],
            "volumeMounts": [{"name": "config", "mountPath": "/data/settings"}, {"name": "scratch", "mountPath": "/data/scratch"}],
            "resources": {"limits": {"cpu": "1500m"}},
        },
        volumes=[{"name": "config", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {"medium": "Memory"}}],
    )
    found = run(api, manifest)
    seen = ask(cluster, found)
    environment, arguments = seen["env"], seen["argv"]
    assert environment["COLOUR"] == environment["ALL_colour"] == "blue"
    assert environment["BOTH"] == "blue sesame"
    assert arguments[:3] == [f"--host={address(cluster, found)}", "$(POD_IP)", "$(NOBODY)"]
    assert Path(arguments[3]).read_text() == "blue"
    assert Path(arguments[4].removeprefix("--dir=")).is_dir()
    assert environment["WHERE"] == arguments[4].removeprefix("--dir=") + "/x"
    assert arguments[5] == "/data-other"
    assert environment["FLEET_CELL"] == str(cluster.dir.resolve()), "a region is killed by this marker"
    assert "FLEET_UNIT" not in environment, "the supervisor would kill the containers with the agent"


def test_a_service_account_token_volume_holds_a_token_of_the_pod(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("token", tmp_path / "notes"))
    (volume,) = [each["name"] for each in found["spec"]["volumes"] if "projected" in each]
    folder = cluster.dir / "pods" / f"default_token_{found['metadata']['uid']}" / "volumes" / volume
    assert (folder / "token").read_text().count(".") == 2
    assert "BEGIN CERTIFICATE" in (folder / "ca.crt").read_text()
    assert (folder / "token").stat().st_mode & 0o077 == 0


def test_an_exit_restarts_the_container_and_the_second_one_backs_off(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("exits", tmp_path / "notes"))
    for count in (1, 2):
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask(cluster, found, "/exit")
        if count == 1:
            wait(lambda: container_status(api, "exits")["restartCount"] == 1 and ready(api, "exits"), "the first restart")
    waiting = wait(lambda: container_status(api, "exits")["state"].get("waiting"), "the back-off")
    assert waiting["reason"] == "CrashLoopBackOff"
    status = container_status(api, "exits")
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert not ready(api, "exits")
    wait(lambda: container_status(api, "exits")["restartCount"] == 2 and ready(api, "exits"), "the second restart", 20)


def test_a_failing_liveness_probe_restarts_and_a_failing_readiness_probe_does_not(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    ill = Path(f"{notes}.ill")
    run(api, pod("unready", notes))
    ill.touch()
    wait(lambda: not ready(api, "unready"), "the pod to be unready")
    ill.unlink()
    wait(lambda: ready(api, "unready"), "the pod to be ready again")
    assert container_status(api, "unready")["restartCount"] == 0

    other = tmp_path / "other"
    liveness = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1, "failureThreshold": 2}
    run(api, pod("unhealthy", other, container={"livenessProbe": liveness}))
    Path(f"{other}.ill").touch()
    wait(lambda: container_status(api, "unhealthy")["restartCount"] == 1, "the restart")
    Path(f"{other}.ill").unlink()
    terminated = container_status(api, "unhealthy")["lastState"]["terminated"]
    assert "liveness probe failed" in terminated["message"]
    assert other.read_text() == "SIGTERM\n"


def test_deletion_runs_pre_stop_before_sigterm_and_leaves_nothing(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.5; echo preStop >> $NOTES"]}}}
    found = run(api, pod("ends", notes, container={"lifecycle": hook}))
    api.delete("v1", "Pod", "ends", "default")
    wait(lambda: api.find("v1", "Pod", "ends", "default") is None, "the pod to be gone")
    assert notes.read_text() == "preStop\nSIGTERM\n"
    assert servers(found) == []
    assert not list((cluster.dir / "pods").glob("default_ends_*"))


def test_a_container_that_ignores_sigterm_is_killed_with_its_children_after_the_grace_period(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    script = "import signal, subprocess, time; signal.signal(15, signal.SIG_IGN); subprocess.Popen(['setsid', 'sleep', '300']); time.sleep(300)"
    command = {"command": ["python", "-c", script], "readinessProbe": {"exec": {"command": ["true"]}}}
    found = run(api, pod("stubborn", tmp_path / "notes", container=command, terminationGracePeriodSeconds=2))
    wait(lambda: len(servers(found)) == 2, "the child in a session of its own")
    begun = time.monotonic()
    api.delete("v1", "Pod", "stubborn", "default")
    wait(lambda: api.find("v1", "Pod", "stubborn", "default") is None, "the pod to be gone")
    assert time.monotonic() - begun >= 2
    assert servers(found) == []


def test_init_containers_run_in_order_before_the_others(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    inits = [{"name": f"init-{word}", "image": "test/server", "command": ["sh", "-c", f"sleep 0.3; echo {word} >> {notes}"]} for word in ("one", "two")]
    found = run(api, pod("inits", notes, initContainers=inits))
    assert notes.read_text() == "one\ntwo\n"
    assert all(each["ready"] for each in found["status"]["initContainerStatuses"])


def test_two_pods_listen_on_the_same_port(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    first, second = (run(api, pod(name, tmp_path / name)) for name in ("first", "second"))
    assert address(cluster, first) != address(cluster, second)
    assert ask(cluster, first)["pid"] != ask(cluster, second)["pid"]


def test_an_image_that_nothing_stands_for_is_told(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    api.create(pod("unknown", tmp_path / "notes", container={"image": "example.com/other:v2"}))
    waiting = wait(lambda: _waiting(api, "unknown", "ErrImageNeverPull"), "the message")
    assert 'image "example.com/other:v2"' in waiting["message"]


def test_a_missing_config_map_is_told_and_its_arrival_starts_the_pod(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    entry = {"name": "LATE", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "word"}}}
    api.create(pod("late", tmp_path / "notes", container={"env": [entry]}))
    waiting = wait(lambda: _waiting(api, "late", "CreateContainerConfigError"), "the message")
    assert waiting["message"] == "ConfigMap `late` does not exist"
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}, "data": {"word": "here"}})
    found = wait(lambda: ready(api, "late"), "the pod to be Ready")
    assert ask(cluster, found)["env"]["LATE"] == "here"


def _seen(api: Kube, name: str) -> bool:
    return bool(api.get("v1", "Pod", name, "default")["status"].get("containerStatuses"))


def _waiting(api: Kube, name: str, reason: str) -> Object | None:
    if not _seen(api, name):
        return None
    waiting = container_status(api, name)["state"].get("waiting")
    return waiting if waiting and waiting["reason"] == reason else None


def test_kubectl_logs_shows_this_run_and_the_one_before(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("talks", tmp_path / "notes"))
    line = f"serving at {address(cluster, found)}\n"
    assert kubectl(cluster, "logs", "talks") == line
    stamped = kubectl(cluster, "logs", "talks", "--timestamps", "--tail=1")
    assert stamped.endswith(f"Z {line}")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        ask(cluster, found, "/exit")
    wait(lambda: container_status(api, "talks")["restartCount"] == 1, "the restart")
    assert kubectl(cluster, "logs", "talks", "--previous") == line
    follower = subprocess.Popen([*_kubectl(cluster), "logs", "talks", "-f"], stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    # Deleted before kubectl has asked, the pod would have no log to follow.
    assert follower.stdout.readline() == line
    api.delete("v1", "Pod", "talks", "default")
    assert follower.wait(timeout=30) == 0, "a follower is let go when the pod ends"
    follower.stdout.close()


def test_exec_says_that_there_is_no_container_to_enter(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    run(api, pod("closed", tmp_path / "notes"))
    done = subprocess.run([*_kubectl(cluster), "exec", "closed", "--", "true"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "no container to enter" in done.stderr


def test_the_log_server_refuses_who_has_no_certificate_of_the_cluster(cluster: HostCluster) -> None:
    done = subprocess.run(["curl", "-sk", f"https://127.0.0.1:{cluster.port('node-agent')}/healthz"], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode != 0
    assert done.stdout == ""


def _kubectl(cluster: HostCluster) -> list[str]:
    return [str(tools.path("kubectl")), f"--kubeconfig={cluster.kubeconfig}"]


def kubectl(cluster: HostCluster, *arguments: str) -> str:
    return subprocess.run([*_kubectl(cluster), *arguments], capture_output=True, text=True, check=True, timeout=30).stdout


def test_ready_pods_are_in_the_mesh_and_leave_it_before_sigterm(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    hook = {"preStop": {"sleep": {"seconds": 3}}}
    found = run(api, pod("meshed", notes, container={"lifecycle": hook}))
    api.apply(_mesh_crd())
    entry = wait(lambda: api.find(API_VERSION, KIND, "meshed", "default"), "the mesh entry, once Istio is there", 20)
    assert entry["spec"]["address"] == address(cluster, found)
    assert entry["spec"]["labels"] == found["metadata"]["labels"]
    assert entry["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    Path(f"{notes}.ill").touch()
    wait(lambda: api.find(API_VERSION, KIND, "meshed", "default") is None, "the entry to go with readiness")
    Path(f"{notes}.ill").unlink()
    wait(lambda: api.find(API_VERSION, KIND, "meshed", "default"), "the entry to come back")
    api.delete("v1", "Pod", "meshed", "default")
    wait(lambda: api.find(API_VERSION, KIND, "meshed", "default") is None, "the entry to go with the pod")
    assert not notes.exists(), "out of the mesh before SIGTERM"
    wait(lambda: api.find("v1", "Pod", "meshed", "default") is None, "the pod to be gone")


def _mesh_crd() -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"kind": KIND, "listKind": f"{KIND}List", "plural": "workloadentries", "singular": "workloadentry"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "workloadentries.networking.istio.io"},
        "spec": {"group": "networking.istio.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


def agent_pid_or_none(cluster: HostCluster) -> int | None:
    (status,) = [each for each in cluster.status() if each.name == "node-agent"]
    return status.pid


def agent_pid(cluster: HostCluster) -> int:
    return wait(lambda: agent_pid_or_none(cluster), "the agent to run")


def test_a_killed_agent_leaves_its_pods_running_and_the_next_one_takes_them_over(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("kept", tmp_path / "notes"))
    doomed = run(api, pod("doomed", tmp_path / "doomed"))
    server = ask(cluster, found)["pid"]
    old = agent_pid(cluster)
    os.kill(old, signal.SIGKILL)
    os.kill(ask(cluster, doomed)["pid"], signal.SIGKILL)
    wait(lambda: agent_pid_or_none(cluster) not in (None, old), "a new agent")
    wait(lambda: container_status(api, "doomed")["restartCount"] == 1 and ready(api, "doomed"), "the one that died meanwhile to be started again")
    assert ask(cluster, found)["pid"] == server
    assert servers(found) == [server]
    assert container_status(api, "kept")["restartCount"] == 0
    assert ready(api, "kept")
    os.kill(server, signal.SIGKILL)
    wait(lambda: container_status(api, "kept")["restartCount"] == 1 and ready(api, "kept"), "a restart of what was taken over")
    assert container_status(api, "kept")["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert len(servers(found)) == 1


def test_a_pod_deleted_while_no_agent_runs_is_ended_by_the_next_one(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("orphan", tmp_path / "notes"))
    os.kill(agent_pid(cluster), signal.SIGKILL)
    api.delete("v1", "Pod", "orphan", "default", grace_period_seconds=0)
    wait(lambda: servers(found) == [], "the process to be ended")
    wait(lambda: not list((cluster.dir / "pods").glob("default_orphan_*")), "its files to be removed")


def test_a_region_that_is_killed_takes_its_servers_along_and_brings_them_back(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("revived", tmp_path / "notes"))
    where = address(cluster, found)
    cluster.kill()
    assert servers(found) == []
    assert processes.find(processes.equals("FLEET_CELL", cluster.dir.resolve())) == []
    cluster.start()
    wait(lambda: container_status(api, "revived")["restartCount"] == 1 and ready(api, "revived"), "the pod to be ready again", 60)
    assert address(cluster, found) == where
    assert len(servers(found)) == 1


def test_a_region_that_is_stopped_ends_its_servers_in_order_and_starts_them_again(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    found = run(api, pod("stopped", notes, container={"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}))
    cluster.stop()
    assert notes.read_text() == "SIGTERM\n"
    assert servers(found) == []
    cluster.start()
    wait(lambda: container_status(api, "stopped")["restartCount"] == 1 and ready(api, "stopped"), "the pod to be ready again", 60)


def test_the_agent_stays_small(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(api, pod(name, tmp_path / name))
    pid = agent_pid(cluster)
    resident = next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    assert resident < 60 * 1024


def test_pods_run_on_while_the_api_server_is_away(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("alone", tmp_path / "notes"))
    (server,) = [each.pid for each in cluster.status() if each.name == "kube-apiserver"]
    assert server is not None
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask(cluster, found, "/exit")
        pid = wait(lambda: _asked(cluster, found), "a restart without API server", 15)
    finally:
        os.kill(server, signal.SIGCONT)
    wait(lambda: container_status(api, "alone")["restartCount"] == 1 and ready(api, "alone"), "the status to be told later", 40)
    assert ask(cluster, found)["pid"] == pid


def _asked(cluster: HostCluster, found: Object) -> int | None:
    try:
        return int(ask(cluster, found)["pid"])
    except OSError:
        return None


def test_the_model_store_is_bound_and_its_models_are_readable_in_a_pod(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    spec = {"cluster": cluster.name}
    assert model_store.apply(spec) == model_store.apply(spec) == {"models": ["tiny-chat"]}
    manifest = pod(
        "reads",
        tmp_path / "notes",
        container={"args": ["/mnt/models"], "volumeMounts": [{"name": "models", "mountPath": "/mnt/models", "subPath": "tiny-chat", "readOnly": True}]},
        volumes=[{"name": "models", "persistentVolumeClaim": {"claimName": "model-store", "readOnly": True}}],
    )
    manifest["metadata"]["namespace"] = "models"
    wait(lambda: api.find("v1", "ServiceAccount", "default", "models"), "the service account of the namespace")
    api.create(manifest)
    found = wait(lambda: _ready_in(api, "reads", "models"), "the pod to be Ready")
    (folder,) = ask(cluster, found)["argv"]
    assert json.loads(Path(folder, "config.json").read_text())["model_type"] == "llama"
    api.delete("v1", "Pod", "reads", "models", grace_period_seconds=0)
    wait(lambda: servers(found) == [], "the server to end")
    model_store.delete(spec)
    wait(lambda: api.find("v1", "PersistentVolume", "model-store") is None, "the volume to go")
    assert model_store.apply(spec) == {"models": ["tiny-chat"]}


def test_a_model_in_the_registry_of_the_region_is_mounted_as_a_volume_and_is_there_without_it(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    spec = {"cluster": cluster.name}
    model_store.apply(spec)
    digest = registry.put(cluster, paths.STATE / "models" / "tiny-chat")

    def serve(name: str, reference: str) -> Path:
        # As KServe makes it of oci:// in its native mode.
        manifest = pod(
            name,
            tmp_path / name,
            container={"args": ["/mnt/models"], "volumeMounts": [{"name": "mnt-models", "mountPath": "/mnt/models", "subPath": "models", "readOnly": True}]},
            volumes=[{"name": "mnt-models", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}],
        )
        manifest["metadata"]["namespace"] = "models"
        wait(lambda: api.find("v1", "ServiceAccount", "default", "models"), "the service account of the namespace")
        api.create(manifest)
        found = wait(lambda: _ready_in(api, name, "models"), f"pod {name} to be Ready")
        (folder,) = ask(cluster, found)["argv"]
        api.delete("v1", "Pod", name, "models", grace_period_seconds=0)
        wait(lambda: servers(found) == [], "the server to end")
        return Path(folder)

    mounted = serve("by-digest", f"{registry.HOST}/models/tiny-chat@{digest}")
    assert {file.name: file.read_bytes() for file in mounted.iterdir()} == tiny_model.files()
    # A tag is asked for, what it names is there already.
    assert serve("by-tag", f"{registry.HOST}/models/tiny-chat:latest") == mounted
    cluster.remove_unit(registry.UNIT)
    assert serve("without-registry", f"{registry.HOST}/models/tiny-chat@{digest}") == mounted
    model_store.apply(spec)


def _ready_in(api: Kube, name: str, namespace: str) -> Object | None:
    found = api.find("v1", "Pod", name, namespace)
    return found if found and condition(found, "Ready").get("status") == "True" else None


def test_removing_the_agent_removes_its_node_and_its_processes(cluster: HostCluster, api: Kube, tmp_path: Path) -> None:
    found = run(api, pod("last", tmp_path / "notes"))
    node_agent.delete(cluster)
    node_agent.delete(cluster)
    assert servers(found) == []
    assert api.find("v1", "Node", NODE) is None
    wait(lambda: api.find("v1", "Pod", "last", "default") is None, "the pod to be gone")
    node_agent.apply(cluster, "region-a", "zone-a")
