"""Every driver that a stack file can name. A new driver is one module here, one in components/drivers, and a line in each list."""

from typing import Annotated

from pydantic import Field

from specs.drivers.existing import ExistingDriver
from specs.drivers.local import LocalDriver

ClusterDriver = Annotated[LocalDriver | ExistingDriver, Field(discriminator="kind")]
