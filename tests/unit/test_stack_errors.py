"""A wrong stack file is refused: every error at once, each with its field, rule, value and, where one helps, a hint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from specs.base import Problem, SpecError
from tests.unit import fleets
from tests.unit.fleets import parse_fleet

Fleet = dict[str, Any]


def problems(raw: Any) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_fleet(raw)
    return caught.value.problems


def put(*path: str | int, value: Any) -> Callable[[Fleet], None]:
    """An edit of a stack file: sets the field at `path`."""

    def edit(fleet: Fleet) -> None:
        holder: Any = fleet
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = value

    return edit


def drop(*path: str | int) -> Callable[[Fleet], None]:
    def edit(fleet: Fleet) -> None:
        holder: Any = fleet
        for part in path[:-1]:
            holder = holder[part]
        del holder[path[-1]]

    return edit


def _existing(**more: Any) -> dict[str, Any]:
    doors = {"frontDoor": {"url": "https://llm.example.com"}, "regionalGateway": {"address": "192.0.2.1", "port": 80}}
    return {"kind": "existing", "kubeconfigPath": "kubeconfig", **doors, **more}


@dataclass(frozen=True)
class Case:
    edit: Callable[[Fleet], None]
    where: str
    rule: str
    got: Any = None
    hint: str | None = None


def _failover(*path: str, **values: Any) -> Callable[[Fleet], None]:
    """Sets numbers of one part of the failover budget."""
    return put("failover", value={path[0]: values})


def _objectives(*, load: int | None = None, **values: Any) -> Callable[[Fleet], None]:
    """Sets objectives of the model, and the time that it takes to load."""

    def edit(fleet: Fleet) -> None:
        fleet["models"][0]["objectives"] = values
        if load is not None:
            fleet["models"][0]["runtime"] = {"loadSeconds": load}

    return edit


def _quota(*, growing: bool = False, **values: Any) -> Callable[[Fleet], None]:
    """A quota of the account that both clusters are in, whose pools have fixed nodes, or grow."""

    def edit(fleet: Fleet) -> None:
        for cluster in fleet["clusters"]:
            cluster["provider"] = "azure"
            if growing:
                cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "minNodes": 0, "maxNodes": 4}]
        fleet["planning"] = {"quotas": [{"accelerator": "H100", "provider": "azure", "gpus": 64, **values}]}

    return edit


def _alone(edit: Callable[[Fleet], None]) -> Callable[[Fleet], None]:
    """The same with the model in one cluster only, as declared."""

    def both(fleet: Fleet) -> None:
        fleet["models"][0]["placement"] = {"minimumClusters": 1, "clusters": [{"name": "east"}]}
        edit(fleet)

    return both


def _slow_model(evict_after: int | None, **capacity: Any) -> Callable[[Fleet], None]:
    def edit(fleet: Fleet) -> None:
        fleet["models"][0]["runtime"] = {"loadSeconds": 900}
        fleet["failover"] = {"capacity": capacity}
        if evict_after is not None:
            fleet["models"][0]["placement"]["evictAfterSeconds"] = evict_after

    return edit


MODEL = ("models", 0)
PLACED = (*MODEL, "placement", "clusters")
POOL = ("clusters", 0, "gpuPools", 0)

CASES = {
    "unknown field": Case(put("models", 0, "wieght", value=3), "models[0].wieght", "unknown field", "wieght"),
    "unknown field, deep": Case(
        put(*PLACED, 1, "weigth", value=3), "models[0].placement.clusters[1].weigth", "unknown field", "weigth", "did you mean `weight`?"
    ),
    "field in snake case": Case(
        put(*POOL, "gpus_per_node", value=8), "clusters[0].gpuPools[0].gpus_per_node", "unknown field", hint="did you mean `gpusPerNode`?"
    ),
    "field of another driver": Case(
        put("clusters", 0, "driver", "context", value="x"), "clusters[0].driver.context", "unknown field", "context", "known: `kind`"
    ),
    "missing field": Case(drop("clusters", 0, "region"), "clusters[0].region", "is required"),
    "wrong type": Case(put(*MODEL, "replicas", value="two"), "models[0].replicas", "must be a whole number", "two"),
    "number as text": Case(put(*MODEL, "replicas", value="2"), "models[0].replicas", "must be a whole number", "2"),
    "fraction": Case(put(*MODEL, "replicas", value=1.5), "models[0].replicas", "must be a whole number", 1.5),
    "truth as number": Case(put(*MODEL, "replicas", value=True), "models[0].replicas", "must be a whole number", True),
    "too small": Case(put(*MODEL, "replicas", value=0), "models[0].replicas", "must be at least 1", 0),
    "zero weight": Case(put(*PLACED, 0, "weight", value=0), "models[0].placement.clusters[0].weight", "must be at least 1", 0),
    "mapping for a list": Case(put("clusters", value={}), "clusters", "must be a list", {}),
    "text for a mapping": Case(put("hub", value="local"), "hub", "must be a mapping of fields", "local"),
    "an empty name of a provider": Case(
        put("frontDoors", value={"authentication": {"kind": "external", "provider": ""}}),
        "frontDoors.authentication.provider",
        "must have at least 1 character(s)",
        "",
    ),
    # Not also that the list is too short.
    "the only entry of a list that needs one": Case(put("clusters", value=[{**fleets.cluster("east"), "region": 5}]), "clusters[0].region", "must be text", 5),
    "no clusters": Case(put("clusters", value=[]), "clusters", "must have at least 1 entries", []),
    "unknown driver": Case(put("clusters", 0, "driver", "kind", value="eks"), "clusters[0].driver.kind", "must be one of `local`, `existing`", "eks"),
    "driver without kind": Case(drop("clusters", 0, "driver", "kind"), "clusters[0].driver", "needs a field `kind`"),
    "unknown GPU type": Case(
        put(*POOL, "accelerator", value="H1000"), "clusters[0].gpuPools[0].accelerator", "must be a known GPU type", "H1000", "did you mean `H100`?"
    ),
    "CPU pool": Case(put(*POOL, "accelerator", value="cpu"), "clusters[0].gpuPools[0].accelerator", "must be a known GPU type", "cpu"),
    "CPU replica of two": Case(put(*MODEL, "accelerator", value={"type": "cpu", "count": 2}), "models[0].accelerator", "`count` must be 1 on `cpu`"),
    "unknown capacity type": Case(put(*POOL, "capacityTypes", value=["spott"]), "clusters[0].gpuPools[0].capacityTypes[0]", "must be one of", "spott"),
    "taint without a key": Case(
        put(*POOL, "taints", value=[{"key": "nvidia.com/"}]), "clusters[0].gpuPools[0].taints[0].key", "must be a key such as", "nvidia.com/"
    ),
    "unknown effect of a taint": Case(
        put(*POOL, "taints", value=[{"key": "gpu", "effect": "NoRun"}]), "clusters[0].gpuPools[0].taints[0].effect", "must be one of", "NoRun"
    ),
    "pool without size": Case(drop(*POOL, "nodes"), "clusters[0].gpuPools[0]", "needs either `nodes`, or `minNodes` and `maxNodes`"),
    "pool with two sizes": Case(put(*POOL, "maxNodes", value=3), "clusters[0].gpuPools[0]", "must not have both `nodes` and bounds"),
    "pool bounds crossed": Case(
        put(*POOL, value={"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "minNodes": 3, "maxNodes": 2}),
        "clusters[0].gpuPools[0]",
        "`minNodes` must not exceed `maxNodes`: `3` and `2`",
    ),
    "source without scheme": Case(
        put(*MODEL, "source", value="meta/llama"), "models[0].source", "must start with one of `oci://`, `hf://`, `s3://`, `pvc://`", "meta/llama"
    ),
    "malformed source": Case(
        put(*MODEL, "source", value="hf://llama"), "models[0].source", "is not a valid `hf://` source", "hf://llama", "it looks like hf://organisation/model"
    ),
    "model name in capitals": Case(put(*MODEL, "name", value="Chat"), "models[0].name", "must start with a letter", "Chat"),
    "model name too long": Case(put(*MODEL, "name", value="m" * 49), "models[0].name", "must have at most 48 characters", "m" * 49, "isvc.<name>-predictor"),
    "cluster name too long": Case(
        put("clusters", 0, "name", value="c" * 49), "clusters[0].name", "must have at most 48 characters", "c" * 49, "Karmada's limit"
    ),
    "kubeconfig named twice": Case(
        put("clusters", 0, "driver", value=_existing(kubeconfigSecret="kubeconfig-east")),
        "clusters[0].driver",
        "needs exactly one of `kubeconfigPath` and `kubeconfigSecret`",
    ),
    "member without a regional gateway": Case(
        put("clusters", 0, "driver", value={key: value for key, value in _existing().items() if key != "regionalGateway"}),
        "clusters[0].driver.regionalGateway",
        "is required for a member",
        hint="its gateways are made by somebody else: say where they are reached",
    ),
    "hub with a front door": Case(
        put("hub", "driver", value=_existing()), "hub.driver.frontDoor", "must not be set for the hub", hint="no request goes through the hub: leave it out"
    ),
    "front door without scheme": Case(
        put("clusters", 0, "driver", value=_existing(frontDoor={"url": "llm.example.com"})),
        "clusters[0].driver.frontDoor.url",
        "must be a URL",
        "llm.example.com",
    ),
    "duplicate cluster": Case(put("clusters", 1, "name", value="east"), "clusters[1].name", "must be unique in its list", "east"),
    "cluster named as the hub": Case(put("clusters", 1, "name", value="hub"), "clusters[1].name", "must differ from the name of the hub", "hub"),
    "duplicate pool": Case(
        lambda fleet: fleet["clusters"][0]["gpuPools"].append(dict(fleet["clusters"][0]["gpuPools"][0])),
        "clusters[0].gpuPools[1].name",
        "must be unique in its list",
        "h100",
    ),
    "duplicate model": Case(lambda fleet: fleet["models"].append(dict(fleet["models"][0])), "models[1].name", "must be unique in its list", "chat"),
    "cluster placed twice": Case(put(*PLACED, 1, "name", value="east"), "models[0].placement.clusters[1].name", "must be unique in its list", "east"),
    "weight for no cluster": Case(
        put(*PLACED, 1, "name", value="wets"), "models[0].placement.clusters[1].name", "no such cluster in `clusters`", "wets", "did you mean `west`?"
    ),
    "failover to no cluster": Case(
        put(*MODEL, "placement", "failoverOrder", value=["wets"]),
        "models[0].placement.failoverOrder[0]",
        "must be one of the model's",
        "wets",
        "did you mean `west`?",
    ),
    "failover named twice": Case(
        put(*MODEL, "placement", "failoverOrder", value=["west", "west"]), "models[0].placement.failoverOrder[1]", "must be named once", "west"
    ),
    "jurisdiction violated": Case(
        put(*MODEL, "placement", "jurisdictions", value=["EU"]),
        "models[0].placement.clusters[0].name",
        "model `chat` is allowed in `EU` only, and this cluster is in no jurisdiction",
        "east",
    ),
    "a packed model without a digest": Case(
        lambda fleet: fleet["models"][0].update(source="oci://registry.example.com/models/chat:v1", pack="chat"),
        "models[0].source",
        "must be `oci://…@sha256:…`, the digest that `pack` is packed to",
        "oci://registry.example.com/models/chat:v1",
        "`fleet model pack DIR --output LAYOUT` prints the digest",
    ),
    "too few clusters": Case(
        put(*MODEL, "placement", "clusters", value=[{"name": "east"}]),
        "models[0].placement.clusters",
        "must name at least 2 clusters",
        "east",
        "minimumClusters: 1",
    ),
    "one region only": Case(
        put("clusters", 1, "region", value="east"), "models[0].placement.clusters", "region `east` has no failover partner", "east, west", "another region"
    ),
    "a cluster gets no replica": Case(put(*MODEL, "replicas", value=1), "models[0].replicas", "is too few for the weights: `west` would get none", 1),
    "no pool of that type": Case(
        put(*MODEL, "accelerator", "type", value="L40S"),
        "models[0].accelerator.type",
        "cluster `east` has no pool of this GPU type",
        "L40S",
        "`east` has `H100`",
    ),
    "no pool of the override": Case(
        put(*PLACED, 1, "accelerator", value={"type": "A100", "count": 1}),
        "models[0].placement.clusters[1].accelerator.type",
        "cluster `west` has no pool of this GPU type",
        "A100",
    ),
    "more GPUs than a node": Case(
        put(*MODEL, "accelerator", "count", value=16), "models[0].accelerator.count", "must not exceed the 8 GPUs of a `H100` node in `east`", 16
    ),
    "size does not divide heads": Case(
        put(*MODEL, "accelerator", "count", value=3), "models[0].accelerator.count", "must divide the model's 32 attention heads", 3, "possible: 1, 2, 4, 8, 16"
    ),
    "size against key-value heads": Case(
        put(*MODEL, "facts", "keyValueHeads", value=6),
        "models[0].facts.keyValueHeads",
        "must divide `attentionHeads`, which is 32",
        6,
    ),
    "more experts for a token than there are": Case(
        lambda fleet: fleet["models"][0]["facts"].update(experts=8, expertsPerToken=9),
        "models[0].facts.expertsPerToken",
        "must not exceed `experts`, which is 8",
        9,
    ),
    "more layers than there are": Case(
        put(*MODEL, "facts", "fullAttentionLayers", value=33), "models[0].facts.fullAttentionLayers", "must not exceed `layers`, which is 32", 33
    ),
    "longer than the model": Case(
        put(*MODEL, "runtime", value={"maxModelLength": 10_000}), "models[0].runtime.maxModelLength", "must not exceed the model's own maximum", 10_000
    ),
    "more GPUs than the pool": Case(
        put(*MODEL, "replicas", value=100), "clusters[0].gpuPools", "has 32 GPUs of type H100, and models need 50", "chat 50 x 1", "add nodes"
    ),
    "connection time below two round trips": Case(
        _failover("requests", roundTripMilliseconds=300),
        "failover.requests.connectTimeoutMilliseconds",
        "must be at least twice `roundTripMilliseconds`, which is 300",
        500,
        "set 600 or more",
    ),
    "PING time below two round trips": Case(
        _failover("requests", pingTimeoutMilliseconds=150),
        "failover.requests.pingTimeoutMilliseconds",
        "must be at least twice `roundTripMilliseconds`, which is 100",
        150,
        "answers a PING",
    ),
    "active health check below two round trips": Case(
        _failover("requests", healthTimeoutSeconds=0.1),
        "failover.requests.healthTimeoutSeconds",
        "must be at least twice `roundTripMilliseconds`",
        0.1,
        "set 0.2 or more",
    ),
    "active health check longer than its interval": Case(
        _failover("requests", healthTimeoutSeconds=2),
        "failover.requests.healthTimeoutSeconds",
        "must not exceed `healthIntervalSeconds`, which is 1",
        2,
        "a longer interval says the same",
    ),
    "ejection shorter than active health checks": Case(
        _failover("requests", ejectionSeconds=6),
        "failover.requests.ejectionSeconds",
        "must exceed the 6.3 s after which active health checks find a silent region",
        6,
        "`unhealthyThreshold`",
    ),
    "resume without relay": Case(_failover("streams", resume=True), "failover.streams.resume", "needs `relay: true`", True),
    "relay faster than the guard": Case(
        _failover("streams", relay=True, idleSeconds=8),
        "failover.streams.idleSeconds",
        "must exceed `requests.stallSeconds`, which is 8",
        8,
        "guard",
    ),
    "slow model evicted at once": Case(
        _slow_model(None, evictAfterSeconds=0, gracefulTimeoutSeconds=1000),
        "failover.capacity.evictAfterSeconds",
        "must not be 0 for model `chat`, which takes 900 s to load",
        0,
        "`placement.evictAfterSeconds` of the model",
    ),
    "slow model evicted at once by itself": Case(
        _slow_model(0, gracefulTimeoutSeconds=1000), "models[0].placement.evictAfterSeconds", "must not be 0 for model `chat`", 0
    ),
    "old copy gone before the new one is ready": Case(
        _slow_model(None),
        "failover.capacity.gracefulTimeoutSeconds",
        "must exceed the 905.5 s until model `chat` is ready elsewhere",
        600,
        "`models[0].runtime.loadSeconds`",
    ),
    "failover slower than restore": Case(
        _objectives(failoverSeconds=500, restoreSeconds=400, load=1),
        "models[0].objectives.failoverSeconds",
        "must not exceed `restoreSeconds`, which is 400",
        500,
        "requests leave a dead region before",
    ),
    "failover that cannot be kept": Case(
        _objectives(failoverSeconds=1),
        "models[0].objectives.failoverSeconds",
        "cannot be kept: the worst case is 1.38 s with case `hang`, of which 1.075 s `ping`",
        1,
        "lower `failover.requests.pingIntervalMilliseconds` and `failover.requests.pingTimeoutMilliseconds`, or raise the objective to at least 1.4",
    ),
    "failover with a wait that is lost": Case(
        _objectives(failoverSeconds=3, timeToFirstTokenSeconds=2),
        "models[0].objectives.failoverSeconds",
        "of which 2 s `waited`",
        3,
        "lower `objectives.timeToFirstTokenSeconds`",
    ),
    "failover to nowhere": Case(
        _alone(_objectives(failoverSeconds=10)),
        "models[0].objectives.failoverSeconds",
        "cannot be kept: only one region serves the model",
        10,
        "another region",
    ),
    "restore that cannot be kept": Case(
        _objectives(restoreSeconds=180, load=30),
        "models[0].objectives.restoreSeconds",
        "cannot be kept: the worst case is 180.1 s with a region that does not answer, of which 60 s `toleration`",
        180,
        "lower `placement.evictAfterSeconds`, or raise the objective to at least 181",
    ),
    "restore of a model that loads for an unknown time": Case(
        _objectives(restoreSeconds=300), "models[0].objectives.restoreSeconds", "needs `runtime.loadSeconds`", 300, "declare the longest time"
    ),
    "restore to nowhere": Case(
        _alone(_objectives(restoreSeconds=300, load=1)),
        "models[0].objectives.restoreSeconds",
        "cannot be kept: the model has one region",
        300,
        "add a cluster of another region",
    ),
    "restore without room": Case(
        lambda fleet: (_objectives(restoreSeconds=300, load=1)(fleet), put(*MODEL, "replicas", value=50)(fleet))[0],
        "models[0].objectives.restoreSeconds",
        "cannot be kept when region `east` is lost: `west` has 32 GPUs of type H100, and 50 are needed",
        300,
        "add nodes in `west`",
    ),
    "quota of a provider that no cluster has": Case(
        _quota(provider="azur"), "planning.quotas[0].provider", "no cluster has this provider", "azur", "did you mean `azure`?"
    ),
    "quota of a region that no cluster is in": Case(
        _quota(region="westt"), "planning.quotas[0].region", "no cluster of `azure` is in this region", "westt", "did you mean `west`?"
    ),
    "quota that fixed nodes exceed": Case(
        _quota(gpus=63),
        "planning.quotas[0].gpus",
        "must be at least 64, the GPUs of the nodes that its pools have in any case",
        63,
        "request a higher quota",
    ),
    "quota that replicas exceed": Case(
        _quota(gpus=8, growing=True), "planning.quotas[0].gpus", "is too few: 1 replica(s) find no node within it", 8, "make the pools or `replicas` smaller"
    ),
    "load longer than the model": Case(
        put(*MODEL, "load", value={"requestsPerSecond": 1, "inputTokens": 8000, "outputTokens": 193}),
        "models[0].load",
        "`inputTokens` and `outputTokens` together must not exceed `facts.maxModelLength`, which is 8192",
        8193,
        "the engine refuses longer requests",
    ),
    "price without end": Case(
        put("planning", value={"prices": [{"accelerator": "H100", "dollarsPerGpuHour": float("inf"), "date": "2026-11-01"}]}),
        "planning.prices[0].dollarsPerGpuHour",
        "must be a finite number",
        "Infinity",
    ),
    "first token later than a stall": Case(
        _objectives(timeToFirstTokenSeconds=8),
        "models[0].objectives.timeToFirstTokenSeconds",
        "must be less than `failover.requests.stallSeconds`, which is 8",
        8,
        "raise `stallSeconds`",
    ),
    "first token sooner than a round trip": Case(
        _objectives(timeToFirstTokenSeconds=0.1),
        "models[0].objectives.timeToFirstTokenSeconds",
        "must exceed `failover.requests.roundTripMilliseconds`, which is 100",
        0.1,
        "round trip",
    ),
    "more availability than one region has": Case(
        _alone(_objectives(availabilityPercent=99.95)),
        "models[0].objectives.availabilityPercent",
        "must not exceed 99.9 for a model in one region",
        99.95,
        "another region",
    ),
    "number out of bounds in a nested default": Case(
        put("failover", value={"requests": {"gatewayErrors": 0}}), "failover.requests.gatewayErrors", "must be at least 1", 0
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_rule_names_field_value_and_remedy(name: str) -> None:
    case = CASES[name]
    fleet = fleets.small()
    case.edit(fleet)
    found = [str(each) for each in problems(fleet)]
    matching = [text for text in found if text.startswith(f"{case.where}: ") and case.rule in text]
    assert matching, found
    if case.got is not None:
        shown = case.got if isinstance(case.got, str) else str(case.got).lower() if isinstance(case.got, bool) else str(case.got)
        assert f"got: `{shown}`" in matching[0]
    if case.hint is not None:
        assert case.hint in matching[0].partition("hint: ")[2]


def test_key_value_heads_may_be_fewer_than_gpus_but_must_divide_or_be_divided() -> None:
    fleet = fleets.small()
    fleet["models"][0]["facts"] |= {"attentionHeads": 24, "keyValueHeads": 4}
    fleet["models"][0]["accelerator"]["count"] = 8
    parse_fleet(fleet)
    fleet["models"][0]["accelerator"]["count"] = 6
    assert [each.rule for each in problems(fleet)] == ["must divide the model's 4 key-value heads, or be a multiple of them"]


def test_gpus_are_summed_over_models_and_types_are_kept_apart() -> None:
    fleet = fleets.small()
    fleet["models"] = [fleets.model(name, ["east", "west"], replicas=8, accelerator={"type": "H100", "count": 8}) for name in ("one", "two")]
    first, second = problems(fleet)
    assert str(first).startswith("clusters[0].gpuPools: has 32 GPUs of type H100, and models need 64, got: `one 4 x 8, two 4 x 8`")
    assert second.path == ("clusters", 1, "gpuPools")
    for cluster in fleet["clusters"]:
        cluster["gpuPools"].append({"name": "l40s", "accelerator": "L40S", "gpusPerNode": 8, "nodes": 4})
    fleet["models"][1]["accelerator"]["type"] = "L40S"
    parse_fleet(fleet)


def test_replicas_that_fit_in_sum_but_on_no_node_are_refused() -> None:
    fleet = fleets.small()
    for cluster in fleet["clusters"]:
        cluster["gpuPools"] = [{"name": "h100", "accelerator": "H100", "gpusPerNode": 8, "nodes": 3}]
    fleet["models"] = [
        fleets.model("big", ["east", "west"], replicas=4, accelerator={"type": "H100", "count": 8}),
        fleets.model("odd", ["east", "west"], replicas=4, accelerator={"type": "H100", "count": 4}),
    ]
    parse_fleet(fleet)
    for cluster in fleet["clusters"]:
        cluster["gpuPools"][0] |= {"gpusPerNode": 4, "nodes": 6}
    fleet["models"][0]["accelerator"]["count"] = 2
    fleet["models"][0]["replicas"] = 8
    parse_fleet(fleet)
    fleet["models"][0]["facts"]["attentionHeads"] = fleet["models"][0]["facts"]["keyValueHeads"] = 48
    fleet["models"][0]["accelerator"]["count"] = 3
    fleet["models"][0]["replicas"] = 10
    assert "replica(s) find no node with all of theirs free" in str(problems(fleet)[0])


def test_all_errors_are_told_at_once_even_if_some_are_of_type_and_some_of_meaning() -> None:
    fleet = fleets.small()
    fleet["clusters"][0]["driver"]["port"] = 1
    fleet["models"].append(fleets.model("broken", ["east", "west"], replicas="many"))
    fleet["models"].append(fleets.model("lost", ["east", "nowhere"]))
    fleet["models"][0]["placement"]["weights"] = {}
    found = [str(each).split(": ")[0] for each in problems(fleet)]
    assert found == ["clusters[0].driver.port", "models[0].placement.weights", "models[1].replicas", "models[2].placement.clusters[1].name"]


def test_everything_about_failover_is_told_at_once() -> None:
    fleet = fleets.small()
    fleet["failover"] = {
        "requests": {"pingTimeoutMilliseconds": 100, "ejectionSeconds": 2},
        "streams": {"resume": True},
        "capacity": {"gracefulTimeoutSeconds": 10, "evictAfterSeconds": 0},
    }
    fleet["models"][0] |= {
        "runtime": {"loadSeconds": 61},
        "objectives": {"failoverSeconds": 0.5, "restoreSeconds": 0.25, "timeToFirstTokenSeconds": 9},
    }
    assert [str(each).split(": ")[0] for each in problems(fleet)] == [
        "failover.requests.pingTimeoutMilliseconds",
        "failover.requests.ejectionSeconds",
        "failover.streams.resume",
        "failover.capacity.evictAfterSeconds",
        "failover.capacity.gracefulTimeoutSeconds",
        "models[0].objectives.failoverSeconds",
        "models[0].objectives.timeToFirstTokenSeconds",
        "models[0].objectives.failoverSeconds",
        "models[0].objectives.restoreSeconds",
    ]


def test_an_objective_that_is_just_kept_is_accepted() -> None:
    fleet = fleets.small()
    fleet["models"][0] |= {"runtime": {"loadSeconds": 30}, "objectives": {"failoverSeconds": 1.4, "restoreSeconds": 181}}
    parse_fleet(fleet)
    # Its own time for a lost cluster counts, not that of the fleet.
    fleet["models"][0]["placement"]["evictAfterSeconds"] = 0
    fleet["models"][0]["objectives"]["restoreSeconds"] = 121
    parse_fleet(fleet)


def test_a_model_without_objectives_promises_nothing_and_needs_no_spare_gpus() -> None:
    fleet = fleets.small()
    fleet["models"][0]["replicas"] = 50
    parse_fleet(fleet)


def test_room_is_counted_for_all_models_that_a_lost_region_held() -> None:
    fleet = fleets.small()
    one = fleets.model("one", ["east", "west"], replicas=4, accelerator={"type": "H100", "count": 4}, runtime={"loadSeconds": 1})
    fleet["models"] = [{**one, "objectives": {"restoreSeconds": 300}}, {**one, "name": "two", "source": "hf://example/two"}]
    parse_fleet(fleet)
    # Each alone has room; both together have 40 of 32 GPUs.
    fleet["models"][0]["replicas"] = fleet["models"][1]["replicas"] = 5
    told = [str(each) for each in problems(fleet)]
    assert [text.split(": ")[0] for text in told] == ["models[0].objectives.restoreSeconds"] * 2
    assert "`west` has 32 GPUs of type H100, and 40 are needed" in told[0]
    assert "`east` has 32 GPUs of type H100, and 40 are needed" in told[1]


def test_clusters_of_one_region_are_lost_together() -> None:
    fleet = fleets.small()
    fleet["clusters"].append(fleets.cluster("east-2", "east"))
    fleet["models"] = [
        fleets.model("chat", ["east", "east-2", "west"], replicas=36, runtime={"loadSeconds": 1}, objectives={"restoreSeconds": 300}),
    ]
    # Of either cluster of the east the other two would take half: it is both together that leave too little.
    (problem,) = problems(fleet)
    assert "when region `east` is lost: `west` has 32 GPUs of type H100, and 36 are needed" in problem.rule


def test_a_stack_file_that_is_no_mapping_is_told_so() -> None:
    assert [each.rule for each in problems([])] == ["must be a mapping of fields"]
    assert [each.rule for each in problems("text")] == ["must be a mapping of fields"]


@pytest.mark.parametrize("stack_file", fleets.stack_files(), ids=lambda path: path.stem)
def test_every_committed_stack_file_is_valid(stack_file: Any) -> None:
    parse_fleet(fleets.read(stack_file))


def test_the_local_stack_is_what_the_readme_promises() -> None:
    spec = parse_fleet(fleets.read(fleets.REPO / "stacks" / "Pulumi.local.yaml"))
    pools = [pool for cluster in spec.clusters for pool in cluster.gpu_pools]
    assert {pool.accelerator for pool in pools} >= {"H100", "L40S", "A100"}
    assert sum(pool.gpus for pool in pools) >= 64
    assert [cluster.name for cluster in spec.clusters] == ["us-east", "us-west", "eu-west"]
    assert [each.weight for each in spec.models[1].placement.clusters] == [3, 2, 1]
