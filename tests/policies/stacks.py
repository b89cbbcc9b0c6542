"""What the program declares of a stack file, as rules see it, without the engine."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from components.fleet import Fleet, FleetArgs
from policies import settings as environments
from policies.declared import Resource, Stack
from policies.rule import Finding, findings
from policies.rules import RULES
from tests.unit import engine
from tests.unit.fleets import parse_fleet

TODAY = date(2026, 11, 21)


def stack(name: str, raw: Any, objects: Sequence[dict[str, Any]] = (), **more: Any) -> Stack:
    """The stack `name` with this `fleet:spec`, and objects beside it."""
    spec = parse_fleet(raw)
    kubeconfigs = {each.name: "kubeconfig" for each in spec.clusters}
    recorded, _ = engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs=kubeconfigs)).outputs(), preview=True)
    found = [Resource(type=each.type, name=each.name, props=each.inputs, urn=f"urn::{each.name}", protected=each.protected) for each in recorded.declared]
    found += [Resource(type=f"kubernetes:{each['apiVersion']}:{each['kind']}", name=each["metadata"]["name"], props=each) for each in objects]
    chosen = more.pop("settings", None) or environments.settings(name, environments.read())
    return Stack(name=name, resources=found, settings=chosen, spec=spec, **more)


def breaches(of: Stack) -> dict[str, list[Finding]]:
    """What each rule finds, by name."""
    found = {rule.name: findings(rule, of) for rule in RULES}
    return {name: each for name, each in found.items() if each}
