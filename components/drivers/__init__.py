"""Clusters: one module per driver, and the list of all."""

from collections.abc import Callable, Mapping
from typing import Any

from components.drivers.driver import Driver
from components.drivers.existing import Existing
from components.drivers.local import Local
from specs.drivers import ClusterDriver

# By `kind`. A new driver is one module here, one in specs/drivers, and a line in each of the two lists.
DRIVERS: Mapping[str, Callable[[Any], Driver]] = {"local": Local, "existing": Existing}


def driver_of(spec: ClusterDriver) -> Driver:
    """The driver of the cluster whose Spec has this."""
    return DRIVERS[spec.kind](spec)
