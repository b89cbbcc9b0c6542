"""What a person sees of `make up`, of a second one, and of the commands beside it."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.fleet.conftest import Fleet, Ran
from toolchain import paths


def test_up_ends_with_a_curl_line_that_answers(fleet: Fleet, first_up: Ran) -> None:
    line = first_up.out.rstrip().splitlines()[-1]
    assert line.startswith("curl "), first_up.text
    answer = json.loads(fleet.run("sh", "-c", line).out)
    assert answer["choices"][0]["message"]["content"], answer


def test_up_tells_stages_with_their_time(first_up: Ran) -> None:
    for stage in ("local clusters", "pulumi up -s local", "models", "first completion", "ready"):
        assert any(line.startswith("[") and line.endswith(f"s] {stage}") for line in first_up.err.splitlines()), first_up.err


def _held(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_second_up_changes_nothing_and_a_third_beside_it_is_told_who_is_at_work(fleet: Fleet, first_up: Ran) -> None:
    command = [sys.executable, "-m", "operations.cli", "up"]
    with subprocess.Popen(command, env=fleet.environment, cwd=paths.REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        deadline = time.monotonic() + 30
        while not _held(fleet.state / "up.lock") and time.monotonic() < deadline:
            time.sleep(0.05)
        third = fleet.fleet("up", check=False)
        out, err = second.communicate(timeout=300)
    assert third.code == 1, third.text
    assert f"process {second.pid}) is at work on this fleet" in third.err
    assert "hint: " in third.err
    assert second.returncode == 0, err
    assert "nothing to change" in err
    # The same endpoints, to the last character.
    assert out.rstrip().splitlines()[-1] == first_up.out.rstrip().splitlines()[-1]


def test_pulumi_itself_finds_nothing_to_do(fleet: Fleet) -> None:
    fleet.pulumi("preview", "-s", "local", "--expect-no-changes")
    # What the API servers fill in is no change either.
    fleet.pulumi("refresh", "-s", "local", "--yes", "--skip-preview", "--expect-no-changes")
    fleet.pulumi("preview", "-s", "local", "--expect-no-changes")


def test_outputs_are_as_promised(fleet: Fleet) -> None:
    outputs = fleet.outputs
    assert set(outputs) == {"hub", "endpoints", "clusters", "placements", "failover", "runtimeImage", "plan", "kubeconfigs"}
    doors = {name: fleet.door(name) for name in ("us-east", "us-west", "eu-west")}
    assert outputs["endpoints"] == {
        "frontDoors": doors,
        "regionalGateways": {name: fleet.door(name, "regional-gateway") for name in doors},
        "models": {
            "tiny-chat": {"openaiBaseUrl": f"{doors['us-east']}/tiny-chat/v1", "clusters": ["us-east", "us-west"]},
            "llama-3-70b": {"openaiBaseUrl": f"{doors['us-east']}/llama-3-70b/v1", "clusters": ["us-east", "us-west", "eu-west"]},
            "qwen-eu": {"openaiBaseUrl": f"{doors['eu-west']}/qwen-eu/v1", "clusters": ["eu-west"]},
        },
        "authentication": {"kind": "none"},
    }
    assert outputs["clusters"]["us-east"] == {
        "region": "us-east",
        "zone": "us-east-1",
        "driver": "local",
        "simulatedGpus": True,
        "gpuPools": [
            {"name": "h100", "accelerator": "H100", "nodes": 3, "gpus": 24},
            {"name": "l40s", "accelerator": "L40S", "nodes": 2, "gpus": 8},
        ],
    }
    gpus = sum(pool["gpus"] for cluster in outputs["clusters"].values() for pool in cluster["gpuPools"])
    assert (sorted(outputs["clusters"]), gpus) == (["eu-west", "us-east", "us-west"], 88)
    assert outputs["placements"] == {
        "tiny-chat": {"us-east": {"weight": 1, "replicas": 1}, "us-west": {"weight": 1, "replicas": 1}},
        "llama-3-70b": {
            "us-east": {"weight": 3, "replicas": 3},
            "us-west": {"weight": 2, "replicas": 2},
            "eu-west": {"weight": 1, "replicas": 1},
        },
        "qwen-eu": {"eu-west": {"weight": 1, "replicas": 2}},
    }
    assert sorted(outputs["kubeconfigs"]) == ["eu-west", "hub", "us-east", "us-west"]


def test_outputs_hide_kubeconfigs_from_eyes(fleet: Fleet) -> None:
    shown = json.loads(fleet.fleet("outputs").out)
    assert shown["kubeconfigs"] == "[secret]"
    assert shown["endpoints"]["frontDoors"]["us-east"] == fleet.door("us-east")


def test_status_shows_clusters_models_and_endpoints(fleet: Fleet) -> None:
    lines = [line.split() for line in fleet.fleet("status").out.splitlines()]
    assert ["us-east", "us-east", "local", "v1.36.3", "Ready", "32", "gateways", "3/3,", "istio", "1/1,", "kserve", "1/1"] in lines
    assert ["hub", "-", "-", "v1.36.3", "-", "-", "karmada", "4/4"] in lines
    assert ["llama-3-70b", "us-west", "2", "2", "2", "2"] in lines
    assert ["tiny-chat", "us-east", "1", "1", "1", "1"] in lines
    assert ["front", "door", "eu-west", fleet.door("eu-west")] in lines


def test_kubectl_reaches_every_cluster_by_its_name(fleet: Fleet) -> None:
    for cluster in ("hub", "us-east", "us-west", "eu-west"):
        assert fleet.run("kubectl", "--context", cluster, "get", "--raw", "/readyz", shell=True).out == "ok"
    # The log of a pod goes through the node agent, as through a kubelet.
    selector = ("-n", "models", "-l", "inference-fleet.dev/model=tiny-chat", "--tail=-1")
    assert "vLLM" in fleet.run("kubectl", "--context", "us-east", "logs", *selector, shell=True).out


def test_logs_of_one_process_can_be_read(fleet: Fleet) -> None:
    shown = fleet.fleet("logs", "us-east", "istiod", "-n", "5").out.splitlines()
    assert shown[0].endswith("us-east/logs/istiod.log <==")
    assert 2 <= len(shown) <= 6
    wrong = fleet.fleet("logs", "us-esat", check=False)
    assert (wrong.code, wrong.err.splitlines()[0]) == (1, "error: no local cluster `us-esat`")
