"""The driver `local`: a cluster of host processes on this machine."""

from typing import Literal

from specs.base import Spec


class LocalDriver(Spec):
    """A cluster of host processes on this machine, with simulated GPU nodes. Everything listens on loopback."""

    kind: Literal["local"]
