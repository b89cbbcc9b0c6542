"""A cluster of host processes as a whole: ports, errors, kill, freeze, revival. Single units: test_supervisor.py."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from kube.client import Kube, condition
from local import gpu_nodes, kubernetes, processes
from local.down import CELL, of_fleet
from local.host_cluster import HostCluster, PortError, UnitError, all_clusters
from local.units import HttpReady, TcpReady, Unit
from specs.labels import LABEL_CAPACITY_TYPE
from tests.conftest import wait_until
from toolchain import paths

Object = dict[str, Any]

# Answers each connection with one word. The port's purpose is kube-apiserver, by which alive() judges.
SERVER = textwrap.dedent(
    """
    import socket, sys
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        connection = server.accept()[0]
        connection.sendall(b"here")
        connection.close()
    """
)
# A grandchild with a session of its own and init for a parent: neither process group nor parentage leads to it.
RUNAWAY = textwrap.dedent(
    """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(sys.argv[1] + ".tmp", "w") as stream:
                stream.write(str(os.getpid()))
            os.rename(sys.argv[1] + ".tmp", sys.argv[1])
            time.sleep(600)
        os._exit(0)
    os.wait()
    time.sleep(600)
    """
)


@pytest.fixture
def cluster(state: Path) -> HostCluster:
    return HostCluster("one")


def server(cluster: HostCluster) -> Unit:
    port = cluster.port("kube-apiserver")
    return Unit(name="server", argv=[sys.executable, "-c", SERVER, str(port)], ready=TcpReady(host="127.0.0.1", port=port))


def sleeper(name: str) -> Unit:
    return Unit(name=name, argv=["/bin/sleep", "600"])


def ask(cluster: HostCluster, timeout: float = 1.0) -> bytes:
    with socket.create_connection(("127.0.0.1", cluster.port("kube-apiserver")), timeout=timeout) as connection:
        return connection.recv(10)


def running(cluster: HostCluster) -> list[int]:
    return processes.find(processes.equals(CELL, cluster.dir))


def pid_of(cluster: HostCluster, unit: str) -> int | None:
    return next(each.pid for each in cluster.status() if each.name == unit)


# Ports


def test_a_port_is_the_same_at_every_call_and_never_an_ephemeral_one(cluster: HostCluster) -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [cluster.port(f"purpose-{number}") for number in range(25)]
    assert len(set(ports)) == 25
    assert max(ports) < first_ephemeral
    assert [HostCluster("one").port(f"purpose-{number}") for number in range(25)] == ports


def test_clusters_have_blocks_of_their_own(cluster: HostCluster) -> None:
    other = HostCluster("two")
    assert cluster.index != other.index
    assert not {cluster.port(str(n)) for n in range(20)} & {other.port(str(n)) for n in range(20)}


def test_a_block_in_which_a_stranger_listens_is_left_alone(cluster: HostCluster) -> None:
    port, index = cluster.port("any"), cluster.index
    cluster.delete()
    with socket.create_server(("127.0.0.1", port)):
        assert HostCluster("two").index != index


def test_a_used_up_block_is_an_error_that_names_the_cluster(cluster: HostCluster) -> None:
    first = cluster.port("first")
    with pytest.raises(PortError, match="cluster one uses all"):
        _take_ports(cluster, 1000)
    assert cluster.port("first") == first


def _take_ports(cluster: HostCluster, count: int) -> None:
    for number in range(count):
        cluster.port(str(number))


def test_drivers_that_run_at_the_same_time_take_different_ports(state: Path) -> None:
    code = """
import sys
from local.host_cluster import HostCluster
cluster = HostCluster(sys.argv[1])
print("loaded", flush=True)
sys.stdin.readline()
print([cluster.port(str(number)) for number in range(25)])
"""
    # PYTHONPATH: the test's own clone, wherever the package is installed from.
    environment = {**os.environ, "FLEET_STATE": str(state), "PYTHONPATH": str(paths.REPO)}
    names = ("one", "two", "three", "one", "two", "three")
    started = [
        subprocess.Popen([sys.executable, "-c", code, name], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in names
    ]
    # All at once: their imports take longer than what is to collide.
    assert all(each.stdout and each.stdout.readline() == "loaded\n" for each in started)
    for each in started:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    ports = [json.loads(each.communicate(timeout=60)[0]) for each in started]
    assert ports[:3] == ports[3:]
    assert len({port for each in ports for port in each}) == 75


# Errors


def test_a_unit_that_does_not_become_ready_is_told_with_reason_and_log(cluster: HostCluster) -> None:
    url = f"http://127.0.0.1:{cluster.port('x')}/healthz"
    cluster.put_unit(Unit(name="broken", argv=["/bin/sh", "-c", "echo cannot open database; exit 7"], ready=HttpReady(url=url)))
    cluster.ensure_supervised()
    with pytest.raises(UnitError) as caught:
        cluster.wait_ready("broken", 1.5)
    message = str(caught.value)
    for part in ("broken on one", url, "exited with 7", "cannot open database"):
        assert part in message
    assert str(cluster.dir / "logs" / "broken.log") in caught.value.hint


def test_a_unit_whose_predecessor_is_not_ready_says_so(cluster: HostCluster) -> None:
    nobody = TcpReady(host="127.0.0.1", port=cluster.port("nobody"))
    cluster.put_unit(Unit(name="database", argv=["/bin/sleep", "600"], ready=nobody))
    cluster.put_unit(Unit(name="above", argv=["/bin/sleep", "600"], after=["database"]))
    cluster.ensure_supervised()
    with pytest.raises(UnitError, match="it waits for database"):
        cluster.wait_ready("above", 1.0)


def test_a_taken_port_is_told_at_once_with_unit_port_and_remedy(cluster: HostCluster) -> None:
    port = cluster.port("kube-apiserver")
    # As Go's servers say it.
    refusal = f"echo 'listen tcp 127.0.0.1:{port}: bind: address already in use'; exit 1"
    url = f"https://127.0.0.1:{port}/readyz"
    cluster.put_unit(Unit(name="server", argv=["/bin/sh", "-c", refusal], ready=HttpReady(url=url, insecure=True)))
    with socket.create_server(("127.0.0.1", port)):
        cluster.ensure_supervised()
        begun = time.monotonic()
        with pytest.raises(UnitError) as caught:
            cluster.wait_ready("server", 30)
    assert time.monotonic() - begun < 10
    assert "server on one" in str(caught.value)
    assert str(port) in str(caught.value)
    assert "make down" in caught.value.hint


# Kill and revival


def test_kill_leaves_nothing_not_even_what_left_its_parent_and_its_group(cluster: HostCluster, tmp_path: Path) -> None:
    file = tmp_path / "runaway"
    cluster.put_unit(Unit(name="parent", argv=[sys.executable, "-c", RUNAWAY, str(file)]))
    cluster.put_unit(server(cluster))
    cluster.put_unit(Unit(name="deaf", argv=["/bin/sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"]))
    cluster.start(20)
    wait_until(file.exists, "the grandchild", 10)
    runaway = int(file.read_text())
    assert runaway in running(cluster)
    begun = time.monotonic()
    cluster.kill()
    seconds = time.monotonic() - begun
    assert not running(cluster)
    assert not cluster.alive()
    # A drill calls this the moment of the failure. 0.1 s on a machine with nothing else to do.
    assert seconds < 2


def test_a_killed_cluster_starts_again_with_new_processes(cluster: HostCluster) -> None:
    cluster.put_unit(server(cluster))
    cluster.start(20)
    before = pid_of(cluster, "server")
    cluster.kill()
    cluster.start(20)
    assert ask(cluster) == b"here"
    assert pid_of(cluster, "server") != before


def test_start_on_a_running_cluster_changes_nothing(cluster: HostCluster) -> None:
    cluster.put_unit(server(cluster))
    cluster.start(20)
    before = running(cluster)
    cluster.start(20)
    assert running(cluster) == before


@pytest.mark.parametrize("after_s", [0.05, 0.2, 0.4, 0.8])
def test_a_cluster_killed_with_its_driver_while_it_starts_heals(cluster: HostCluster, state: Path, after_s: float) -> None:
    cluster.put_unit(server(cluster))
    for number in range(5):
        cluster.put_unit(sleeper(f"unit-{number}"))
    environment = {**os.environ, "FLEET_STATE": str(state), "PYTHONPATH": str(paths.REPO)}
    driver = subprocess.Popen([sys.executable, "-c", "from local.host_cluster import HostCluster; HostCluster('one').start()"], env=environment)
    time.sleep(after_s)
    driver.kill()
    driver.wait()
    cluster.kill()
    cluster.start(20)
    assert ask(cluster) == b"here"
    # Six units and their supervisor.
    assert len(running(cluster)) == 7


def test_words_of_a_killed_supervisor_are_not_believed(cluster: HostCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    port = cluster.port("gate")
    serve = f'import socket; s = socket.create_server(("127.0.0.1", {port})); [s.accept() for _ in iter(int, 1)]'
    script = f"test -e {gate} && exec {sys.executable} -c '{serve}'; sleep 600"
    cluster.put_unit(Unit(name="gated", argv=["/bin/sh", "-c", script], ready=TcpReady(host="127.0.0.1", port=port)))
    gate.touch()
    cluster.start(20)
    cluster.kill()
    gate.unlink()
    # run/gated.json still says ready.
    cluster.ensure_supervised()
    with pytest.raises(UnitError, match="gated on one: waited 1 s"):
        cluster.wait_ready("gated", 1.0)


def test_a_pid_in_an_old_lock_file_is_nobodys(cluster: HostCluster) -> None:
    """After a reboot the number can belong to anyone; signals must not reach them."""
    cluster.put_unit(server(cluster))
    bystander = subprocess.Popen(["/bin/sleep", "600"])
    try:
        (cluster.dir / "run").mkdir(parents=True)
        (cluster.dir / "run" / "supervisor.lock").write_text(str(bystander.pid))
        assert not cluster.alive()
        cluster.freeze()
        cluster.kill()
        assert bystander.poll() is None
        assert not processes.is_stopped(bystander.pid)
        cluster.start(20)
        assert ask(cluster) == b"here"
    finally:
        bystander.kill()
        bystander.wait()


def test_killing_one_cluster_leaves_another_alone_also_one_whose_name_begins_alike(state: Path) -> None:
    east, east_two = HostCluster("east"), HostCluster("east-2")
    for each in (east, east_two):
        each.put_unit(sleeper("unit"))
        each.start(20)
    before = running(east_two)
    east.kill()
    assert running(east_two) == before


# Freeze and thaw


def test_a_frozen_cluster_holds_connections_and_answers_nobody_until_thawed(cluster: HostCluster) -> None:
    cluster.put_unit(server(cluster))
    cluster.start(20)
    cluster.freeze()
    assert all(processes.is_stopped(pid) for pid in running(cluster))
    assert not cluster.alive()
    with pytest.raises(TimeoutError):
        ask(cluster, timeout=0.5)
    cluster.thaw()
    wait_until(cluster.alive, "life after the thaw", 5)
    assert ask(cluster) == b"here"


def test_start_thaws_a_frozen_cluster_and_keeps_its_processes(cluster: HostCluster) -> None:
    cluster.put_unit(server(cluster))
    cluster.start(20)
    before = pid_of(cluster, "server")
    cluster.freeze()
    cluster.start(20)
    assert ask(cluster) == b"here"
    assert pid_of(cluster, "server") == before


def test_a_frozen_cluster_can_be_killed_and_stopped(cluster: HostCluster) -> None:
    cluster.put_unit(server(cluster))
    for end in (cluster.kill, cluster.stop):
        cluster.start(20)
        cluster.freeze()
        end()
        assert not running(cluster)


# Files


def test_delete_removes_processes_and_files_and_can_be_repeated(cluster: HostCluster) -> None:
    cluster.put_unit(server(cluster))
    (cluster.dir / "cluster.json").write_text('{"name": "one"}')
    cluster.start(20)
    assert [each.name for each in all_clusters()] == ["one"]
    for _ in range(2):
        cluster.delete()
        assert not running(cluster)
        assert not cluster.dir.exists()
        assert all_clusters() == []


def test_what_the_supervisor_starts_is_found_by_the_mark_of_the_whole_fleet(cluster: HostCluster, state: Path) -> None:
    """How `make down` ends a fleet whose files are damaged."""
    cluster.put_unit(sleeper("unit"))
    cluster.start(20)
    for file in (cluster.dir / "run").iterdir():
        file.unlink()
    assert len(processes.find(of_fleet(state))) == 2
    assert processes.kill_all(of_fleet(state)) == 2


# A real cluster

_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def test_a_real_member_keeps_its_objects_over_a_kill_and_simulated_pods_have_no_address(state: Path) -> None:
    member = HostCluster("member")
    spec = {"name": member.name, "role": "member", "region": "us-east", "zone": "us-east-1"}
    made = kubernetes.apply(spec)
    gpus = {"name": "h100", "accelerator": "H100", "nodes": 2, "gpusPerNode": 8, "capacityTypes": ["reserved", "spot"], "taints": [_TAINT]}
    assert gpu_nodes.apply({"cluster": member.name, "pools": [gpus], "cpuNode": False}) == {"nodes": 2, "gpus": 16}
    with Kube.from_kubeconfig(made["kubeconfig"]) as api:
        api.wait(lambda: api.find("v1", "ServiceAccount", "default", "default"), 30, "the service account `default`")
        api.create(_deployment("model", replicas=2, gpus=8))
        pods = api.wait(lambda: _ready_pods(api, 2), 60, "two simulated pods to be Ready")
    assert {pod["spec"]["nodeName"] for pod in pods} == {"member-h100-0", "member-h100-1"}
    assert not any(key in pod["status"] for pod in pods for key in ("podIP", "podIPs", "hostIP", "hostIPs"))
    uids = {pod["metadata"]["uid"] for pod in pods}
    listening = _listening(running(member))
    assert listening
    assert {address for address, _ in listening} == {"127.0.0.1"}

    member.kill()
    assert not running(member)
    member.start(60)
    with Kube.from_kubeconfig(member.kubeconfig) as api:
        again = api.wait(lambda: _ready_pods(api, 2), 30, "the pods after the kill")
        assert {pod["metadata"]["uid"] for pod in again} == uids
        # The pool shrinks: its node goes, the other stays.
        assert gpu_nodes.apply({"cluster": member.name, "pools": [{**gpus, "nodes": 1}], "cpuNode": False}) == {"nodes": 1, "gpus": 8}
        (node,) = api.list("v1", "Node")
        assert node["metadata"]["name"] == "member-h100-0"
        assert node["spec"]["taints"] == [_TAINT]
        # Its capacity is taken away: the next type in order.
        gpu_nodes.set_available(member, "h100", "reserved", available=False)
        gpu_nodes.apply({"cluster": member.name, "pools": [{**gpus, "nodes": 1, "taints": []}], "cpuNode": False})
        (node,) = api.list("v1", "Node")
        assert node["metadata"]["labels"][LABEL_CAPACITY_TYPE] == "spot"
        assert "taints" not in node["spec"]
    assert kubernetes.apply(spec) == made
    kubernetes.delete(spec)
    assert not processes.find(of_fleet(state))
    assert not member.dir.exists()


def test_a_real_hub_runs_no_workloads(state: Path) -> None:
    hub = HostCluster("hub")
    kubernetes.apply({"name": hub.name, "role": "hub", "region": "us-east", "zone": "us-east-1"})
    assert {each.name for each in hub.status()} == {"etcd", "kube-apiserver", "kube-controller-manager"}
    with Kube.from_kubeconfig(hub.kubeconfig) as api:
        api.wait(lambda: api.find("v1", "Namespace", "default"), 30, "the namespace `default`")
        api.create(_deployment("template", replicas=1, gpus=1))
        # A template is stored. Were there a controller for it, it would act within this time.
        time.sleep(2)
        assert api.list("apps/v1", "ReplicaSet") == []
    hub.delete()


def _deployment(name: str, *, replicas: int, gpus: int) -> Object:
    container = {"name": "main", "image": "example/model", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "tolerations": [{"key": _TAINT["key"], "operator": "Exists"}]}},
        },
    }


def _ready_pods(api: Kube, count: int) -> list[Object] | None:
    pods = [pod for pod in api.list("v1", "Pod", "default") if condition(pod, "Ready").get("status") == "True"]
    return pods if len(pods) == count else None


def _listening(pids: list[int]) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket on which one of the processes listens."""
    inodes: set[str] = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(str(handle.readlink()))
            except OSError:
                continue
    found: set[tuple[str, int]] = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for row in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = row.split()
            # 0A is LISTEN. Words of four bytes, each in the order of the machine.
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                packed = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
                found.add((socket.inet_ntop(family, packed), int(port, 16)))
    return found


@pytest.mark.parametrize("name", ["", "../backend", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cluster name must be"):
        HostCluster(name)


def test_a_stranger_on_the_port_makes_no_unit_ready(cluster: HostCluster) -> None:
    unit = server(cluster)
    assert isinstance(unit.ready, TcpReady)
    cluster.put_unit(unit)
    with socket.create_server((unit.ready.host, unit.ready.port)), pytest.raises(UnitError, match="another process listens there") as caught:
        cluster.start(20)
    assert "ss -ltnp" in caught.value.hint
    cluster.start(20)
