"""What a stack file says about a cluster's driver: one module per driver, and the list of all."""

from typing import Annotated

from pydantic import Field

from specs.drivers.existing import ExistingDriver
from specs.drivers.local import LocalDriver

# A new driver is one module here, one in components/drivers, and a line in each of the two lists.
ClusterDriver = Annotated[LocalDriver | ExistingDriver, Field(discriminator="kind")]
