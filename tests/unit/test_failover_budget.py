"""What a stack shows of its failover: from the numbers of the stack file to a line, an output and the documentation."""

import json
from typing import Any

import pytest

from components.fleet import Fleet, FleetArgs
from components.mesh import envoy_filters
from operations import failover_budget_document
from planning import failover_budget, failover_time
from planning.failover_budget import Promise
from planning.failover_time import largest, total
from specs import labels
from specs.failover import RequestFailoverSpec
from specs.fleet import FleetSpec
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet


def small(**failover: Any) -> FleetSpec:
    return parse_fleet({**fleets.small(), "failover": failover})


def promise(fleet: FleetSpec, at: int = 0) -> Promise:
    return failover_budget.promise(fleet, fleet.models[at])


def local() -> FleetSpec:
    return parse_fleet(fleets.read(fleets.REPO / "stacks" / "Pulumi.local.yaml"))


def test_numbers_of_the_stack_file_arrive_in_seconds() -> None:
    fleet = small(requests={"roundTripMilliseconds": 50, "pingIntervalMilliseconds": 250, "backoffMilliseconds": 25}, capacity={"evictAfterSeconds": 7})
    requests = failover_budget.requests(fleet, fleet.models[0])
    assert requests.round_trip == 0.05
    assert failover_time.ping_detection(requests) == pytest.approx(0.25 * 1.15 + 0.5)
    assert {part.name: part.seconds for part in failover_time.cases(requests)["kill"].added or ()}["backoff"] == 0.025
    assert requests.regions == 2
    capacity = failover_budget.capacity(fleet, fleet.models[0])
    assert (capacity.evict_after, capacity.spec.failure_threshold_seconds, capacity.load) == (7, 30, None)


def test_regions_are_counted_not_clusters() -> None:
    raw = fleets.small()
    raw["clusters"].append(fleets.cluster("east-2", "east"))
    raw["models"][0] = fleets.model("chat", ["east", "east-2", "west"])
    fleet = parse_fleet(raw)
    assert failover_budget.requests(fleet, fleet.models[0]).regions == 2


def test_jitter_is_what_the_front_doors_are_told() -> None:
    filter_ = envoy_filters.health_filter("chat", "chat.fleet.internal", "/fleet/ready", RequestFailoverSpec(), leaves=True)
    (check,) = filter_["spec"]["configPatches"][0]["patch"]["value"]["health_checks"]
    assert check["interval_jitter_percent"] == failover_time.CHECK_JITTER * 100
    # Otherwise Envoy checks regions without requests once a minute.
    assert check["no_traffic_interval"] == check["interval"]


def test_no_fewer_objects_are_counted_than_karmada_may_evict_at_once() -> None:
    fleet = parse_fleet(fleets.generated(3, 5))

    def program() -> dict[str, Any]:
        return dict(Fleet("fleet", FleetArgs(spec=fleet)).outputs())

    declared, _ = engine.run(program)
    policies = [each.inputs["spec"] for kind in ("PropagationPolicy", "ClusterPropagationPolicy") for each in declared.of_kind(kind)]
    lost = [[each for each in spec["placement"]["clusterTolerations"] if each["key"] == labels.TAINT_LOST] for spec in policies]
    # One toleration each: without any, Karmada evicts in the moment of the taint; without its seconds, never.
    assert all(len(each) == 1 for each in lost)
    evicted = [spec for spec, (toleration,) in zip(policies, lost, strict=True) if "tolerationSeconds" in toleration]
    assert [selector["kind"] for spec in evicted for selector in spec["resourceSelectors"]] == ["InferenceService"] * len(fleet.models)
    assert failover_budget.capacity(fleet, fleet.models[0]).models == len(evicted)


def test_the_line_of_a_preview_names_faults_and_the_time_to_restore() -> None:
    fleet = local()
    assert failover_budget.describe(promise(fleet, 1)) == (
        "failover: requests come later by at most: kill 111 ms, hang 1.2 s, blackhole 1.2 s, engine-hang 9.2 s; "
        "replicas elsewhere after 19 s (silent region: 91 s); streams go on in another region, or end with an error event"
    )


def test_the_line_says_what_is_not_known_and_what_cannot_be() -> None:
    assert "and the time to load it (runtime.loadSeconds is not declared)" in failover_budget.describe(promise(small()))
    alone = failover_budget.describe(promise(local(), 2))
    assert "requests fail while its only region is away; its replicas can move nowhere; streams end with an error event" in alone


@pytest.mark.parametrize(
    ("streams", "told"),
    [({}, "end with a broken connection"), ({"relay": True}, "end with an error event"), ({"relay": True, "resume": True}, "go on in another")],
)
def test_the_fate_of_streams_is_told(streams: dict[str, Any], told: str) -> None:
    assert f"streams {told}" in failover_budget.describe(promise(small(streams=streams)))


def test_the_output_is_plain_json_whose_parts_make_its_sums() -> None:
    for fleet in (local(), small()):
        for at in range(len(fleet.models)):
            shown = json.loads(json.dumps(failover_budget.output(promise(fleet, at))))
            sums = [(each["addedSeconds"], each["addedParts"]) for each in shown["cases"].values() if "addedParts" in each]
            if shown["restore"]:
                sums += [(shown["restore"][f"{each}Seconds"], shown["restore"]["parts"][each]) for each in ("killed", "silent")]
            assert sums
            for whole, parts in sums:
                assert whole == pytest.approx(sum(parts.values()), abs=0.005)


def test_the_output_of_a_model_in_one_region_has_no_times_that_would_mislead() -> None:
    shown = failover_budget.output(promise(local(), 2))
    assert shown["cases"]["kill"]["addedSeconds"] is None
    assert shown["cases"]["kill"]["failed"] is None
    assert shown["restore"] is None


def test_what_is_shown_is_never_shorter_than_what_is_meant() -> None:
    assert [failover_budget.rounded_up(each) for each in (0.1101, 0.405, 1.01, 9.95, 44.1, 60.0)] == ["0.111", "0.405", "1.1", "10", "45", "60"]


def test_every_part_that_a_knob_decides_names_it() -> None:
    fleet = local()
    for at in range(len(fleet.models)):
        each = promise(fleet, at)
        for parts in (each.killed, each.silent, *(each.cases[name].added or () for name in failover_budget.DEATHS)):
            fixed = {"work", "taint", "scheduling", "readiness"}
            assert {part.name for part in parts} <= set(failover_budget.KNOBS) | fixed


def test_the_knobs_are_fields_of_a_stack_file() -> None:
    known = (fleets.REPO / "stacks" / "schema.json").read_text(encoding="utf-8")
    assert [knob for knobs in failover_budget.KNOBS.values() for knob in knobs if f'"{knob.rsplit(".", 1)[-1]}"' not in known] == []


def test_the_local_fleet_restores_a_simulated_model_within_20_seconds_of_a_kill() -> None:
    fleet = local()
    assert total(promise(fleet, 1).killed) <= 20
    # A second vLLM beside the first takes both cores: it waits to see whether the other region comes back.
    assert largest(promise(fleet, 0).killed).seconds == 120


def test_the_local_fleet_keeps_the_goals_of_the_drill() -> None:
    cases = promise(local()).cases
    assert total(cases["kill"].left) <= 0.25
    assert total(cases["hang"].added or ()) <= 1.5
    assert total(cases["blackhole"].added or ()) <= 1.5
    assert total(cases["hang"].left) <= 2
    assert total(cases["engine-hang"].left) <= 12
    assert all(total(each.back) <= 5 for each in cases.values())


def test_the_worked_example_of_the_documentation_is_current() -> None:
    written = failover_budget_document.DOCUMENT.read_text(encoding="utf-8").split(failover_budget_document.MARK, 1)[1]
    assert written == f"\n{failover_budget_document.example()}", "run: python -m operations.failover_budget_document"
