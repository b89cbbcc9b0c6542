"""How Karmada divides the replicas of a model over clusters by static weights.

Karmada 1.18 uses the method of Webster (Sainte-Laguë): replicas are handed out one by one, each to the cluster with the
highest weight / (2 * replicas so far + 1). Source: pkg/util/helper/webstermethod.go and pkg/util/helper/binding.go of
that version. Not the dynamic division by free capacity, which depends on what runs at the time.
"""

import heapq
from collections.abc import Mapping

from specs.placement import PlacementSpec

# Factor by which `tie_free` stretches weights. Two different quotients of Webster's method differ by at least
# 1 / ((2a+1)(2b+1)), so a nudge below that never overturns a real difference for up to some thousand replicas.
_STRETCH = 1_000_000_000


def divide(replicas: int, weights: Mapping[str, int], *, later_name_wins: bool = False) -> dict[str, int]:
    """Replicas of each cluster. The sum is `replicas`; a cluster with too small a weight gets 0.

    `later_name_wins`: where clusters tie with equal replicas so far, Karmada prefers the first or the last name in the
    alphabet, by a hash of the object's UID. Which one is unknown before the object exists; `tie_free` avoids the question.
    Raises ValueError for a negative number of replicas or a weight below 1.
    """
    if replicas < 0:
        raise ValueError(f"replicas must not be negative, got: `{replicas}`")
    for name, weight in weights.items():
        if weight < 1:
            raise ValueError(f"weight of `{name}` must be at least 1, got: `{weight}`")
    seats = dict.fromkeys(weights, 0)
    if not weights:
        return seats
    order = {name: place for place, name in enumerate(sorted(weights, reverse=later_name_wins))}
    # The quotient is a float as in Karmada: integer fractions would break ties that rounding makes there.
    queue = [(-float(weight), 0, order[name], name) for name, weight in weights.items()]
    heapq.heapify(queue)
    for _ in range(replicas):
        _, taken, place, name = heapq.heappop(queue)
        seats[name] = taken = taken + 1
        heapq.heappush(queue, (-(weights[name] / (2 * taken + 1)), taken, place, name))
    return seats


def tie_free(weights: Mapping[str, int]) -> dict[str, int]:
    """Weights that ask for the same division and leave Karmada no tie to break by a hash, whatever the number of replicas.

    They are stretched and nudged so that of two tying clusters the one named first in `weights` gets the replica. They do
    not depend on the number of replicas: Karmada hears of a new number and of new weights at different moments, and would
    move replicas to and fro in between.
    """
    if len(weights) < 2:
        return dict(weights)
    return {name: weight * _STRETCH + len(weights) - place for place, (name, weight) in enumerate(weights.items())}


def policy_weights(spec: PlacementSpec) -> dict[str, int]:
    """The weights that Karmada gets: those of the stack file, stretched so that they never tie. Karmada breaks ties by a hash."""
    weights = spec.weights
    return tie_free({name: weights[name] for name in spec.order})


def division(spec: PlacementSpec, replicas: int) -> dict[str, int]:
    """Replicas of each cluster while all are well, in the order of the stack file."""
    divided = divide(replicas, policy_weights(spec))
    return {each.name: divided[each.name] for each in spec.clusters}
