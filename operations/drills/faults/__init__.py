"""What a drill can break: one module with FAULTS for each way to break clusters. Which way a cluster takes is its driver's answer.

A case names its fault (`Case.fault`); the module of the harmed cluster makes it.
"""

from collections.abc import Callable, Mapping

from operations.drills.faults import local
from operations.drills.faults.fault import Fault, Scene
from specs.drivers import ClusterDriver
from specs.drivers.driver import FaultMaker

_BY_MAKER: Mapping[FaultMaker, Mapping[str, Callable[[Scene], Fault]]] = {"host-processes": local.FAULTS}


def supported(driver: ClusterDriver) -> frozenset[str]:
    """Names of the faults that a drill can make in a cluster of this driver; empty where it is out of reach."""
    maker = driver.capabilities.faults
    return frozenset() if maker is None else frozenset(_BY_MAKER[maker])


def make(driver: ClusterDriver, name: str, scene: Scene) -> Fault:
    """Raises KeyError for a fault that is not `supported`."""
    maker = driver.capabilities.faults
    if maker is None:
        raise KeyError(name)
    return _BY_MAKER[maker][name](scene)
