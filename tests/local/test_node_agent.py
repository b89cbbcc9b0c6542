"""Pure parts of the node agent: what a kubelet would compute, and what stands in for a container's file system."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FleetError
from local.node_agent import images, logs, probes, processes, volumes
from local.node_agent.addresses import Addresses
from local.node_agent.containers import Backoff, Container, Record, Surroundings
from local.node_agent.environment import ConfigError, Facts, expand, resolve, resource
from local.node_agent.mesh import workload_entry
from local.node_agent.pods import uncovered
from local.node_agent.status import is_ready, pod_status

Object = dict[str, Any]

POD: Object = {
    "metadata": {"name": "model", "namespace": "models", "uid": "u-1", "labels": {"app": "model"}, "annotations": {"note": "x"}},
    "spec": {"serviceAccountName": "server", "containers": [{"name": "main", "image": "i"}]},
}
FACTS = Facts(POD, "us-east-cpu-0", "127.11.0.2", {"cpu": "2", "memory": "8Gi"})


# Environment


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("$(A $(B)", "$(A 2"),
    ],
)
def test_references_expand_as_kubernetes_documents_them(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text(alphabet="ab/-=: ."))
def test_text_without_a_dollar_is_left_alone(text: str) -> None:
    assert expand(text, {"a": "1"}) == text


def test_env_sees_earlier_entries_and_the_pod() -> None:
    container: Object = {
        "envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "absent", "optional": True}}],
        "env": [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "URL", "value": "http://$(IP):$(P_port)/$(LATER)"},
            {"name": "LATER", "value": "no"},
            {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": True}}},
        ],
    }
    resolved = resolve(container, FACTS, lambda kind, name: {"port": "80"} if (kind, name) == ("Secret", "s") else None)
    assert resolved == {
        "P_port": "80",
        "IP": "127.11.0.2",
        "NODE": "us-east-cpu-0",
        "LABEL": "model",
        "URL": "http://127.11.0.2:80/$(LATER)",
        "LATER": "no",
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"configMapKeyRef": {"name": "absent", "key": "k"}}, "ConfigMap `absent` does not exist"),
        ({"secretKeyRef": {"name": "there", "key": "k"}}, "Secret `there` has no key `k`"),
        ({"fieldRef": {"fieldPath": "spec.colour"}}, "fieldRef is not one that Kubernetes knows: `spec.colour`"),
        ({"fileKeyRef": {}}, "env X: the node agent does not know valueFrom of kind: `fileKeyRef`"),
    ],
)
def test_what_cannot_be_resolved_is_named(entry: Object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve({"env": [{"name": "X", "valueFrom": entry}]}, FACTS, lambda kind, name: {} if name == "there" else None)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "8192"),
        ({"resource": "requests.memory"}, str(1024**3)),
    ],
)
def test_resources_are_rounded_up_and_fall_back_to_the_node(reference: Object, value: str) -> None:
    container: Object = {"resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "1Gi"}}}
    assert resource(reference, container, FACTS) == value


# Mounts


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/mnt/models", "/host/m"),
        ("/mnt/models/tiny", "/host/m/tiny"),
        ("--model=/mnt/models", "--model=/host/m"),
        ("/mnt/models-other", "/mnt/models-other"),
        ("/srv/mnt/models", "/srv/mnt/models"),
        ("file:///mnt/models/x", "file:///host/m/x"),
        ("/mnt/models/cache", "/host/c"),
        ("/mnt/models/cache/a:/mnt/models/b", "/host/c/a:/host/m/b"),
        ('{"path": "/mnt/models"}', '{"path": "/host/m"}'),
    ],
)
def test_mounted_paths_are_replaced_where_a_path_begins(text: str, rewritten: str) -> None:
    assert volumes.rewrite(text, {"/mnt/models": "/host/m", "/mnt/models/cache": "/host/c"}) == rewritten


def test_a_host_path_that_contains_a_mount_path_is_not_replaced_again() -> None:
    assert volumes.rewrite("/a:/b", {"/a": "/x:/b", "/b": "/y"}) == "/x:/b:/y"


def test_mounts_and_volume_files_stay_inside_their_volume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="subPath must stay inside"):
        volumes.mounts({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]}, {"v": tmp_path})
    pod: Object = {**POD, "spec": {"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../../k"}]}}]}}
    with pytest.raises(ConfigError, match="must stay inside its volume"):
        volumes.prepare(pod, tmp_path / "volumes", FACTS, lambda _kind, _name: {"k": "v"}, lambda _: None, lambda _a, _s: "", _no_image)


def _no_image(name: str) -> Path:
    raise AssertionError(name)


def test_a_volume_of_an_image_is_the_images_files_and_an_image_that_cannot_be_had_keeps_the_pod_waiting(tmp_path: Path) -> None:
    pod: Object = {**POD, "spec": {"volumes": [{"name": "v", "image": {"reference": "r/models/x@sha256:1", "pullPolicy": "IfNotPresent"}}]}}

    def prepare(image: Callable[[str], Path]) -> dict[str, Path]:
        return volumes.prepare(pod, tmp_path, FACTS, lambda _kind, _name: None, lambda _: None, lambda _a, _s: "", image)

    def refused(name: str) -> Path:
        raise FleetError(f"nobody has {name}")

    assert prepare(lambda name: tmp_path / name) == {"v": tmp_path / "r/models/x@sha256:1"}
    with pytest.raises(ConfigError, match="image volume v: nobody has r/models/x@sha256:1"):
        prepare(refused)
    assert uncovered({"spec": {**pod["spec"], "containers": []}}) == []


def test_a_claim_must_be_bound_to_a_folder_of_this_machine(tmp_path: Path) -> None:
    pod: Object = {**POD, "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "store"}}]}}

    def prepare(volume: Object | None) -> dict[str, Path]:
        return volumes.prepare(pod, tmp_path, FACTS, lambda _kind, _name: None, lambda _: volume, lambda _a, _s: "", _no_image)

    with pytest.raises(ConfigError, match="`store` is not bound"):
        prepare(None)
    with pytest.raises(ConfigError, match="is no hostPath"):
        prepare({"metadata": {"name": "pv"}, "spec": {"nfs": {}}})
    with pytest.raises(ConfigError, match="no such folder"):
        prepare({"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": str(tmp_path / "none")}}})
    assert prepare({"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": str(tmp_path)}}}) == {"v": tmp_path}


# Probes


def outcomes(probe: Object, initial: bool | None, results: str) -> list[bool | None]:
    threshold = probes.Threshold(probe, initial)
    return [threshold.record(success=each == "+") for each in results]


def test_a_verdict_changes_after_enough_results_in_a_row() -> None:
    assert outcomes({}, False, "+--+---") == [True, True, True, True, True, True, False]
    assert outcomes({"successThreshold": 2, "failureThreshold": 1}, False, "+-++-") == [False, False, False, True, False]
    assert outcomes({"failureThreshold": 2}, None, "--") == [None, False]


@given(st.integers(1, 5), st.integers(1, 5), st.text(alphabet="+-", max_size=40))
def test_a_verdict_is_what_the_last_long_enough_run_said(successes: int, failures: int, results: str) -> None:
    verdict: bool | None = None
    for end in range(1, len(results) + 1):
        if results[:end].endswith("+" * successes):
            verdict = True
        elif results[:end].endswith("-" * failures):
            verdict = False
    found = outcomes({"successThreshold": successes, "failureThreshold": failures}, None, results)
    assert (found[-1] if found else None) == verdict


def target() -> probes.Target:
    return probes.Target("127.0.0.1", {}, lambda command, timeout: probes.run_in(command, {"PATH": "/usr/bin:/bin"}, "/", timeout))


def test_a_probe_never_asks_beyond_loopback() -> None:
    problem = probes.check({"httpGet": {"host": "192.0.2.1", "port": 80}}, target())
    assert problem == "a probe may ask loopback only, got host: `192.0.2.1`"


def test_an_exec_probe_tells_the_exit_code_and_ends_what_hangs() -> None:
    assert probes.check({"exec": {"command": ["true"]}}, target()) is None
    assert probes.check({"exec": {"command": ["sh", "-c", "exit 4"]}}, target()) == "command exited with 4"
    begun = time.monotonic()
    assert "timed out" in (probes.check({"exec": {"command": ["sleep", "60"]}, "timeoutSeconds": 1}, target()) or "")
    assert time.monotonic() - begun < 5


def test_ports_are_found_by_number_and_by_name() -> None:
    assert probes.port(80, {}) == 80
    assert probes.port("80", {}) == 80
    assert probes.port("http", {"http": 8080}) == 8080
    with pytest.raises(ValueError, match="no port named `grpc`"):
        probes.port("grpc", {"http": 8080})


# Restarts


def test_restarts_wait_ten_seconds_doubling_to_five_minutes_and_are_forgotten_after_ten() -> None:
    backoff, now, pauses = Backoff(), 1000.0, list[float]()
    for _ in range(8):
        pauses.append(backoff.pause(now))
        now += pauses[-1]
        backoff.restarted(now)
        now += 1
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.pause(now + 601) == 0
    backoff.restarted(now + 601)
    assert backoff.pause(now + 602) == 10


# Addresses


def test_addresses_are_stable_over_a_restart_and_not_given_to_the_next_pod(tmp_path: Path) -> None:
    table = Addresses(tmp_path / "addresses.json", 3)
    first, second = table.of("a"), table.of("b")
    assert first == "127.13.0.2"
    assert first != second
    table.release("a")
    again = Addresses(tmp_path / "addresses.json", 3)
    assert again.of("b") == second
    assert again.of("c") not in (first, second)
    again.keep_only({"c"})
    assert Addresses(tmp_path / "addresses.json", 3).of("b") != second


def test_half_a_table_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text('{"next"')
    assert Addresses(tmp_path / "addresses.json", 0).of("a") == "127.10.0.2"


@pytest.mark.parametrize("index", [-1, 240])
def test_there_are_240_pod_networks(tmp_path: Path, index: int) -> None:
    with pytest.raises(ValueError, match=f"must be 0 to 239, got: `{index}`"):
        Addresses(tmp_path / "addresses.json", index)


# Status


def record(name: str, **values: Any) -> Record:
    return Record(name, **values)


RUNNING: Object = {"running": {"startedAt": "t"}}


def status_of(*mains: Record, inits: tuple[Record, ...] = (), spec: Object | None = None, previous: Object | None = None) -> Object:
    containers = [{"name": each.name, "image": "i"} for each in mains]
    pod = {**POD, "spec": {"containers": containers, "initContainers": [{"name": each.name, "image": "i"} for each in inits], **(spec or {})}}
    return pod_status(pod, previous or {}, inits, mains, prepared=True, now="t1")


def ended(code: int) -> Object:
    return {"terminated": {"exitCode": code}}


@pytest.mark.parametrize(
    ("states", "policy", "phase"),
    [
        ([{"waiting": {}}], "Always", "Pending"),
        ([RUNNING, {"waiting": {}}], "Always", "Running"),
        ([ended(0)], "Never", "Succeeded"),
        ([ended(0), ended(2)], "Never", "Failed"),
        ([ended(0), RUNNING], "OnFailure", "Running"),
    ],
)
def test_the_phase_follows_from_the_containers(states: list[Object], policy: str, phase: str) -> None:
    records = [record(f"c{index}", state=state) for index, state in enumerate(states)]
    assert status_of(*records, spec={"restartPolicy": policy})["phase"] == phase


def test_ready_needs_all_containers_and_all_gates() -> None:
    good, bad = record("a", state=RUNNING, ready=True), record("b", state=RUNNING)
    assert is_ready(status_of(good))
    assert not is_ready(status_of(good, bad))
    gates = {"readinessGates": [{"conditionType": "g"}]}
    assert not is_ready(status_of(good, spec=gates))


def test_a_condition_keeps_its_time_while_it_does_not_change() -> None:
    before = status_of(record("a", state=RUNNING, ready=True))
    for condition in before["conditions"]:
        condition["lastTransitionTime"] = "t0"
    after = status_of(record("a", state=RUNNING), previous=before)
    times = {each["type"]: each["lastTransitionTime"] for each in after["conditions"]}
    assert times == {"PodReadyToStartContainers": "t0", "Initialized": "t0", "PodScheduled": "t0", "Ready": "t1", "ContainersReady": "t1"}


def test_a_failed_init_container_of_a_pod_that_never_restarts_fails_the_pod() -> None:
    failed = status_of(record("a", state={"waiting": {}}), inits=(record("i", state=ended(1)),), spec={"restartPolicy": "Never"})
    assert failed["phase"] == "Failed"
    assert {each["type"]: each["status"] for each in failed["conditions"]}["Initialized"] == "False"


def test_what_the_agent_does_not_do_is_named() -> None:
    pod: Object = {
        "spec": {
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "main", "lifecycle": {"postStart": {}}, "livenessProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "v", "nfs": {}}],
        }
    }
    assert uncovered(pod) == ["initContainer side with restartPolicy", "lifecycle.postStart of main", "livenessProbe grpc of main", "volume v of kind nfs"]
    assert uncovered(POD) == []


def test_the_mesh_entry_has_the_labels_that_services_select() -> None:
    entry = workload_entry(POD, "127.11.0.2", "us-east-cpu-0")
    assert entry["spec"] == {"address": "127.11.0.2", "labels": {"app": "model"}, "serviceAccount": "server"}
    assert entry["metadata"]["labels"]["app"] == "model"


# Images


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("vllm/vllm-openai-cpu:v0.32.0-x86_64", "vllm/vllm-openai-cpu"),
        ("docker.io/vllm/vllm-openai-cpu", "vllm/vllm-openai-cpu"),
        ("localhost:5000/team/vllm@sha256:abc", "localhost:5000/team/vllm"),
        ("registry.example.com/vllm:v1@sha256:abc", "registry.example.com/vllm"),
    ],
)
def test_an_image_is_known_by_its_repository(reference: str, name: str, tmp_path: Path) -> None:
    assert images.repository(reference) == name
    (tmp_path / "images.json").write_text(json.dumps({name: {"path": ["/tool/bin"], "entrypoint": ["run"]}}))
    found = images.find(tmp_path, reference)
    assert found is not None
    assert found.environment["PATH"].startswith("/tool/bin:")
    assert images.find(tmp_path, "other") is None


# Logs


def test_a_log_is_read_by_tail_time_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "main" / "0.log"
    os.close(logs.open_for(path))
    watcher = logs.Watcher(path)
    for line in ("one", "two", "three"):
        with path.open("a") as stream:
            stream.write(f"{line}\n")
        watcher.look()
        time.sleep(0.02)
    assert b"".join(logs.read(path)) == b"one\ntwo\nthree\n"
    assert b"".join(logs.read(path, tail=2)) == b"two\nthree\n"
    assert b"".join(logs.read(path, tail=0)) == b""
    assert b"".join(logs.read(path, limit=5)) == b"one\nt"
    assert b"".join(logs.read(path, end=4)) == b"one\n"
    stamped = b"".join(logs.read(path, timestamps=True)).splitlines()
    moments = [line.split()[0] for line in stamped]
    assert moments == sorted(moments)
    assert [line.split()[1] for line in stamped] == [b"one", b"two", b"three"]


def test_a_long_log_is_cut_and_its_last_part_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT_BYTES", 100)
    path = tmp_path / "main" / "0.log"
    descriptor = logs.open_for(path)
    watcher = logs.Watcher(path)
    for number in range(50):
        os.write(descriptor, f"line {number:03}\n".encode())
        watcher.look()
    os.close(descriptor)
    assert path.stat().st_size <= 110
    text = b"".join(logs.read(path)).decode().splitlines()
    assert text[-1] == "line 049"
    assert sum(each.stat().st_size for each in path.parent.glob("*.log*")) < 400


def test_only_the_last_two_runs_keep_their_logs(tmp_path: Path) -> None:
    for number in range(4):
        os.close(logs.open_for(tmp_path / "main" / f"{number}.log"))
    assert sorted(each.name for each in (tmp_path / "main").iterdir()) == ["2.log", "3.log"]


# Processes


def test_a_process_is_told_from_a_later_one_of_the_same_id(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        running = processes.start(["sleep", "60"], {"PATH": "/usr/bin:/bin"}, "/", log.fileno(), "test-uid", "main")
    try:
        assert processes.adopt(running.pid, running.start_ticks) is not None
        assert processes.adopt(running.pid, running.start_ticks + 1) is None
        assert processes.members("test-uid", "main") == [running.pid]
        assert processes.members("test-uid", "other") == []
        assert abs(processes.started_at(running) - time.time()) < 2
    finally:
        processes.kill_rest("test-uid")
    assert running.child is not None
    assert running.child.wait(5) == -9
    assert processes.adopt(running.pid, running.start_ticks) is None


def test_a_title_that_is_set_leaves_the_marker_readable(tmp_path: Path) -> None:
    # What setproctitle does, in so far as it obeys SPT_NOENV, is its own affair; ours is that the variable is there.
    script = "import os, sys; sys.exit(0 if os.environ['SPT_NOENV'] == '1' and os.environ['FLEET_POD'] == 'test-title' else 1)"
    with (tmp_path / "log").open("wb") as log:
        running = processes.start([sys.executable, "-c", script], {}, "/", log.fileno(), "test-title", "main")
    assert running.child is not None
    assert running.child.wait(10) == 0


def test_listeners_are_found_by_process() -> None:
    with socket.socket() as server:
        server.bind(("127.44.0.9", 0))
        server.listen()
        listening = ("127.44.0.9", server.getsockname()[1])
        assert listening in processes.listeners([os.getpid()])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000001000000", "::1"),
        ("00000000000000000000000000000000", "0" * 32),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
    ],
)
@pytest.mark.skipif(sys.byteorder == "big", reason="the kernel prints words in the machine's byte order")
def test_addresses_of_the_kernel_are_read(text: str, address: str) -> None:
    assert processes.kernel_address(text) == address


# One container, without an API server


def container(tmp_path: Path, spec: Object, record: Record | None = None) -> Container:
    (tmp_path / "images.json").write_text(json.dumps({"system": {"path": []}}))
    around = Surroundings("test-one", tmp_path / "pod", tmp_path, FACTS, lambda _kind, _name: None, dict, lambda: None, lambda _: None)
    return Container({"name": "main", "image": "system", **spec}, record or Record("main"), around, "Always")


def tick_until(made: Container, check: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, made.record
        made.tick(time.time())
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    processes.kill_rest("test-one")


def test_a_server_that_listens_beyond_loopback_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "listeners", lambda _: [("127.0.0.1", 1), ("0.0.0.0", 8080)])
    made = container(tmp_path, {"command": ["sleep", "60"]})
    tick_until(made, lambda: made.record.last_state)
    assert "listens at 0.0.0.0:8080" in made.record.last_state["terminated"]["message"]


def test_a_program_that_does_not_exist_is_told(tmp_path: Path) -> None:
    made = container(tmp_path, {"command": ["no-such-program"]})
    made.tick(time.time())
    assert made.record.last_state["terminated"]["reason"] == "StartError"
    assert made.record.last_state["terminated"]["message"] == "no-such-program: No such file or directory"


def test_a_startup_probe_holds_the_others_back_and_restarts_when_it_gives_up(tmp_path: Path) -> None:
    started = tmp_path / "started"
    probe = {"exec": {"command": ["test", "-e", str(started)]}, "periodSeconds": 0.1}
    made = container(
        tmp_path, {"command": ["sleep", "60"], "startupProbe": {**probe, "failureThreshold": 50}, "livenessProbe": {"exec": {"command": ["true"]}}}
    )
    tick_until(made, lambda: made.running)
    assert not made.record.started
    assert not made.record.ready
    started.touch()
    tick_until(made, lambda: made.record.started and made.record.ready)

    made.end(time.monotonic)
    tick_until(made, lambda: made.done)
    started.unlink()
    other = container(tmp_path, {"command": ["sleep", "60"], "startupProbe": {**probe, "failureThreshold": 2}})
    tick_until(other, lambda: other.record.last_state)
    assert "startup probe failed" in other.record.last_state["terminated"]["message"]


def test_a_container_whose_agent_died_is_taken_over_with_what_was_known(tmp_path: Path) -> None:
    first = container(tmp_path, {"command": ["sleep", "60"]})
    tick_until(first, lambda: first.record.ready)
    second = container(tmp_path, {"command": ["sleep", "60"]}, Record(**first.record.to_json()))
    assert second.running
    assert second.record.ready
    assert second.record.pid == first.record.pid
    assert processes.members("test-one") == [first.record.pid]


def test_a_scratch_folder_stays_short_enough_for_unix_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    made = container(deep, {"command": ["sh", "-c", "test -w $TMPDIR && test ${#TMPDIR} -lt 62 && sleep 60"]})
    tick_until(made, lambda: made.record.ready)
    time.sleep(0.2)
    made.tick(time.time())
    assert made.running
