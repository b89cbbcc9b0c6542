"""A recording stand-in for the Pulumi engine: what components declare, without any cluster."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import settings as pulumi_settings


@dataclass(frozen=True)
class Declared:
    """One resource as the program declared it."""

    type: str
    name: str
    inputs: dict[str, Any]


class Engine(pulumi.runtime.Mocks):
    """Records every resource. Commands answer as `fleet-driver` does for local clusters."""

    def __init__(self) -> None:
        self.declared: list[Declared] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.declared.append(Declared(args.typ, args.name, args.inputs))
        outputs = dict(args.inputs)
        if args.typ == "command:local:Command":
            outputs["stdout"] = json.dumps(_answer(args.inputs))
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        return {}

    def of_kind(self, kind: str) -> list[Declared]:
        """Custom resources of a Kubernetes kind."""
        return [each for each in self.declared if each.inputs.get("kind") == kind]

    def commands(self) -> dict[str, dict[str, Any]]:
        """Calls of fleet-driver by resource name: the inputs, with stdin parsed."""
        found = [each for each in self.declared if each.type == "command:local:Command"]
        return {each.name: {**each.inputs, "stdin": json.loads(each.inputs["stdin"])} for each in found}

    def counted(self) -> int:
        return len(self.declared)


# Ports of a simulated cluster: any two that differ by cluster.
def _port(cluster: str, base: int) -> int:
    return base + sum(map(ord, cluster)) % 1000


def _answer(inputs: dict[str, Any]) -> dict[str, Any]:
    given = json.loads(inputs["stdin"]) if isinstance(inputs["stdin"], str) else {}
    name = given.get("name") or given.get("cluster", "")
    verb = inputs["create"].removeprefix("fleet-driver ")
    if verb == "cluster apply":
        return {"kubeconfig": f"kubeconfig of {name}", "server": "https://127.0.0.1:20000", "version": "v1.36.3"}
    if verb == "gpu-pools apply":
        return {"nodes": sum(pool["nodes"] for pool in given["pools"]), "gpus": sum(pool["nodes"] * pool["gpusPerNode"] for pool in given["pools"])}
    if verb == "gateways apply":
        door, regional = _port(name, 20000), _port(name, 21000)
        return {
            "frontDoor": {"address": "127.0.0.1", "port": door, "url": f"http://127.0.0.1:{door}"},
            "regionalGateway": {"address": "127.0.0.1", "port": regional},
        }
    if verb == "model-store apply":
        return {"models": ["tiny-chat"]}
    if verb == "member join":
        return {"id": f"uid-of-{name}"}
    return {"version": "v1"}


def run(program: Callable[[], Mapping[str, pulumi.Input[Any]]], *, preview: bool = False) -> tuple[Engine, dict[str, Any]]:
    """Runs `program` to its end. Returns what it declared, and the values of the Outputs that it returned."""
    engine = Engine()
    # Every run on a loop of its own: Pulumi ties its pending work to the current one.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi_mocks.set_mocks(engine, project="fleet", stack="test", preview=preview)
    values: dict[str, Any] = {}

    def keep(name: str, output: pulumi.Input[Any]) -> None:
        pulumi.Output.from_input(output).apply(lambda value: values.__setitem__(name, value))

    def whole() -> None:
        for name, output in program().items():
            keep(name, output)

    pulumi_mocks.test(whole)()
    loop.run_until_complete(pulumi.runtime.stack.wait_for_rpcs())
    loop.close()
    pulumi_settings.reset_options()
    return engine, values


def names(declared: Iterable[Declared]) -> list[str]:
    return sorted(each.name for each in declared)
