"""The driver `local`: a cluster of host processes on this machine."""

from typing import Literal

from specs.drivers.driver import Capabilities, DriverSpec
from toolchain.pins import PINS


class LocalDriver(DriverSpec):
    """A cluster of host processes on this machine, with simulated GPU nodes. Everything listens on loopback."""

    kind: Literal["local"]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            owned=True,
            on_this_machine=True,
            simulated_gpus=True,
            faults="host-processes",
            external_authentication=False,
            failback=True,
            front_door_tls=False,
            installers={"karmada": "host-processes", "kserve": "host-processes", "istio": "host-processes"},
            versions={
                "kubernetes": PINS.kubernetes,
                "kserve": PINS.kserve,
                "istio": PINS.istio,
                **dict.fromkeys(("gatewayApi", "inferenceExtension", "gpuOperator"), "none"),
            },
        )
