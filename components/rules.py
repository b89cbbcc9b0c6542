"""What a fleet must satisfy beyond the types of its fields: the rules that need several Specs.

Each rule is a function that tells every breach, never only the first. Checks of a single field stand at the field.
"""

from collections.abc import Callable, Iterator, Sequence

from components.clusters import ClusterSpec
from components.fleet_spec import FleetSpec
from components.gpu_pools import AcceleratorSpec, nodes_of
from components.placement import PlacementClusterSpec, division
from components.serving import ModelSpec
from components.spec import Path, Problem, closest
from planning import capacity
from planning.accelerators import CPU

Rule = Callable[[FleetSpec], Iterator[Problem]]


def problems(fleet: FleetSpec) -> Iterator[Problem]:
    """Every breach of every rule, in the order of the stack file's sections."""
    for rule in RULES:
        yield from rule(fleet)


def _duplicates(names: Sequence[str], path: Path) -> Iterator[Problem]:
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            yield Problem((*path, place, "name"), "must be unique in its list", name)
        seen.add(name)


def names_are_unique(fleet: FleetSpec) -> Iterator[Problem]:
    yield from _duplicates([each.name for each in fleet.clusters], ("clusters",))
    for place, cluster in enumerate(fleet.clusters):
        yield from _duplicates([each.name for each in cluster.gpu_pools], ("clusters", place, "gpuPools"))
        if cluster.name == fleet.hub.name:
            yield Problem(("clusters", place, "name"), "must differ from the name of the hub", cluster.name)
    yield from _duplicates([each.name for each in fleet.models], ("models",))
    for place, model in enumerate(fleet.models):
        yield from _duplicates([each.name for each in model.placement.clusters], ("models", place, "placement", "clusters"))


def _placements(fleet: FleetSpec) -> Iterator[tuple[int, ModelSpec, int, PlacementClusterSpec, ClusterSpec | None]]:
    """Every pair of a model and a cluster of its placement, with both places in the file; None for an unknown cluster."""
    clusters = fleet.by_name
    for at, model in enumerate(fleet.models):
        for place, each in enumerate(model.placement.clusters):
            yield at, model, place, each, clusters.get(each.name)


def placements_name_clusters(fleet: FleetSpec) -> Iterator[Problem]:
    for at, _, place, each, cluster in _placements(fleet):
        if cluster is None:
            path = ("models", at, "placement", "clusters", place, "name")
            yield Problem(path, "no such cluster in `clusters`", each.name, closest(each.name, fleet.by_name))
    for at, model in enumerate(fleet.models):
        weights = model.placement.weights
        for place, name in enumerate(model.placement.failover_order):
            path = ("models", at, "placement", "failoverOrder", place)
            if name not in weights:
                yield Problem(path, "must be one of the model's `placement.clusters`", name, closest(name, weights))
            elif name in model.placement.failover_order[:place]:
                yield Problem(path, "must be named once", name)


def jurisdictions_hold(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model, place, each, cluster in _placements(fleet):
        allowed = model.placement.jurisdictions
        if cluster is not None and allowed and cluster.jurisdiction not in allowed:
            path = ("models", at, "placement", "clusters", place, "name")
            where = f"`{cluster.jurisdiction}`" if cluster.jurisdiction else "no jurisdiction"
            names = ", ".join(f"`{name}`" for name in allowed)
            yield Problem(path, f"model `{model.name}` is allowed in {names} only, and this cluster is in {where}", each.name, "choose another cluster")


def failover_has_a_partner(fleet: FleetSpec) -> Iterator[Problem]:
    clusters = fleet.by_name
    for at, model in enumerate(fleet.models):
        placement = model.placement
        least = placement.minimum_clusters
        hint = "add a cluster of another region, or set `minimumClusters: 1` to accept that the model is away with its region"
        path: Path = ("models", at, "placement")
        distinct = list(dict.fromkeys(each.name for each in placement.clusters))
        if len(distinct) < least:
            yield Problem((*path, "clusters"), f"must name at least {least} clusters (`minimumClusters`)", ", ".join(distinct), hint)
            continue
        regions = {clusters[name].region for name in distinct if name in clusters}
        if least > 1 and len(regions) == 1 and all(name in clusters for name in distinct):
            yield Problem((*path, "clusters"), f"region `{regions.pop()}` has no failover partner: all clusters are in it", ", ".join(distinct), hint)
        if len(distinct) < len(placement.clusters):
            continue
        divided = division(placement, model.replicas)
        empty = [name for name, share in divided.items() if not share]
        if len(divided) - len(empty) < least:
            names = ", ".join(f"`{name}`" for name in empty)
            rule = f"is too few for the weights: {names} would get none, and `minimumClusters` is {least}"
            yield Problem(("models", at, "replicas"), rule, model.replicas, "raise `replicas`, or bring the weights closer together")


def accelerators_exist(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model, place, each, cluster in _placements(fleet):
        if cluster is None:
            continue
        wanted = model.accelerator_in(each.name)
        own = each.accelerator is not None
        path: Path = ("models", at, "placement", "clusters", place, "accelerator") if own else ("models", at, "accelerator")
        if wanted.type == CPU:
            continue
        nodes = nodes_of(cluster.gpu_pools, wanted.type)
        if not capacity.total(nodes):
            has = sorted({pool.accelerator for pool in cluster.gpu_pools if pool.gpus})
            hint = f"`{cluster.name}` has {', '.join(f'`{name}`' for name in has)}" if has else f"`{cluster.name}` has no GPU pool"
            yield Problem((*path, "type"), f"cluster `{cluster.name}` has no pool of this GPU type", wanted.type, hint)
        elif wanted.count > capacity.largest_node(nodes):
            rule = f"must not exceed the {capacity.largest_node(nodes)} GPUs of a `{wanted.type}` node in `{cluster.name}`"
            yield Problem((*path, "count"), rule, wanted.count, "a replica runs on one node")


def tensor_parallel_fits(fleet: FleetSpec) -> Iterator[Problem]:
    """vLLM refuses to start otherwise: it splits attention heads evenly over the GPUs of a replica."""
    for at, model in enumerate(fleet.models):
        sites: list[tuple[Path, AcceleratorSpec]] = [(("models", at, "accelerator", "count"), model.accelerator)]
        for place, each in enumerate(model.placement.clusters):
            if each.accelerator is not None:
                sites.append((("models", at, "placement", "clusters", place, "accelerator", "count"), each.accelerator))
        heads, shared = model.facts.attention_heads, model.facts.key_value_heads
        for path, accelerator in sites:
            count = accelerator.count
            valid = [size for size in range(1, min(heads, 16) + 1) if heads % size == 0 and (shared % size == 0 or size % shared == 0)]
            hint = f"possible: {', '.join(map(str, valid))}"
            if heads % count:
                yield Problem(path, f"must divide the model's {heads} attention heads", count, hint)
            elif shared % count and count % shared:
                yield Problem(path, f"must divide the model's {shared} key-value heads, or be a multiple of them", count, hint)


def facts_agree(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model in enumerate(fleet.models):
        facts = model.facts
        if facts.attention_heads % facts.key_value_heads:
            rule = f"must divide `attentionHeads`, which is {facts.attention_heads}"
            yield Problem(("models", at, "facts", "keyValueHeads"), rule, facts.key_value_heads, "copy both from the model's config.json")
        asked = model.runtime.max_model_length
        if asked is not None and asked > facts.max_model_length:
            rule = f"must not exceed the model's own maximum, `facts.maxModelLength` {facts.max_model_length}"
            yield Problem(("models", at, "runtime", "maxModelLength"), rule, asked)


def gpus_suffice(fleet: FleetSpec) -> Iterator[Problem]:
    """Per cluster and GPU type, over all models together, with the replicas that Karmada will put there."""
    wanted: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    for model in fleet.models:
        if len({each.name for each in model.placement.clusters}) < len(model.placement.clusters):
            continue
        for name, replicas in division(model.placement, model.replicas).items():
            accelerator = model.accelerator_in(name)
            if accelerator.type != CPU and replicas:
                wanted.setdefault((name, accelerator.type), []).append((model.name, replicas, accelerator.count))
    for at, cluster in enumerate(fleet.clusters):
        for kind in sorted({pool.accelerator for pool in cluster.gpu_pools}):
            uses = wanted.get((cluster.name, kind), [])
            nodes = nodes_of(cluster.gpu_pools, kind)
            if not capacity.total(nodes) or any(count > capacity.largest_node(nodes) for _, _, count in uses):
                # Told by accelerators_exist, with the model to blame.
                continue
            asked = sum(replicas * count for _, replicas, count in uses)
            listed = ", ".join(f"{name} {replicas} x {count}" for name, replicas, count in uses)
            path: Path = ("clusters", at, "gpuPools")
            hint = "add nodes, lower `replicas`, or shift weights to other clusters"
            if asked > capacity.total(nodes):
                yield Problem(path, f"has {capacity.total(nodes)} GPUs of type {kind}, and models need {asked}", listed, hint)
            elif left := capacity.unplaced(nodes, [count for _, replicas, count in uses for _ in range(replicas)]):
                rule = f"has GPUs enough of type {kind}, but {left} replica(s) find no node with all of theirs free"
                yield Problem(path, rule, listed, hint)


RULES: tuple[Rule, ...] = (
    names_are_unique,
    placements_name_clusters,
    jurisdictions_hold,
    failover_has_a_partner,
    accelerators_exist,
    tensor_parallel_fits,
    facts_agree,
    gpus_suffice,
)
