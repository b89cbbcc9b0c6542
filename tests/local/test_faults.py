"""What a drill breaks is noted before it is broken, and mended by whoever comes next."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from local import processes
from local.gateways import REGIONAL_GATEWAY
from local.host_cluster import HostCluster
from local.units import Unit
from operations.drills.faults import packet_filter, undo
from operations.drills.faults.errors import FaultError, Step
from operations.drills.faults.journal import Journal, heal_left_over
from operations.drills.faults.local import Freeze, KillUnits
from tests.conftest import wait_until


@pytest.fixture
def region(state: Path) -> HostCluster:
    """A cluster whose gateway is a process that sleeps, beside another unit."""
    cluster = HostCluster("us-east")
    for name in (REGIONAL_GATEWAY, "kube-scheduler"):
        cluster.put_unit(Unit(name=name, argv=["/bin/sleep", "600"]))
    cluster.ensure_supervised()
    for name in (REGIONAL_GATEWAY, "kube-scheduler"):
        cluster.wait_ready(name, 20)
    (cluster.dir / "cluster.json").write_text(json.dumps({"name": "us-east", "role": "member"}))
    return cluster


def pid(cluster: HostCluster, name: str) -> int:
    found = next(each.pid for each in cluster.status() if each.name == name)
    assert found is not None
    return found


class TestJournal:
    def test_what_is_noted_is_there_for_the_next_one(self, state: Path) -> None:
        Journal().note({"undo": "thaw", "cluster": "us-east"})
        assert Journal().steps() == [{"undo": "thaw", "cluster": "us-east"}]
        assert Journal().steps()

    def test_a_cluster_that_is_gone_needs_no_mending(self, state: Path) -> None:
        Journal().note(
            {"undo": "thaw", "cluster": "gone"},
            {"undo": "start", "cluster": "gone"},
            {"undo": "admit", "cluster": "gone"},
            {"undo": "thaw engine", "cluster": "gone"},
            {"undo": "remove mock engines", "clusters": ["gone"]},
        )
        heal_left_over(lambda told: None)
        assert not Journal().steps()

    def test_what_cannot_be_mended_stays_noted_and_the_rest_is_mended(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(step: Step) -> str:
            raise FaultError("the disk is full")

        monkeypatch.setitem(undo.UNDO, "start", fail)
        (state / "pulumi.away").mkdir()
        backend = {"undo": "restore folder", "path": str(state / "pulumi"), "away": str(state / "pulumi.away")}
        Journal().note({"undo": "start", "cluster": "us-east"}, backend)
        with pytest.raises(FaultError, match="start us-east: the disk is full") as left:
            heal_left_over(lambda told: None)
        assert "make up" in left.value.hint
        assert (state / "pulumi").is_dir()
        assert Journal().steps() == [{"undo": "start", "cluster": "us-east"}]


class TestFreeze:
    def test_the_data_path_stands_still_and_the_rest_goes_on(self, region: HostCluster) -> None:
        fault = Freeze(Journal(), region)
        fault.prepare(lambda mark: None)
        fault.inject()
        assert processes.is_stopped(pid(region, REGIONAL_GATEWAY))
        assert not processes.is_stopped(pid(region, "kube-scheduler"))
        fault.heal()
        assert not processes.is_stopped(pid(region, REGIONAL_GATEWAY))
        assert not Journal().steps()

    def test_a_drill_that_was_killed_leaves_nothing_frozen_for_the_next(self, region: HostCluster) -> None:
        child = os.fork()
        if child == 0:
            fault = Freeze(Journal(), region)
            fault.prepare(lambda mark: None)
            fault.inject()
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        assert processes.is_stopped(pid(region, REGIONAL_GATEWAY))
        told: list[str] = []
        heal_left_over(told.append)
        assert not processes.is_stopped(pid(region, REGIONAL_GATEWAY))
        assert told == ["an interrupted drill left 1 faults to undo", "  us-east thawed"]

    def test_a_region_without_gateways_cannot_be_frozen(self, state: Path) -> None:
        with pytest.raises(FaultError, match="us-west: no gateway runs there"):
            Freeze(Journal(), HostCluster("us-west")).prepare(lambda mark: None)


class TestKillUnits:
    def test_a_killed_unit_stays_away_until_it_is_put_back(self, region: HostCluster) -> None:
        before = pid(region, REGIONAL_GATEWAY)
        fault = KillUnits(Journal(), [(region, REGIONAL_GATEWAY)])
        fault.inject()
        wait_until(lambda: not processes.exists(before), "the gateway to be gone", 10)
        # Longer than the supervisor waits before it starts a unit again.
        time.sleep(1.0)
        assert [each.name for each in region.status()] == ["kube-scheduler"]
        fault.heal()
        region.wait_ready(REGIONAL_GATEWAY, 20)
        assert pid(region, REGIONAL_GATEWAY) != before


@pytest.mark.skipif(bool(packet_filter.refusal()), reason="this machine or user cannot drop packets")
class TestBlackhole:
    def test_packets_are_lost_without_a_word_until_it_ends(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
                accepted, _ = server.accept()
                accepted.settimeout(0.5)
                hole = packet_filter.Blackhole([port])
                try:
                    caller.sendall(b"lost")
                    with pytest.raises(TimeoutError):
                        accepted.recv(4)
                    with pytest.raises(TimeoutError):
                        socket.create_connection(("127.0.0.1", port), timeout=0.5)
                finally:
                    hole.close()
                accepted.settimeout(10)
                assert accepted.recv(4) == b"lost"
                accepted.close()

    def test_it_goes_with_the_process_that_made_it(self) -> None:
        child = os.fork()
        if child == 0:
            packet_filter.Blackhole([1])
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        packet_filter.Blackhole([1]).close()

    def test_a_second_one_is_refused(self) -> None:
        hole = packet_filter.Blackhole([1])
        try:
            with pytest.raises(packet_filter.FilterError, match="no other drill on this machine"):
                packet_filter.Blackhole([2])
        finally:
            hole.close()


def test_on_another_system_dropping_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_NETLINK", raising=False)
    assert packet_filter.refusal() == "packets are dropped by Linux' nftables only, and this is another system"
