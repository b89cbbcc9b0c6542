"""What the GPU pools of a fleet cost in a month at their largest, by the prices that its plan goes by."""

from planning import fleet_plan
from specs.fleet import FleetSpec


def monthly(fleet: FleetSpec) -> tuple[float, list[str]]:
    """Dollars for all pools, and the pools without a price as `cluster/pool: H100 spot`.

    A pool counts with its most nodes, all bought in the first of its ways.
    """
    pools = list(fleet_plan.pools(fleet, fleet_plan.known_prices(fleet)))
    unpriced = [f"{each.cluster}/{each.name}: {each.gpu} {each.capacity}" for each in pools if each.quote is None]
    return sum(each.most_dollars_per_month or 0 for each in pools), unpriced
