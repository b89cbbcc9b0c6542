"""The Pulumi program of every environment: configuration, fleet, outputs."""

from pathlib import Path

import pulumi

from components.drivers.commands import require_driver
from components.fleet import Fleet, FleetArgs
from stacks.config import load
from stacks.state import require_own_backend

require_own_backend(pulumi.get_stack())
config = load(Path(__file__).parent)
require_driver()
args = FleetArgs(spec=config.spec, choices=config.choices, kubeconfigs=config.kubeconfigs, host_kubeconfig=config.host_kubeconfig)
fleet = Fleet("fleet", args)
for name, value in fleet.outputs().items():
    pulumi.export(name, value)
