"""What a stack file leaves open is chosen, kept, and refused with what contradicts."""

import copy
import datetime as dt
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planning import choice, division, fleet_plan
from planning.choice import Kept, Resolved
from planning.stack_file import kept_choices, resolve_fleet
from specs.base import Problem, SpecError
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from tests.unit.test_stack_properties import stack_files

TODAY = dt.date(2026, 11, 21)
LOAD = {"requestsPerSecond": 60, "inputTokens": 1000, "outputTokens": 300}
# Of facts.FACTS a model of 8 billion parameters; its memory is not in question here.
SMALL_GPUS = {"name": "l40s", "accelerator": "L40S", "gpusPerNode": 4, "nodes": 8}


def stack(*models: dict[str, Any]) -> dict[str, Any]:
    """Three regions: H100 in two, A100 beside them in the third, L40S in the first."""
    raw = fleets.small()
    raw["clusters"].append(fleets.cluster("north", jurisdiction="EU"))
    raw["clusters"][0]["gpuPools"].append(SMALL_GPUS)
    raw["clusters"][2]["gpuPools"].append({"name": "a100", "accelerator": "A100", "gpusPerNode": 8, "nodes": 8})
    raw["models"] = list(models)
    return raw


def model(name: str = "chat", **more: Any) -> dict[str, Any]:
    """With everything open but what is given."""
    written = fleets.model(name, ["east"])
    return {key: written[key] for key in ("name", "source", "facts")} | {"load": LOAD} | more


def chosen(raw: dict[str, Any], kept: Kept = choice.NOTHING_KEPT, *, anew: bool = False) -> dict[str, tuple[str, int, int]]:
    """Of the first model: cluster to GPU type, GPUs of a replica and replicas."""
    return placed(resolve_fleet(raw, kept, anew=anew)[1])


def placed(resolved: Resolved) -> dict[str, tuple[str, int, int]]:
    return {each.option.cluster: (each.option.gpu, each.option.count, each.replicas) for each in resolved.choices[0].placement}


def refused(raw: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        resolve_fleet(raw)
    return caught.value.problems


def keep(raw: dict[str, Any]) -> Kept:
    return choice.keep(resolve_fleet(raw)[1], TODAY)


class TestOpen:
    def test_a_model_with_everything_open_gets_a_whole_place(self) -> None:
        (found,) = parse_fleet(stack(model())).models
        assert found.replicas == sum(each.weight for each in found.placement.clusters)
        assert len(found.placement.clusters) >= 2
        plan = fleet_plan.plan(parse_fleet(stack(model())), TODAY).models[0]
        # Enough for the load, and not one more than that needs.
        assert plan.needed is not None
        assert plan.needed <= found.replicas

    def test_what_is_written_stays(self) -> None:
        written: dict[str, Any] = {"accelerator": {"type": "H100", "count": 2}, "replicas": 5, "placement": {"clusters": [{"name": "east"}, {"name": "west"}]}}
        for left_out in written:
            raw = stack(model(**{key: value for key, value in written.items() if key != left_out}, load={**LOAD, "requestsPerSecond": 20}))
            (found,) = parse_fleet(raw).models
            if left_out != "accelerator":
                assert (found.accelerator.type, found.accelerator.count) == ("H100", 2)
            if left_out != "replicas":
                assert found.replicas == 5
            if left_out != "placement":
                assert found.placement.weights == {"east": 1, "west": 1}

    def test_a_complete_model_is_not_touched(self) -> None:
        raw = stack(fleets.model("chat", ["east", "west"]))
        assert resolve_fleet(raw)[1].choices == ()
        assert parse_fleet(raw).models[0].replicas == 2

    def test_models_share_the_nodes(self) -> None:
        raw = stack(model("one"), model("two"))
        for cluster in raw["clusters"]:
            cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "nodes": 1}]
        fleet = parse_fleet(raw)
        used = {cluster.name: 0 for cluster in fleet.clusters}
        for each in fleet.models:
            for place in each.placement.clusters:
                used[place.name] += place.weight * each.accelerator_in(place.name).count
        assert max(used.values()) <= 8

    def test_an_objective_decides_the_gpus_of_a_replica(self) -> None:
        one, several = (chosen(stack(model(objectives={"interTokenSeconds": seconds}))) for seconds in (0.1, 0.012))
        assert {count for _, count, _ in one.values()} == {1}
        assert min(count for _, count, _ in several.values()) > 1

    def test_constraints_hold(self) -> None:
        eu = chosen(stack(model(placement={"jurisdictions": ["EU"], "minimumClusters": 1})))
        assert set(eu) == {"north"}
        large = chosen(stack(model(placement={"gpuMemoryGiB": 60})))
        assert "L40S" not in {gpu for gpu, _, _ in large.values()}
        cheap = chosen(stack(model(placement={"dollarsPerGpuHour": 3.5})))
        assert {gpu for gpu, _, _ in cheap.values()} <= {"L40S", "A100"}

    def test_labels_choose_clusters(self) -> None:
        raw = stack(model(placement={"labels": {"latency": "near"}}))
        for name in (0, 2):
            raw["clusters"][name]["labels"] = {"latency": "near"}
        assert set(chosen(raw)) == {"east", "north"}

    @pytest.mark.parametrize(
        ("accepted", "admitted"),
        [("interactive", {"north"}), ("standard", {"west", "north"}), ("batch", {"east", "west", "north"}), (None, {"east", "west", "north"})],
    )
    def test_a_latency_class_admits_what_is_as_near_or_nearer(self, accepted: str | None, admitted: set[str]) -> None:
        raw = stack(model(replicas=1, load=None, placement={"minimumClusters": 1} | ({"latencyClass": accepted} if accepted else {})))
        raw["clusters"][0]["latencyClass"] = "batch"
        raw["clusters"][2]["latencyClass"] = "interactive"
        found: set[str] = set()
        for dear in (set(), {"east"}, {"east", "west"}, {"west", "north"}):
            # Whichever is cheapest of those that it may be in.
            for cluster in raw["clusters"]:
                cluster["provider"] = cluster["name"]
            prices = [
                {"accelerator": gpu, "provider": name, "dollarsPerGpuHour": 9.0 if name in dear else 1.0, "date": "2026-11-01"}
                for gpu in ("H100", "A100", "L40S")
                for name in ("east", "west", "north")
            ]
            raw["planning"] = {"prices": prices}
            found |= set(chosen(raw))
        assert found == admitted

    def test_a_quota_bounds_a_choice(self) -> None:
        raw = stack(model(accelerator={"type": "H100"}, load={**LOAD, "requestsPerSecond": 40}, placement={"minimumClusters": 1}))
        for cluster in raw["clusters"]:
            cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 1, "minNodes": 0, "maxNodes": 20}]
            cluster["provider"] = cluster["name"]
        (asked,) = {sum(replicas for _, _, replicas in chosen(raw).values())}
        assert asked > 3
        raw["planning"] = {"quotas": [{"accelerator": "H100", "provider": name, "gpus": 1} for name in ("east", "west")]}
        found = chosen(raw)
        assert max(found[name][2] for name in found if name != "north") <= 1
        raw["planning"]["quotas"].append({"accelerator": "H100", "provider": "north", "gpus": asked - 3})
        (problem,) = refused(raw)
        assert problem.rule == "model `chat` has no place: `load` 40 requests/s and the quotas of `planning.quotas` contradict each other"

    def test_hot_standby_answers_the_whole_load_without_any_region(self) -> None:
        fleet = parse_fleet(stack(model(placement={"standby": "hot"})))
        plan = fleet_plan.plan(fleet, TODAY)
        sites = {each.cluster: each for each in plan.models[0].sites}
        for lost in sites:
            rest = sum(each.replicas * each.size.speed.requests_per_second for name, each in sites.items() if name != lost and each.size and each.size.speed)
            assert rest >= LOAD["requestsPerSecond"]

    @pytest.mark.parametrize("how", [{"placement": {"standby": "cold"}}, {"objectives": {"restoreSeconds": 600}, "runtime": {"loadSeconds": 60}}])
    def test_cold_standby_finds_room_for_what_a_region_loses(self, how: dict[str, Any]) -> None:
        raw = stack(model(**how))
        for cluster in raw["clusters"]:
            cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 1, "nodes": 8}]
        plan = fleet_plan.plan(parse_fleet(raw), TODAY)
        assert [left.unplaced for loss in plan.losses for left in loss.left] == [0] * sum(len(loss.left) for loss in plan.losses)

    def test_warm_standby_counts_nodes_that_run_and_cold_those_that_may_come(self) -> None:
        def growing(standby: str) -> dict[str, Any]:
            raw = stack(model(placement={"standby": standby, "minimumClusters": 2}, replicas=2))
            raw["models"][0]["load"] = {**LOAD, "requestsPerSecond": 1}
            for cluster in raw["clusters"]:
                cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 1, "minNodes": 1, "maxNodes": 4}]
            return raw

        parse_fleet(growing("cold"))
        (problem,) = refused(growing("warm"))
        assert problem.rule == "no place is found for `chat` that survives the loss of a region"

    def test_a_cpu_model_without_replicas_gets_one_for_each_cluster_that_it_must_be_in(self) -> None:
        raw = fleets.small()
        raw["models"][0] |= {"accelerator": {"type": "cpu"}}
        del raw["models"][0]["replicas"]
        assert parse_fleet(raw).models[0].replicas == 2


class TestKept:
    def test_a_kept_choice_survives_new_prices(self) -> None:
        raw = stack(model())
        kept = keep(raw)
        before = chosen(raw)
        # What it runs on has become ten times as dear.
        dear = [{"accelerator": gpu, "dollarsPerGpuHour": 60.0, "date": "2026-11-01"} for gpu in {gpu for gpu, _, _ in before.values()}]
        raw["planning"] = {"prices": dear}
        assert chosen(raw) != before
        resolved = resolve_fleet(raw, kept)[1]
        assert placed(resolved) == before
        assert resolved.choices[0].kept == TODAY

    def test_it_is_moved_anew_only_for_more_than_the_difference_that_is_asked(self) -> None:
        raw = stack(model(accelerator={"type": "H100"}))
        kept = keep(raw)
        before = chosen(raw)
        east = next(iter(before))
        for dollars, moves in ((6.5, False), (4.0, True)):
            others = [name for name in ("east", "west", "north") if name != east]
            cheaper = copy.deepcopy(raw)
            for cluster in cheaper["clusters"]:
                cluster["provider"] = cluster["name"]
            own = [{"accelerator": "H100", "provider": east, "dollarsPerGpuHour": 6.88, "date": "2026-11-01"}]
            theirs = [{"accelerator": "H100", "provider": name, "dollarsPerGpuHour": dollars, "date": "2026-11-01"} for name in others]
            cheaper["planning"] = {"prices": own + theirs}
            assert chosen(cheaper, kept) == before
            assert (chosen(cheaper, kept, anew=True) != before) == moves

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"load": {**LOAD, "requestsPerSecond": 300}}, "do not answer the load"),
            ({"replicas": 30}, "`replicas` is 30 now"),
            ({"placement": {"gpuMemoryGiB": 100}}, "are no longer available"),
        ],
    )
    def test_what_is_not_possible_any_more_is_chosen_again_and_said(self, change: dict[str, Any], why: str) -> None:
        kept = keep(stack(model()))
        raw = stack(model(**change))
        if "placement" in change:
            for cluster in raw["clusters"]:
                cluster["gpuPools"] = [{"name": "h200", "accelerator": "H200", "gpusPerNode": 8, "nodes": 2}]
        (found,) = resolve_fleet(raw, kept)[1].choices
        assert found.kept is None
        assert why in found.gone
        assert why in choice.describe(found)

    def test_room_that_is_gone_for_what_a_region_loses_is_a_reason_too(self) -> None:
        raw = stack(model(placement={"standby": "cold"}))
        for cluster in raw["clusters"]:
            cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 1, "nodes": 12}]
        kept = keep(raw)
        (alone,) = resolve_fleet(raw, kept)[1].choices
        assert alone.kept
        (full,) = [each for each in raw["clusters"] if each["name"] == alone.placement[0].option.cluster]
        full["gpuPools"][0]["nodes"] = alone.placement[0].replicas
        (found,) = resolve_fleet(raw, kept)[1].choices
        assert found.gone == "its replicas would not find room any more after the loss of a region"

    def test_what_is_written_to_the_file_is_what_is_read(self, tmp_path: Any) -> None:
        raw = stack(model(placement={"standby": "hot"}))
        kept = keep(raw)
        (tmp_path / "choices.prod.yaml").write_text(yaml.safe_dump(kept.model_dump(mode="json", by_alias=True, exclude_none=True)))
        assert kept_choices(tmp_path, "prod") == kept
        assert kept_choices(tmp_path, "dev") == choice.NOTHING_KEPT

    def test_a_broken_file_names_its_field(self, tmp_path: Any) -> None:
        (tmp_path / "choices.prod.yaml").write_text("models: {chat: {chosen: 2026-11-21, replicas: many, clusters: []}}")
        with pytest.raises(SpecError, match=r"models\.chat\.replicas: must be a whole number, got: `many`"):
            kept_choices(tmp_path, "prod")

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            (b"models: [", "the file: is not valid YAML"),
            (b"\xff\xfe", "the file: is not valid UTF-8"),
            (b"- 1", "the file: must be a mapping of fields"),
            (b"models: {chat: {chosen: 2026-11-21, replicas: -1, clusters: [{name: east}]}}", r"models\.chat\.replicas: must be at least 1"),
            (b"models: {chat: {chosen: 2026-11-21, replicas: 1, clusters: []}}", r"models\.chat\.clusters: must have at least 1 entries"),
        ],
    )
    def test_what_is_no_file_of_choices_is_told(self, tmp_path: Any, written: bytes, told: str) -> None:
        (tmp_path / "choices.prod.yaml").write_bytes(written)
        with pytest.raises(SpecError, match=told):
            kept_choices(tmp_path, "prod")

    def test_a_folder_in_its_place(self, tmp_path: Any) -> None:
        (tmp_path / "choices.prod.yaml").mkdir()
        with pytest.raises(SpecError, match="the file: cannot be read: Is a directory"):
            kept_choices(tmp_path, "prod")

    def test_the_second_best_is_another(self) -> None:
        entry, resolved = resolve_fleet(stack(model()))
        second = choice.second_best(resolved, entry, resolved.choices[0])
        assert second is not None
        assert {each.option for each in second} != {each.option for each in resolved.choices[0].placement}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(stack_files(), st.data())
def test_whatever_is_left_out_it_is_chosen_or_refused(raw: dict[str, Any], data: st.DataObject) -> None:
    for each in raw["models"]:
        # In one order: that of a set is another in each run, and with it what is drawn next.
        for field in sorted(data.draw(st.sets(st.sampled_from(["accelerator", "replicas", "clusters", "facts"])))):
            if field == "clusters":
                each["placement"] = data.draw(st.sampled_from([{}, {"standby": "hot"}, {"standby": "warm"}, {"minimumClusters": 1}]))
            elif field == "facts":
                # Numbers that no model has; the rules say so, and the planner meets them first.
                each["facts"] = {**each["facts"], "hiddenSize": 1, "experts": 2, "expertsPerToken": 3, "slidingWindow": 1, "fullAttentionLayers": 99}
            else:
                del each[field]
        if data.draw(st.booleans()):
            each["load"] = {"requestsPerSecond": data.draw(st.floats(0.01, 1e4)), "inputTokens": 100, "outputTokens": data.draw(st.integers(1, 1000))}
    try:
        fleet = parse_fleet(raw)
    except SpecError:
        return
    fleet_plan.plan(fleet, TODAY)
    for each in fleet.models:
        assert sum(division.division(each.placement, each.replicas).values()) == each.replicas


class TestContradictions:
    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"replicas": 1}, "`placement.minimumClusters` 2 and `replicas` 1 contradict each other"),
            (
                {"replicas": 1, "placement": {"minimumClusters": 1}},
                "`replicas` 1 and `load` 60 requests/s contradict each other",
            ),
            ({"objectives": {"interTokenSeconds": 0.001}}, "no cluster keeps `objectives.interTokenSeconds` 0.001"),
            ({"placement": {"jurisdictions": ["FR"]}}, "no cluster keeps `placement.jurisdictions` FR"),
            (
                {"placement": {"accelerators": ["L40S"]}},
                "`placement.minimumClusters` 2 and `placement.accelerators` L40S contradict each other",
            ),
            (
                {"placement": {"jurisdictions": ["EU"], "accelerators": ["L40S"], "minimumClusters": 1}},
                "`placement.jurisdictions` EU and `placement.accelerators` L40S contradict each other",
            ),
            ({"placement": {"latencyClass": "interactive"}}, "no cluster keeps `placement.latencyClass` interactive"),
            ({"load": {**LOAD, "requestsPerSecond": 6000}}, "`load` 6000 requests/s and the nodes of the GPU pools contradict each other"),
        ],
    )
    def test_the_smallest_set_is_named(self, change: dict[str, Any], rule: str) -> None:
        (problem,) = refused(stack(model(**change)))
        assert problem.path == ("models", 0)
        assert problem.rule == f"model `chat` has no place: {rule}"
        assert problem.hint

    def test_a_model_that_no_gpu_holds(self) -> None:
        huge = {**fleets.FACTS, "parameters": 2_000_000_000_000}
        (problem,) = refused(stack(model(facts=huge)))
        assert problem.rule == "model `chat` fits on no GPU type of the fleet"

    def test_a_load_that_no_engine_takes(self) -> None:
        (problem,) = refused(stack(model(load={**LOAD, "inputTokens": 9000})))
        assert problem.path == ("models", 0, "load")

    def test_models_that_have_a_place_each_and_not_together(self) -> None:
        raw = stack(model("one"), fleets.model("other", ["east", "west"]), model("two"))
        for cluster in raw["clusters"]:
            cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 1, "nodes": 4}]
        (problem,) = refused(raw)
        assert problem.rule == "models `one`, `two` have a place each, but not all together"

    def test_other_models_are_checked_all_the_same(self) -> None:
        broken = fleets.model("other", ["east", "nowhere"])
        first, second = refused(stack(model(objectives={"interTokenSeconds": 0.001}), broken))
        assert first.path == ("models", 0)
        # The place in the file, though the model before it has no place.
        assert second.path == ("models", 1, "placement", "clusters", 1, "name")

    def test_a_written_cluster_that_breaks_a_constraint(self) -> None:
        raw = stack(fleets.model("chat", ["east", "west"]))
        raw["models"][0]["placement"]["gpuMemoryGiB"] = 100
        found = refused(raw)
        assert str(found[0]).startswith("models[0].placement.clusters[0].name: does not keep `placement.gpuMemoryGiB`: `H100` has 79.2 GiB, got: `east`")

    def test_a_written_cluster_that_is_too_far(self) -> None:
        raw = stack(fleets.model("chat", ["east", "west"]))
        raw["models"][0]["placement"]["latencyClass"] = "standard"
        raw["clusters"][1]["latencyClass"] = "batch"
        (problem,) = refused(raw)
        assert str(problem).startswith("models[0].placement.clusters[1].name: does not keep `placement.latencyClass`: it is of the class `batch`, got: `west`")

    def test_a_price_that_is_no_date(self) -> None:
        raw = stack(model())
        raw["planning"] = {"prices": [{"accelerator": "H100", "dollarsPerGpuHour": 2.0, "date": "soon"}]}
        assert str(refused(raw)[0]).startswith("planning.prices[0].date: must be a date such as `2026-11-01`, got: `soon`")
