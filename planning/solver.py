"""Which clusters serve a model, on which GPUs, with how many replicas: the cheapest way that keeps every constraint.

Models share GPU pools, and a replica is whole: this is an integer program, given to HiGHS by its own Python package, highspy.
No time limit, one thread and a fixed seed: the answer depends on its input and not on the machine. docs/decisions/0012 says why
this solver. Where the weights of a placement are written, Karmada's division decides how replicas lie: those models are searched one
by one, before the rest.

`Wanted` names everything that a model asks; what an option costs and answers is computed by who calls.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from planning.capacity import Nodes, Packing, Place, Room, largest_first, quotas_left, total
from planning.division import divide, tie_free
from specs.planning import QuotaSpec

# Up to this many options the answer is the cheapest. Above, the search ends where it is proven to be at most this much dearer than the
# cheapest, or after so many steps: each takes longer there, and what they still find is a per mille. No limit is a time.
_EXACT_OPTIONS = 60
_GAP = 0.005
_STEPS = 40_000
"""Times options."""
# Of a larger problem each model is first offered so many options, then more where that is too few.
_OFFERED = 16
# Between options of equal cost the earlier ones of the stack file win, fewer clusters and fewer replicas. In dollars an hour: less than any price differs.
_TIE = 1e-5
# Ways to put a model of written weights on GPU types that are looked at one by one.
_COMBINATIONS = 5000


# Cluster, GPU type and count: what tells one option of a model from another.
Key = tuple[str, str, int]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to run a replica in one cluster."""

    cluster: str
    region: str
    gpu: str
    """GPU type; empty where it needs none."""
    count: int
    rate: float
    """Requests per second within the objectives; 1 where no load is declared, and replicas are counted."""
    dollars: float
    """By the hour."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One model, and what its placement must keep."""

    name: str
    options: tuple[Option, ...]
    rate: float
    """That all replicas together must answer."""
    replicas: int | None = None
    """A written number."""
    weights: Mapping[str, int] | None = None
    """By cluster, where they are written: replicas are divided by them."""
    least_clusters: int = 1
    """With replicas; in two regions or more if it is above 1."""
    survivors_rate: float | None = None
    """That the replicas outside of any one region must answer."""
    ready: Mapping[Key, int] | None = None
    """How many replicas each option has room for when those of a lost region come; `replicas` must be given too."""
    current: frozenset[Key] = frozenset()
    """(cluster, GPU type, count) that it runs on: these are preferred."""
    loyalty: float = 0.0
    """Share by which another place must be cheaper than a current one."""
    without: tuple[frozenset[Key], ...] = ()
    """Sets of (cluster, GPU type, count) not to be used all together: answers that were seen."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Replicas of a model in one cluster."""

    option: Option
    replicas: int


Placement = tuple[Placed, ...]
# Replicas that lie there already: the GPUs of each.
Taken = Mapping[Place, Sequence[int]]


def hourly(placement: Placement) -> float:
    """Dollars an hour."""
    return sum(each.replicas * each.option.dollars for each in placement)


def key(option: Option) -> Key:
    return option.cluster, option.gpu, option.count


def taken_by(placements: Iterable[Placement]) -> dict[Place, list[int]]:
    found: dict[Place, list[int]] = {}
    for placement in placements:
        for each in placement:
            if each.option.gpu:
                found.setdefault((each.option.cluster, each.option.gpu), []).extend([each.option.count] * each.replicas)
    return found


def together(*several: Taken) -> dict[Place, list[int]]:
    return {place: [size for each in several for size in each.get(place, ())] for place in {place for each in several for place in each}}


def choose(models: Sequence[Wanted], room: Room, taken: Taken) -> dict[str, Placement] | None:
    """The cheapest placements of all models together; None where there are none."""
    found: dict[str, Placement] = {}
    free: list[Wanted] = []
    for model in models:
        if model.weights is None:
            free.append(model)
            continue
        placement = _divided(model, room, together(taken, taken_by(found.values())))
        if placement is None:
            return None
        found[model.name] = placement
    if free:
        solved = _solve(free, room, together(taken, taken_by(found.values())))
        if solved is None:
            return None
        found |= solved
    return found


def second_best(model: Wanted, chosen: Placement, room: Room, taken: Taken) -> Placement | None:
    """The cheapest placement on other GPUs, else in other clusters; the rest of the fleet as it is. None: there is no other."""
    used = {(each.option.gpu, each.option.count) for each in chosen}
    others = tuple(each for each in model.options if (each.gpu, each.count) not in used)
    plain = replace(model, current=frozenset(), loyalty=0.0)
    for candidate in (replace(plain, options=others), replace(plain, without=(*model.without, frozenset(key(each.option) for each in chosen)))):
        if found := choose([candidate], room, taken):
            return found[model.name]
    return None


# Written weights


def _divided(model: Wanted, room: Room, taken: Taken) -> Placement | None:
    """Tries numbers of replicas from the least that could answer enough, until more of them cannot be cheaper than what was found."""
    weights = tie_free(model.weights or {})
    options = {name: [each for each in model.options if each.cluster == name] for name in weights}
    usable = [each for name in weights for each in options[name]]
    if not usable:
        return None
    cheapest = min(each.dollars for each in usable)
    slowest = min(each.rate for each in usable)
    most = model.replicas or max(len(weights) * model.least_clusters, 4 * math.ceil(model.rate / slowest) + len(weights) * max(weights.values()))
    least = max(1, math.ceil(model.rate / max(each.rate for each in usable) - 1e-9))
    best: Placement | None = None
    for replicas in [model.replicas] if model.replicas else range(least, min(most, 2000) + 1):
        if best is not None and replicas * cheapest >= _cost(model, best):
            break
        shares = {name: count for name, count in divide(replicas, weights).items() if count}
        for ways in itertools.islice(itertools.product(*(options[name] for name in shares)), _COMBINATIONS):
            placement = tuple(Placed(option=way, replicas=shares[way.cluster]) for way in ways)
            if keeps(model, placement) and (best is None or _cost(model, placement) < _cost(model, best) - _TIE) and fits(placement, room, taken):
                best = placement
    return best


def _cost(model: Wanted, placement: Placement) -> float:
    return sum(each.replicas * _dollars(model, each.option) for each in placement)


def _dollars(model: Wanted, option: Option) -> float:
    return option.dollars * (1 - model.loyalty) if key(option) in model.current else option.dollars


def keeps(model: Wanted, placement: Placement) -> bool:
    """Whether a placement answers enough from enough places. Not whether it finds room."""
    regions = {each.option.region for each in placement}
    if len(placement) < model.least_clusters or (model.least_clusters > 1 and len(regions) < 2):
        return False
    rates = {region: sum(each.replicas * each.option.rate for each in placement if each.option.region == region) for region in regions}
    whole = sum(rates.values())
    keys = {key(each.option) for each in placement}
    survive = model.survivors_rate is None or all(whole - rate >= model.survivors_rate - 1e-9 for rate in rates.values())
    return whole >= model.rate - 1e-9 and survive and not any(each <= keys for each in model.without)


def fits(placement: Placement, room: Room, taken: Taken) -> bool:
    """Whether every replica finds a node."""
    asked = {place: sizes for place, sizes in together(taken, taken_by([placement])).items() if place[1]}
    # Mostly too much is asked by far, and counting tells it at once.
    enough = all(sum(sizes) <= total(room.get(place, ())) for place, sizes in asked.items())
    if not enough:
        return False
    packing = Packing(room)
    return all(packing.take(place, size) for size, place in largest_first(asked))


# The integer program


class _Program:
    """Rows and columns, as HiGHS takes them."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.upper: list[float] = []
        self._index: list[int] = []
        self._value: list[float] = []
        self._start: list[int] = [0]
        self._low: list[float] = []
        self._high: list[float] = []

    def column(self, cost: float, upper: float) -> int:
        """A whole number from 0."""
        self.cost.append(cost)
        self.upper.append(upper)
        return len(self.cost) - 1

    def row(self, entries: Iterable[tuple[int, float]], *, low: float = -math.inf, high: float = math.inf) -> None:
        for index, value in entries:
            self._index.append(index)
            self._value.append(value)
        self._start.append(len(self._index))
        self._low.append(low)
        self._high.append(high)

    def solve(self, *, exact: bool) -> list[int] | None:
        # A quarter of a second that a fleet with nothing to choose need not wait, at every preview.
        import numpy as np  # noqa: PLC0415
        from highspy import Highs, HighsLp, HighsModelStatus, HighsVarType, MatrixFormat  # noqa: PLC0415

        program = HighsLp()
        program.num_col_, program.num_row_ = len(self.cost), len(self._low)
        program.col_cost_, program.col_lower_, program.col_upper_ = np.array(self.cost), np.zeros(len(self.cost)), np.array(self.upper)
        program.row_lower_, program.row_upper_ = np.array(self._low), np.array(self._high)
        program.a_matrix_.format_ = MatrixFormat.kRowwise
        program.a_matrix_.start_ = np.array(self._start)
        program.a_matrix_.index_, program.a_matrix_.value_ = np.array(self._index), np.array(self._value)
        program.integrality_ = [HighsVarType.kInteger] * len(self.cost)
        solver = Highs()
        limits = {"mip_rel_gap": 0.0 if exact else _GAP, "mip_abs_gap": 0.0, "mip_max_nodes": _STEPS // len(self.cost) + 1}
        options = {"output_flag": False, "threads": 1, "random_seed": 0, **limits}
        for name, value in options.items():
            solver.setOptionValue(name, value)
        solver.passModel(program)
        solver.run()
        solved = solver.getModelStatus() == HighsModelStatus.kOptimal
        if not solved and not math.isfinite(solver.getInfo().mip_gap):
            return None
        return [round(value) for value in solver.getSolution().col_value]


def exact(models: Sequence[Wanted]) -> bool:
    """Whether there are so few options that the answer is the cheapest."""
    return sum(len(each.options) for each in models) <= _EXACT_OPTIONS


def _solve(models: Sequence[Wanted], room: Room, taken: Taken) -> dict[str, Placement] | None:
    offered = max((len(each.options) for each in models), default=0) if exact(models) else _OFFERED
    while True:
        found = _offer([replace(each, options=_best(each, offered, at)) for at, each in enumerate(models)], room, taken)
        if found is not None or all(len(each.options) <= offered for each in models):
            return found
        offered *= 4


def _best(model: Wanted, count: int, shift: int) -> tuple[Option, ...]:
    """Half of them the cheapest for what they answer, half from the rest: not the same for each model, as not all can have the cheapest.

    In the order that they have.
    """
    ranked = sorted(range(len(model.options)), key=lambda at: (_dollars(model, model.options[at]) / model.options[at].rate, at))
    if len(ranked) > count:
        rest = ranked[count // 2 :]
        every = len(rest) // (count // 2)
        ranked = [*ranked[: count // 2], *rest[shift % every :: every]]
    return tuple(model.options[at] for at in sorted(ranked))


def _offer(models: Sequence[Wanted], room: Room, taken: Taken) -> dict[str, Placement] | None:
    program = _Program()
    columns: list[tuple[Wanted, list[int]]] = []
    uses: dict[Place, list[tuple[int, int]]] = {}
    for model in models:
        if not model.options:
            return None
        numbers = _columns(program, model, room)
        columns.append((model, numbers))
        for column, option in zip(numbers, model.options, strict=True):
            if option.gpu:
                uses.setdefault((option.cluster, option.gpu), []).append((column, option.count))
    growth: dict[QuotaSpec, list[tuple[int, int]]] = {}
    # Where nothing new may lie, what lies there still takes of the quotas.
    for place in dict.fromkeys((*uses, *(place for place in taken if any(each.quotas for each in room.get(place, ()))))):
        _room(program, uses.get(place, ()), room.get(place, ()), taken.get(place, ()), growth)
    for quota, left in quotas_left(room).items():
        program.row(growth.get(quota, ()), high=left)
    answer = program.solve(exact=exact(models))
    if answer is None:
        return None
    found: dict[str, Placement] = {}
    for model, numbers in columns:
        found[model.name] = tuple(Placed(option=each, replicas=answer[at]) for at, each in zip(numbers, model.options, strict=True) if answer[at])
    return found


def _columns(program: _Program, model: Wanted, room: Room) -> list[int]:
    """The columns of one model's replicas, one for each option, with all that they must keep."""
    options = model.options
    replicas: list[int] = []
    used: list[int] = []
    several = Counter(option.cluster for option in options)
    for at, option in enumerate(options):
        fewest = math.ceil(max(model.rate, model.survivors_rate or 0.0) / option.rate) + model.least_clusters
        there = sum(each.count * (each.gpus_per_node // option.count) for each in room.get((option.cluster, option.gpu), ())) if option.gpu else fewest
        most = min(there, model.replicas or fewest)
        number = program.column(_dollars(model, option) + (at + 1) * _TIE / len(options), most)
        place = program.column(_TIE, 1)
        program.row([(number, 1), (place, -1)], low=0)
        if several[option.cluster] > 1 or model.without:
            # A replica makes the place used. Where nothing forbids the use of a place this only weakens the bound.
            program.row([(number, 1), (place, -most)], high=0)
        replicas.append(number)
        used.append(place)
    program.row(((column, option.rate) for column, option in zip(replicas, options, strict=True)), low=model.rate)
    if model.replicas is not None:
        program.row(((column, 1) for column in replicas), low=model.replicas, high=model.replicas)
    for cluster in [name for name, count in several.items() if count > 1]:
        # One override of the accelerator for each model and cluster.
        program.row(((column, 1) for column, option in zip(used, options, strict=True) if option.cluster == cluster), high=1)
    if model.least_clusters > 1:
        program.row(((column, 1) for column in used), low=model.least_clusters)
    for region in dict.fromkeys(option.region for option in options):
        if model.least_clusters > 1:
            program.row(((column, 1) for column, option in zip(used, options, strict=True) if option.region != region), low=1)
        if model.survivors_rate is not None:
            outside = ((column, option.rate) for column, option in zip(replicas, options, strict=True) if option.region != region)
            program.row(outside, low=model.survivors_rate)
        if model.ready is not None and model.replicas is not None:
            _ready(program, model.ready, model.replicas, list(zip(replicas, options, strict=True)), region)
    for seen in model.without:
        here = [column for column, option in zip(used, options, strict=True) if key(option) in seen]
        if len(here) == len(seen):
            program.row(((column, 1) for column in here), high=len(seen) - 1)
    return replicas


def _ready(program: _Program, ready: Mapping[Key, int], total: int, columns: Sequence[tuple[int, Option]], region: str) -> None:
    """All replicas, divided over what is left without `region` by its own shares, find room: n / (total - lost) * total <= room.

    A share is rounded; that it is rounded down from half is nearly what Webster's method does.
    """
    lost = [column for column, option in columns if option.region == region]
    for column, option in columns:
        if option.region != region:
            room = ready[key(option)] + 0.499
            program.row(((column, float(total)), *((each, room) for each in lost)), high=room * total)


def _room(
    program: _Program, uses: Sequence[tuple[int, int]], nodes: Sequence[Nodes], taken: Sequence[int], growth: dict[QuotaSpec, list[tuple[int, int]]]
) -> None:
    """Replicas of each size and above fit on the nodes, cut into pieces of that size.

    Exact where each size divides the next, as 1, 2, 4 and 8 do. Others are counted as the next such size: a little too much.
    growth: gets the columns of the nodes that quotas bound, with the GPUs of each.
    """
    bound = [(each, program.column(0.0, each.count - each.standing)) for each in nodes if each.quotas]
    for each, column in bound:
        for quota in each.quotas:
            growth.setdefault(quota, []).append((column, each.gpus_per_node))
    for size in sorted({_even(count) for count in (*(count for _, count in uses), *(taken if bound else ()))} | {1}):
        most = sum(_pieces(each, size) * each.count for each in nodes)
        held = min(most, sum(_even(count) for count in taken if _even(count) >= size))
        coming = [(column, -float(_pieces(each, size))) for each, column in bound]
        larger = [(column, float(_even(count))) for column, count in uses if _even(count) >= size]
        there = most - sum(_pieces(each, size) * (each.count - each.standing) for each, _ in bound)
        program.row((*larger, *coming), high=float(there - held))


def _pieces(nodes: Nodes, size: int) -> int:
    """GPUs of one node in whole pieces of this size."""
    return nodes.gpus_per_node // size * size


def _even(count: int) -> int:
    return 1 << (count - 1).bit_length()


# What contradicts


def smallest_contradiction(names: Sequence[str], possible: Callable[[frozenset[str]], bool]) -> frozenset[str] | None:
    """The fewest constraints that cannot be kept together; of several such sets the one named first. None: all can be kept.

    possible: whether there is an answer that keeps exactly these.
    """
    if possible(frozenset(names)):
        return None
    for count in range(len(names)):
        for each in itertools.combinations(names, count):
            if not possible(frozenset(each)):
                return frozenset(each)
    return frozenset(names)
