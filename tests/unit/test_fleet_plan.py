"""The plan of a whole stack file, and what `fleet plan` tells of it."""

import datetime as dt
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import FleetError
from operations import stack_file
from operations.bench.result import BenchLoad, BenchResult, Machine, Measured, Objectives, Percentiles, Serving
from operations.plan import cli, report
from operations.plan.cli import calibrated
from operations.plan.deployed import compare
from planning import fleet_plan
from planning.sizing import Efficiency
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from toolchain import paths

TODAY = dt.date(2026, 11, 21)
LOAD = {"requestsPerSecond": 12, "inputTokens": 1000, "outputTokens": 300}


def two_regions(**changes: Any) -> dict[str, Any]:
    raw = fleets.small()
    raw["models"][0] |= {"load": LOAD, **changes}
    return raw


def planned(raw: dict[str, Any], today: dt.date = TODAY) -> fleet_plan.FleetPlan:
    return fleet_plan.plan(parse_fleet(raw), today)


class TestPlan:
    def test_the_local_fleet_is_planned_without_a_warning(self) -> None:
        found = planned(fleets.read(fleets.REPO / "stacks" / "Pulumi.local.yaml"))
        assert found.warnings == ()
        llama = next(each for each in found.models if each.name == "llama-3-70b")
        assert {each.cluster: each.size.binding for each in llama.sites if each.size} == {
            "us-east": "KV cache",
            "us-west": "sequences",
            "eu-west": "KV cache",
        }

    def test_pools_are_used_by_what_lies_there(self) -> None:
        raw = two_regions(accelerator={"type": "H100", "count": 4}, replicas=3)
        found = planned(raw)
        assert {each.cluster: each.used_gpus for each in found.pools} == {"east": 8, "west": 4}

    def test_costs_add_up(self) -> None:
        raw = two_regions()
        raw["planning"] = {"prices": [{"accelerator": "H100", "dollarsPerGpuHour": 2.0, "date": "2026-11-01"}]}
        found = planned(raw)
        assert found.dollars_per_month == 2 * 32 * 2.0 * 730
        (model,) = found.models
        assert model.dollars_per_month == 2 * 2.0 * 730
        assert model.dollars_per_million_tokens == pytest.approx(2 * 2.0 * 730 / (12 * 300 * 730 * 3600 / 1e6))

    def test_a_grown_pool_costs_what_runs_in_it(self) -> None:
        raw = two_regions(accelerator={"type": "H100", "count": 8}, replicas=4)
        raw["clusters"][0]["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "minNodes": 1, "maxNodes": 4}]
        pool = planned(raw).pools[0]
        assert (pool.least_nodes, pool.nodes, pool.most_nodes) == (1, 2, 4)

    def test_a_quota_bounds_what_is_left_after_a_loss_and_is_told(self) -> None:
        def growing(gpus: int, **more: Any) -> fleet_plan.FleetPlan:
            raw = two_regions(accelerator={"type": "H100", "count": 8}, replicas=4)
            for cluster in raw["clusters"]:
                cluster |= {"provider": "aws", "gpuPools": [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "minNodes": 1, "maxNodes": 4}]}
            raw["planning"] = {"quotas": [{"accelerator": "H100", "provider": "aws", "gpus": gpus, **more}]}
            return planned(raw)

        def unplaced(plan: fleet_plan.FleetPlan) -> set[int]:
            return {left.unplaced for loss in plan.losses for left in loss.left}

        assert unplaced(growing(48)) == {0}
        (warning,) = growing(40).warnings
        assert warning == "pools may grow to 64 GPUs, and the quota is 40 H100 in aws"
        assert unplaced(growing(40)) == {1}
        # Of one region, and of nodes that are bought in another way.
        assert unplaced(growing(24, region="east")) == {0, 1}
        assert unplaced(growing(0, capacityType="spot")) == {0}

    def test_a_quota_that_is_listed_twice_is_one(self) -> None:
        raw = two_regions(accelerator={"type": "H100", "count": 8}, replicas=4)
        for cluster in raw["clusters"]:
            cluster |= {"provider": "aws", "gpuPools": [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "minNodes": 1, "maxNodes": 4}]}
        quota = {"accelerator": "H100", "provider": "aws", "gpus": 48}
        once, twice = (planned({**raw, "planning": {"quotas": [quota] * times}}).losses for times in (1, 2))
        assert twice == once

    def test_clusters_of_one_region_are_lost_together(self) -> None:
        raw = two_regions()
        raw["clusters"].append(fleets.cluster("east-2", region="east"))
        names = {each.name: each.clusters for each in planned(raw).losses}
        assert names["region east"] == ("east", "east-2")
        assert set(names) == {"east", "west", "east-2", "region east"}

    def test_a_measured_share_changes_the_times(self) -> None:
        raw = two_regions()
        before = planned(raw).models[0].sites[0].size
        raw["planning"] = {"calibration": [{"accelerator": "H100", "memory": 0.9, "compute": 0.8, "source": "bench of 2026-11-20"}]}
        after = planned(raw).models[0].sites[0]
        assert before is not None
        assert after.size is not None
        assert before.speed is not None
        assert after.size.speed is not None
        assert after.size.speed.requests_per_second > 1.3 * before.speed.requests_per_second
        assert after.efficiency == "bench of 2026-11-20"

    def test_the_calibration_of_a_model_comes_before_that_of_the_gpu(self) -> None:
        raw = two_regions()
        shares = {"accelerator": "H100", "compute": 0.5}
        raw["planning"] = {"calibration": [{**shares, "memory": 0.5, "source": "any"}, {**shares, "memory": 0.7, "model": "chat", "source": "own"}]}
        fleet = parse_fleet(raw)
        assert fleet_plan.efficiency(fleet, "chat", "H100").memory == 0.7
        assert fleet_plan.efficiency(fleet, "other", "H100").memory == 0.5
        assert fleet_plan.efficiency(fleet, "chat", "L40S") == Efficiency()


class TestWarnings:
    def test_a_model_that_does_not_fit(self) -> None:
        raw = two_regions(facts={**fleets.FACTS, "parameters": 70_000_000_000})
        (first, _) = planned(raw).warnings
        assert first.startswith("chat in east on 1 x H100 does not fit: weights: weights 133.0 GiB and")

    def test_objectives_that_are_missed(self) -> None:
        (first, _) = planned(two_regions(objectives={"interTokenSeconds": 0.002})).warnings
        assert first.startswith("chat in east on 1 x H100 misses its objectives: latency between tokens: one request alone takes 8 ms")

    def test_too_few_replicas_for_the_load(self) -> None:
        (only,) = planned(two_regions(load={**LOAD, "requestsPerSecond": 100})).warnings
        assert only.startswith("chat needs 11 replicas for 100 requests/s at 70% of what they can do, and has 2")

    def test_old_prices_with_their_date(self) -> None:
        (only,) = planned(two_regions(), dt.date(2027, 6, 1)).warnings
        assert only == "prices of 2026-07-20 are old (karpenter-provider-aws): refresh the catalogue, or set planning.prices"

    def test_a_window_that_counts_for_nothing(self) -> None:
        (only,) = planned(two_regions(facts={**fleets.FACTS, "slidingWindow": 1024})).warnings
        assert only == "chat: facts.slidingWindow counts for nothing without facts.fullAttentionLayers"

    def test_what_the_prices_stand_for_is_noted(self) -> None:
        assert planned(two_regions()).notes[0] == "east h100: no provider is declared: aws us-east-1 stands for it"


class TestPreview:
    def test_a_line_for_each_model_and_one_for_the_fleet(self) -> None:
        found = planned(two_regions())
        assert fleet_plan.describe(found.models[0]) == (
            "plan: 1 on 1 x H100 in east, 1 on 1 x H100 in west; limit: KV cache; 2 replicas are needed for the load; about $10,045 a month"
        )
        line = fleet_plan.describe_fleet(found)
        assert line.startswith("plan: GPU nodes cost about $321,434 a month; whichever cluster is lost, the others have room for its models")

    def test_what_is_not_left_is_named(self) -> None:
        raw = two_regions(placement={"clusters": [{"name": "east"}], "minimumClusters": 1})
        assert "not enough is left of chat without east" in fleet_plan.describe_fleet(planned(raw))


class TestDeployed:
    @staticmethod
    def outputs(raw: dict[str, Any]) -> dict[str, Any]:
        fleet = parse_fleet(raw)
        # As the engine gives them back: every number a float.
        return json.loads(json.dumps({"plan": fleet_plan.output(fleet, fleet_plan.plan(fleet, TODAY))}), parse_int=float)

    def test_nothing_changed(self) -> None:
        raw = two_regions()
        found = compare(parse_fleet(raw), planned(raw), self.outputs(raw))
        assert found is not None
        assert (found.before, found.changes) == (found.now, ())

    def test_what_changed_is_named_and_priced(self) -> None:
        before, now = two_regions(), two_regions(replicas=4)
        now["clusters"][1]["gpuPools"][0]["nodes"] = 5
        now["clusters"][0]["gpuPools"].append({"name": "l40s", "accelerator": "L40S", "gpusPerNode": 4, "nodes": 1})
        now["models"].append(fleets.model("other", ["east", "west"]))
        found = compare(parse_fleet(now), planned(now), self.outputs(before))
        assert found is not None
        assert found.now - found.before == pytest.approx((8 * 6.88 + 4 * 2.62) * 730)
        assert found.changes == (
            "pool h100 of west: 4 nodes with 8 H100, on-demand -> 5 nodes with 8 H100, on-demand",
            "pool l40s of east: new, 1 nodes with 4 L40S",
            "model chat in east: 1 on 1 x H100 -> 2 on 1 x H100",
            "model chat in west: 1 on 1 x H100 -> 2 on 1 x H100",
            "model other: new",
        )

    def test_a_new_price_is_no_change(self) -> None:
        raw = two_regions()
        deployed = self.outputs(raw)
        raw["planning"] = {"prices": [{"accelerator": "H100", "dollarsPerGpuHour": 2.0, "date": "2026-11-01"}]}
        found = compare(parse_fleet(raw), planned(raw), deployed)
        assert found is not None
        assert found.before == found.now

    def test_an_older_program_left_no_plan(self) -> None:
        raw = two_regions()
        assert compare(parse_fleet(raw), planned(raw), {"endpoints": {}}) is None


def benchmark(accelerator: str = "H100", model: str = "chat") -> BenchResult:
    """As `fleet bench` leaves it: 80 requests of 2000 and 200 tokens at the regional gateway of each cluster."""
    alike = {"mean": 0.012, "p50": 0.012, "p95": 0.014, "p99": 0.02}
    endpoints = tuple(
        Measured(
            kind="regional gateway",
            cluster=name,
            region=name,
            url=f"http://{name}",
            ok=80,
            failed=0,
            errors={},
            seconds=20,
            input_tokens=80 * 2000,
            output_tokens=80 * 200,
            requests_per_second=4,
            output_tokens_per_second=800,
            peak_output_tokens_per_second=900,
            peak_concurrency=20,
            good=None,
            first_token=Percentiles(mean=0.09, p50=0.09, p95=0.1, p99=0.1),
            between_tokens=Percentiles(**alike),
            per_output_token=Percentiles(**alike),
            whole_answer=None,
        )
        for name in ("east", "west")
    )
    return BenchResult(
        started=1_790_000_000.0,
        machine=Machine(cores=2, memory_gib=24.0, system="Linux", load=0.5),
        stack="prod",
        model=model,
        source="hf://example/chat",
        tokenizer="example/chat",
        vllm="0.32.0",
        load=BenchLoad(requests=80, rate=4, concurrency=None, input_tokens=2000, output_tokens=200, warmups=2, seed=0),
        objectives=Objectives(),
        serving={name: Serving(accelerator=accelerator, accelerators=1, replicas=1, image="vllm", arguments=()) for name in ("east", "west")},
        endpoints=endpoints,
    )


class TestBench:
    @staticmethod
    def written(tmp_path: Path, result: BenchResult) -> Path:
        file = tmp_path / "chat.json"
        file.write_text(result.to_json())
        return file

    def test_shares_are_taken_from_it_and_can_be_kept(self, tmp_path: Path) -> None:
        fleet, remarks = calibrated(parse_fleet(two_regions()), [self.written(tmp_path, benchmark())])
        found = fleet.planning.calibration
        assert found
        assert all(each.memory != Efficiency().memory and each.model == "chat" for each in found)
        # What it says to write into the stack file means the same.
        written = yaml.safe_load(remarks[-1].split("planning.calibration: ", 1)[1])
        raw = fleets.small()
        raw["planning"] = {"calibration": [written]}
        assert parse_fleet(raw).planning.calibration[0] == found[-1]

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        file = tmp_path / "x.json"
        file.write_text("{}")
        with pytest.raises(FleetError, match="not the result of a benchmark"):
            calibrated(parse_fleet(two_regions()), [file])

    @pytest.mark.parametrize(
        ("now", "becomes", "field"),
        [
            ('"started": 1790000000.0', '"started": 1e300', "started"),
            ('"accelerators": 1', '"accelerators": 1000000000', "serving.east.accelerators"),
            ('"ok": 80', '"ok": -80', "endpoints.0.ok"),
            ('"outputTokensPerSecond": 800.0', '"outputTokensPerSecond": NaN', "endpoints.0.outputTokensPerSecond"),
        ],
    )
    def test_numbers_that_nobody_measured(self, tmp_path: Path, now: str, becomes: str, field: str) -> None:
        file = self.written(tmp_path, benchmark())
        text = file.read_text()
        assert now in text
        file.write_text(text.replace(now, becomes))
        with pytest.raises(FleetError, match=re.escape(f"not the result of a benchmark: {field}: ")):
            calibrated(parse_fleet(two_regions()), [file])

    def test_a_model_that_the_stack_does_not_have(self, tmp_path: Path) -> None:
        with pytest.raises(FleetError, match="a model that this stack does not have: `other`"):
            calibrated(parse_fleet(two_regions()), [self.written(tmp_path, benchmark(model="other"))])

    def test_a_benchmark_on_cpu_tells_nothing_of_gpus(self, tmp_path: Path) -> None:
        with pytest.raises(FleetError, match="no regional gateway of a cluster with GPUs answered in it"):
            calibrated(parse_fleet(two_regions()), [self.written(tmp_path, benchmark(accelerator="cpu"))])


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stack files with one of them, `try`, that leaves everything open; nothing is deployed."""
    raw = two_regions()
    raw["clusters"].append(fleets.cluster("north"))
    for key in ("accelerator", "replicas", "placement"):
        del raw["models"][0][key]
    (tmp_path / "Pulumi.try.yaml").write_text(yaml.safe_dump({"config": {"fleet:spec": raw}}))
    monkeypatch.setattr(stack_file, "FOLDER", tmp_path)
    monkeypatch.setattr(cli, "FOLDER", tmp_path)
    monkeypatch.setattr(stack_file.paths, "REPO", tmp_path)
    monkeypatch.setattr(cli, "deployed_or_nothing", lambda _: {})
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    from operations.cli import parse

    arguments = parse(["plan", "-s", "try", *options])
    arguments.run(arguments)
    return capsys.readouterr().out


class TestCommand:
    def test_tables(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = run(capsys)
        for each in ("Models\n", "What the planner chose\n", "GPU pools\n", "What is left when a cluster is lost\n", "Failover at worst\n"):
            assert each in told
        assert "GPU nodes cost about $482,150 a month" in told
        assert "Nothing of this stack is deployed from here" in told
        assert "`fleet plan --choose` keeps it" in told

    def test_json_holds_what_the_tables_show(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = json.loads(run(capsys, "--json"))
        assert told["version"] == report.VERSION
        assert told["deployed"] is None
        assert set(told["models"]["chat"]["clusters"]) == {"east", "west"}
        assert told["choices"]["chat"]["keptSince"] is None
        assert told["choices"]["chat"]["second"]["moreDollarsPerMonth"] >= 0
        assert told["pools"][0]["price"]["date"] == "2026-07-20"
        assert {each["lost"] for each in told["losses"]} == {"east", "west", "north"}

    def test_markdown_is_made_of_whole_tables(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = run(capsys, "--markdown")
        assert told.startswith("### Plan of `try`\n")
        widths: list[int] = []
        for line in told.splitlines():
            if line.startswith("|"):
                widths.append(line.replace("\\|", "").count("|"))
            elif widths:
                assert len(widths) > 2
                assert len(set(widths)) == 1
                widths = []

    def test_a_choice_is_kept_and_used_from_then_on(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        told = run(capsys, "--choose")
        assert "the choices are kept in" in told
        file = stacks / "choices.try.yaml"
        first = file.read_text()
        assert "kept since" in run(capsys)
        # Nothing has changed: the file does not either, its dates least of all.
        file.write_text(first.replace(f"'{dt.datetime.now(tz=dt.UTC).date().isoformat()}'", "'2026-01-02'"))
        assert "kept since 2026-01-02" in run(capsys, "--choose")
        assert "'2026-01-02'" in file.read_text()

    def test_what_is_kept_for_no_model_is_told_and_dropped(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run(capsys, "--choose")
        file = stacks / "choices.try.yaml"
        file.write_text(file.read_text().replace("  chat:", "  other:"))
        assert "choices.try.yaml keeps other: no model of this name leaves anything open" in run(capsys)
        assert "keeps other" not in run(capsys, "--choose")
        assert "other" not in file.read_text()

    @pytest.mark.parametrize("written", ["{", "config: {}", "config: {fleet:spec: [1]}", "[]", "\x00"])
    def test_what_is_no_stack_file_is_told(self, stacks: Path, capsys: pytest.CaptureFixture[str], written: str) -> None:
        (stacks / "Pulumi.try.yaml").write_text(written)
        with pytest.raises(FleetError, match=r"^Pulumi\.try\.yaml: (is not valid YAML|config\.fleet:spec: must be a mapping of fields)"):
            run(capsys)

    def test_there_is_nothing_to_choose(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (stacks / "Pulumi.try.yaml").write_text(yaml.safe_dump({"config": {"fleet:spec": two_regions()}}))
        with pytest.raises(FleetError, match="nothing to choose"):
            run(capsys, "--choose")
        assert not (stacks / "choices.try.yaml").exists()

    def test_a_contradiction_is_an_error_of_the_stack_file(self, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = stacks / "Pulumi.try.yaml"
        raw = yaml.safe_load(file.read_text())
        raw["config"]["fleet:spec"]["models"][0]["replicas"] = 1
        file.write_text(yaml.safe_dump(raw))
        with pytest.raises(FleetError, match=r"models\[0\]: model `chat` has no place: `placement.minimumClusters` 2 and `replicas` 1 contradict"):
            run(capsys)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
    @pytest.mark.parametrize(("redirected", "code", "told"), [(">&-", 0, ""), ("> /dev/full", 1, "error: No space left on device\n")])
    def test_nowhere_to_write_is_no_traceback(self, redirected: str, code: int, told: str) -> None:
        command = f"{sys.executable} -m operations.cli plan -s local {redirected}"
        ended = subprocess.run(["sh", "-c", command], cwd=paths.REPO, stderr=subprocess.PIPE, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (code, told)

    def test_who_stops_reading_gets_no_traceback(self) -> None:
        command = [sys.executable, "-m", "operations.cli", "plan", "-s", "local"]
        with subprocess.Popen(command, cwd=paths.REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout
            assert running.stderr
            running.stdout.close()
            told = running.stderr.read()
        assert (told, running.returncode) == ("", 128 + signal.SIGPIPE)
