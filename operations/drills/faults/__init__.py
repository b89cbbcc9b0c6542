"""What a drill can break, by the driver of the cluster: one module with FAULTS for each driver that has any.

A case names its fault (`Case.fault`); the module of the harmed cluster's driver makes it.
"""

from collections.abc import Callable, Mapping

from operations.drills.faults import local
from operations.drills.faults.fault import Fault, Scene
from specs.drivers.driver import ClusterDriver

_BY_DRIVER: Mapping[str, Mapping[str, Callable[[Scene], Fault]]] = {"local": local.FAULTS}


def supported(driver: ClusterDriver) -> frozenset[str]:
    """Names of the faults that a drill can make in a cluster of this driver; empty where its processes are out of reach."""
    return frozenset(_BY_DRIVER.get(driver.kind, {}))


def make(driver: ClusterDriver, name: str, scene: Scene) -> Fault:
    return _BY_DRIVER[driver.kind][name](scene)
