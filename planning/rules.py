"""What a fleet must satisfy beyond the types of its fields: the rules that need several Specs.

Each rule is a function that tells every breach, never only the first. Checks of a single field stand at the field, rules
about serving arguments in serving_rules.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from planning import capacity, failover_budget, failover_time, fleet_plan, serving_rules
from planning.capacity import Packing, Place, nodes_of
from planning.division import divide, division, policy_weights
from planning.failover_time import Parts
from planning.supply import Market, refusal
from specs.accelerators import CPU
from specs.base import Path, Problem, closest
from specs.callers import ExternalAuthenticationSpec
from specs.clusters import ClusterSpec
from specs.fleet import FleetSpec
from specs.models import ModelSpec
from specs.placement import PlacementClusterSpec

# What one region can promise at best: clouds promise about as much of their own.
_ONE_REGION_PERCENT = 99.9
# A model that loads for longer should not move at every short outage.
_SLOW_LOAD_SECONDS = 60

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


def drivers_can(fleet: FleetSpec) -> Iterator[Problem]:
    """What drivers cannot do for their clusters, by their own word."""
    for each in fleet.hub.driver.problems("hub", ()):
        yield replace(each, path=("hub", *each.path))
    for place, cluster in enumerate(fleet.clusters):
        for each in cluster.driver.problems("member", cluster.gpu_pools):
            yield replace(each, path=("clusters", place, *each.path))


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


def packed_models_name_their_digest(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model in enumerate(fleet.models):
        if model.pack is not None and not (model.source.startswith("oci://") and "@sha256:" in model.source):
            hint = "`fleet model pack DIR --output LAYOUT` prints the digest"
            yield Problem(("models", at, "source"), "must be `oci://…@sha256:…`, the digest that `pack` is packed to", model.source, hint)


def front_doors_can_ask(fleet: FleetSpec) -> Iterator[Problem]:
    asked = fleet.front_doors.authentication
    without = [each for each in fleet.clusters if not each.driver.capabilities.external_authentication]
    if isinstance(asked, ExternalAuthenticationSpec) and without:
        name, kind = without[0].name, without[0].driver.kind
        rule = f"needs an extension provider in the mesh configuration of every cluster, and `{name}` with driver `{kind}` cannot have one"
        yield Problem(("frontDoors", "authentication", "provider"), rule, asked.provider, f"choose `kind: jwt` where the driver of a cluster is `{kind}`")


def constraints_hold(fleet: FleetSpec) -> Iterator[Problem]:
    """What a placement says of its clusters, against those that are written. Jurisdictions have a rule of their own."""
    market = Market(fleet)
    for at, model, place, each, cluster in _placements(fleet):
        kind = model.accelerator_in(each.name).type
        if cluster is None or (refused := refusal(market, model.placement, cluster, kind)) is None or refused[0] == "jurisdictions":
            continue
        path: Path = ("models", at, "placement", "clusters", place, "name")
        yield Problem(path, f"does not keep `placement.{refused[0]}`: {refused[1]}", each.name, "choose another cluster, or change the constraint")


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


def facts_agree(fleet: FleetSpec) -> Iterator[Problem]:
    for at, model in enumerate(fleet.models):
        facts = model.facts
        if facts.attention_heads % facts.key_value_heads:
            rule = f"must divide `attentionHeads`, which is {facts.attention_heads}"
            yield Problem(("models", at, "facts", "keyValueHeads"), rule, facts.key_value_heads, "copy both from the model's config.json")
        for name, part, whole_name, whole in (
            ("expertsPerToken", facts.experts_per_token, "experts", facts.experts),
            ("fullAttentionLayers", facts.full_attention_layers, "layers", facts.layers),
        ):
            if part is not None and whole is not None and part > whole:
                rule = f"must not exceed `{whole_name}`, which is {whole}"
                yield Problem(("models", at, "facts", name), rule, part, "copy both from the model's config.json")
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


def _number(value: float) -> float:
    """As a person writes it: 5, not 5.0."""
    return int(value) if float(value).is_integer() else value


def failover_numbers_fit(fleet: FleetSpec) -> Iterator[Problem]:
    """The numbers of one failover budget among themselves."""
    numbers = fleet.failover.requests
    path: Path = ("failover", "requests")
    there_and_back = 2 * numbers.round_trip_milliseconds
    rule = f"must be at least twice `roundTripMilliseconds`, which is {numbers.round_trip_milliseconds}"
    for name, why, value in (
        ("connectTimeoutMilliseconds", "a new connection to a healthy region takes a round trip and more", numbers.connect_timeout_milliseconds),
        ("pingTimeoutMilliseconds", "a healthy region answers a PING after a round trip and more", numbers.ping_timeout_milliseconds),
    ):
        if value < there_and_back:
            yield Problem((*path, name), rule, value, f"{why}: set {there_and_back} or more")
    if numbers.health_timeout_seconds * 1000 < there_and_back:
        hint = f"a healthy region answers an active health check after a round trip and more: set {there_and_back / 1000:g} or more"
        yield Problem((*path, "healthTimeoutSeconds"), rule, _number(numbers.health_timeout_seconds), hint)
    if numbers.health_timeout_seconds > numbers.health_interval_seconds:
        rule = f"must not exceed `healthIntervalSeconds`, which is {numbers.health_interval_seconds:g}"
        hint = "the next active health check waits for the last one: a longer interval says the same"
        yield Problem((*path, "healthTimeoutSeconds"), rule, _number(numbers.health_timeout_seconds), hint)
    found = failover_time.check_detection(numbers.unhealthy_threshold, numbers.health_interval_seconds, numbers.health_timeout_seconds)
    if numbers.ejection_seconds <= found:
        rule = f"must exceed the {found:g} s after which active health checks find a silent region"
        hint = "shorter, and requests are risked on a dead region again: raise it, or lower `unhealthyThreshold`"
        yield Problem((*path, "ejectionSeconds"), rule, _number(numbers.ejection_seconds), hint)
    streams = fleet.failover.streams
    if streams.resume and not streams.relay:
        yield Problem(("failover", "streams", "resume"), "needs `relay: true`", streams.resume, "it is the relay that goes on in another region")
    if streams.relay and streams.idle_seconds <= numbers.stall_seconds:
        rule = f"must exceed `requests.stallSeconds`, which is {numbers.stall_seconds:g}"
        hint = "the engine's guard decides about an engine that hangs, and the relay must not be faster"
        yield Problem(("failover", "streams", "idleSeconds"), rule, _number(streams.idle_seconds), hint)


def moving_pays(fleet: FleetSpec) -> Iterator[Problem]:
    """Eviction against the time that a model takes to load, where it is declared."""
    numbers = fleet.failover.capacity
    for at, model in enumerate(fleet.models):
        load = model.runtime.load_seconds
        if load is None:
            continue
        path: Path = ("models", at, "placement", "evictAfterSeconds")
        if load > _SLOW_LOAD_SECONDS and not model.placement.evict_after(numbers):
            own = model.placement.evict_after_seconds is not None
            where = path if own else ("failover", "capacity", "evictAfterSeconds")
            rule = f"must not be 0 for model `{model.name}`, which takes {load} s to load: a short outage would move it"
            yield Problem(where, rule, 0, "set `placement.evictAfterSeconds` of the model")
        ready = failover_time.total(each for each in failover_budget.promise(fleet, model).killed if each.name in ("scheduling", "load", "readiness"))
        if numbers.graceful_timeout_seconds <= ready:
            rule = f"must exceed the {ready:g} s until model `{model.name}` is ready elsewhere: its old copy would go before"
            hint = f"raise it, or lower `models[{at}].runtime.loadSeconds`"
            yield Problem(("failover", "capacity", "gracefulTimeoutSeconds"), rule, _number(numbers.graceful_timeout_seconds), hint)


def objectives_agree(fleet: FleetSpec) -> Iterator[Problem]:
    """Objectives of one model among themselves, and with what the fleet takes for a fault."""
    numbers = fleet.failover.requests
    for at, model in enumerate(fleet.models):
        wanted = model.objectives
        path: Path = ("models", at, "objectives")
        failover, restore, first = wanted.failover_seconds, wanted.restore_seconds, wanted.time_to_first_token_seconds
        if failover is not None and restore is not None and failover > restore:
            rule = f"must not exceed `restoreSeconds`, which is {restore:g}"
            hint = "requests leave a dead region before its replicas are ready in others"
            yield Problem((*path, "failoverSeconds"), rule, _number(failover), hint)
        if first is not None and first >= numbers.stall_seconds:
            rule = f"must be less than `failover.requests.stallSeconds`, which is {numbers.stall_seconds:g}"
            hint = "an engine that takes as long as it may would be taken for hung: raise `stallSeconds`"
            yield Problem((*path, "timeToFirstTokenSeconds"), rule, _number(first), hint)
        several = failover_budget.requests(fleet, model).regions > 1
        if first is not None and several and first * 1000 <= numbers.round_trip_milliseconds:
            rule = f"must exceed `failover.requests.roundTripMilliseconds`, which is {numbers.round_trip_milliseconds}"
            yield Problem((*path, "timeToFirstTokenSeconds"), rule, _number(first), "a token from another region takes a round trip")
        if "availability_percent" in wanted.model_fields_set and wanted.availability_percent > _ONE_REGION_PERCENT and not several:
            rule = f"must not exceed {_ONE_REGION_PERCENT:g} for a model in one region: it is away with its region"
            yield Problem((*path, "availabilityPercent"), rule, wanted.availability_percent, "add a cluster of another region, or lower it")


def objectives_can_be_kept(fleet: FleetSpec) -> Iterator[Problem]:
    """Objectives against the worst case that is computed from the failover budget."""
    for at, model in enumerate(fleet.models):
        path: Path = ("models", at, "objectives")
        promise = failover_budget.promise(fleet, model)
        wanted = model.objectives.failover_seconds
        if wanted is not None:
            worst = promise.worst_death
            if worst is None:
                rule = "cannot be kept: only one region serves the model, and requests fail while it is away"
                yield Problem((*path, "failoverSeconds"), rule, _number(wanted), "add a cluster of another region, or leave the objective out")
            elif failover_time.total(worst.added or ()) > wanted:
                yield _too_long((*path, "failoverSeconds"), wanted, worst.added or (), f"with case `{worst.name}`")
        wanted = model.objectives.restore_seconds
        if wanted is not None:
            yield from _restore_problems((*path, "restoreSeconds"), wanted, promise)


def _restore_problems(path: Path, wanted: float, promise: failover_budget.Promise) -> Iterator[Problem]:
    if not promise.movable:
        yield Problem(
            path,
            "cannot be kept: the model has one region, and its replicas can move nowhere",
            _number(wanted),
            "add a cluster of another region, or leave the objective out",
        )
    elif not promise.load_known:
        rule = "needs `runtime.loadSeconds`: without the time to load the model there is no upper bound"
        yield Problem(path, rule, _number(wanted), "declare the longest time from a replica's place on a node until it answers")
    elif failover_time.total(promise.worst_restore) > wanted:
        yield _too_long(path, wanted, promise.worst_restore, "with a region that does not answer")


def _too_long(path: Path, wanted: float, parts: Parts, where: str) -> Problem:
    """An objective that is broken, with the worst case, its largest part, and what to change."""
    total, largest = failover_time.total(parts), failover_time.largest(parts)
    rule = f"cannot be kept: the worst case is {total:.4g} s {where}, of which {largest.seconds:.4g} s `{largest.name}` ({largest.why})"
    knobs = " and ".join(f"`{knob}`" for knob in failover_budget.KNOBS.get(largest.name, ()))
    verb = "raise" if largest.name == "eviction" else "lower"
    change = f"{verb} {knobs}, or raise the objective" if knobs else "raise the objective"
    return Problem(path, rule, _number(wanted), f"{change} to at least {failover_budget.rounded_up(total)}")


def restores_have_room(fleet: FleetSpec) -> Iterator[Problem]:
    """Whether the GPUs that are left hold the replicas of every model, for each region that may be lost.

    Only where a model promises `restoreSeconds`: to have spare GPUs for a lost region is a decision, and not a cheap one.
    """
    promised = {model.name: at for at, model in enumerate(fleet.models) if model.objectives.restore_seconds is not None}
    if not promised or _names_are_doubtful(fleet):
        return
    told: set[tuple[str, str, str]] = set()
    for region in dict.fromkeys(cluster.region for cluster in fleet.clusters):
        for cluster, kind, why in overfull(fleet, region):
            for model in fleet.models:
                moved = model.name in promised and any(fleet.by_name[name].region == region for name in model.placement.weights)
                mine = model.accelerator_in(cluster.name).type == kind and cluster.name in model.placement.weights
                if not (moved and mine) or (model.name, region, cluster.name) in told:
                    continue
                told.add((model.name, region, cluster.name))
                path: Path = ("models", promised[model.name], "objectives", "restoreSeconds")
                rule = f"cannot be kept when region `{region}` is lost: `{cluster.name}` {why}"
                hint = f"add nodes in `{cluster.name}`, lower `replicas`, or leave the objective out"
                yield Problem(path, rule, _number(model.objectives.restore_seconds or 0), hint)


def _names_are_doubtful(fleet: FleetSpec) -> bool:
    """Whether a placement names a cluster twice, or one that there is not: told by other rules, and nothing can be counted."""
    named = [[each.name for each in model.placement.clusters] for model in fleet.models]
    return any(len(set(names)) < len(names) or not set(names) <= set(fleet.by_name) for names in named)


def overfull(fleet: FleetSpec, region: str) -> Iterator[tuple[ClusterSpec, str, str]]:
    """Clusters whose GPUs of a type do not suffice once `region` is lost, with what they have and what is needed."""
    uses: dict[Place, list[int]] = {}
    for model in fleet.models:
        weights = policy_weights(model.placement)
        lost = {name: replicas for name, replicas in divide(model.replicas, weights).items() if fleet.by_name[name].region == region}
        rest = {name: weight for name, weight in weights.items() if name not in lost}
        # Those of the region too: its nodes still count for quotas.
        for name, replicas in (*lost.items(), *divide(model.replicas, rest).items()):
            wanted = model.accelerator_in(name)
            if wanted.type != CPU:
                uses.setdefault((name, wanted.type), []).extend([wanted.count] * replicas)
    room = fleet_plan.room(fleet)
    short = Packing(room).put(uses)
    for cluster in fleet.clusters:
        for kind in sorted({pool.accelerator for pool in cluster.gpu_pools}):
            place = cluster.name, kind
            if cluster.region != region and short[place]:
                has, asked = capacity.total(room[place]), sum(uses[place])
                unbound = not any(each.quotas for each in room[place])
                why = f"the {asked} that are needed lie too scattered" if unbound else f"quotas leave fewer than the {asked} that are needed"
                yield cluster, kind, f"has {has} GPUs of type {kind}, and {f'{asked} are needed' if asked > has else why}"


def quotas_name_clusters(fleet: FleetSpec) -> Iterator[Problem]:
    for at, quota in enumerate(fleet.planning.quotas):
        if any(quota.covers(cluster) for cluster in fleet.clusters):
            continue
        regions = [cluster.region for cluster in fleet.clusters if cluster.provider == quota.provider]
        if regions:
            rule = f"no cluster of `{quota.provider}` is in this region"
            yield Problem(("planning", "quotas", at, "region"), rule, quota.region, closest(quota.region, dict.fromkeys(regions)))
        else:
            providers = dict.fromkeys(cluster.provider for cluster in fleet.clusters if cluster.provider)
            hint = closest(quota.provider, providers) or "set `provider` of the clusters that it is for"
            yield Problem(("planning", "quotas", at, "provider"), "no cluster has this provider", quota.provider, hint)


def quotas_suffice(fleet: FleetSpec) -> Iterator[Problem]:
    """For the nodes that stand, and for those that the replicas need."""
    if not fleet.planning.quotas:
        return
    uses: dict[Place, list[int]] = {}
    for model in () if _names_are_doubtful(fleet) else fleet.models:
        for name, replicas in division(model.placement, model.replicas).items():
            wanted = model.accelerator_in(name)
            uses.setdefault((name, wanted.type), []).extend([wanted.count] * replicas)
    room = fleet_plan.room(fleet)
    unbound = {place: [replace(each, quotas=()) for each in nodes] for place, nodes in room.items()}
    # What finds no node either way is told by gpus_suffice.
    short = Packing(room).put(uses) - Packing(unbound).put(uses)
    for at, quota in enumerate(fleet.planning.quotas):
        bound = [(cluster.name, pool) for cluster in fleet.clusters for pool in cluster.gpu_pools if quota.binds(cluster, pool)]
        standing = sum(pool.least_nodes * pool.gpus_per_node for _, pool in bound)
        path: Path = ("planning", "quotas", at, "gpus")
        hint = "request a higher quota, or make the pools or `replicas` smaller"
        if standing > quota.gpus:
            yield Problem(path, f"must be at least {standing}, the GPUs of the nodes that its pools have in any case", quota.gpus, hint)
        elif left := sum(short[place] for place in {(name, pool.accelerator) for name, pool in bound}):
            yield Problem(path, f"is too few: {left} replica(s) find no node within it", quota.gpus, hint)


RULES: tuple[Rule, ...] = (
    names_are_unique,
    drivers_can,
    placements_name_clusters,
    jurisdictions_hold,
    packed_models_name_their_digest,
    front_doors_can_ask,
    constraints_hold,
    failover_has_a_partner,
    accelerators_exist,
    serving_rules.tensor_parallel_fits,
    facts_agree,
    serving_rules.loads_fit_the_model,
    serving_rules.arguments_are_known,
    serving_rules.arguments_fit_the_model,
    serving_rules.arguments_fit_the_accelerator,
    gpus_suffice,
    quotas_name_clusters,
    quotas_suffice,
    failover_numbers_fit,
    moving_pays,
    objectives_agree,
    objectives_can_be_kept,
    restores_have_room,
)
