"""What the GPU pools of a fleet cost in a month at their largest, by the prices of an environment."""

from components.fleet_spec import FleetSpec
from policies.settings import Settings

HOURS = 730
"""Of a month, as clouds count it: 8,760 of a year by 12."""


def monthly(fleet: FleetSpec, settings: Settings) -> tuple[float, list[str]]:
    """Sum over all pools, in the currency of the prices, and the pools without a price as `cluster/pool: H100 spot`.

    A pool counts with its most nodes, all bought in the first of its ways.
    """
    total, unpriced = 0.0, list[str]()
    for cluster in fleet.clusters:
        for pool in cluster.gpu_pools:
            bought = pool.capacity_types[0]
            price = settings.gpu_hour_prices.get(pool.accelerator, {}).get(bought)
            if price is None:
                unpriced.append(f"{cluster.name}/{pool.name}: {pool.accelerator} {bought}")
            else:
                total += pool.gpus * price * HOURS
    return total, unpriced
