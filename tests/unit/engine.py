"""A recording stand-in for the Pulumi engine: what components declare, without any cluster."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import rpc
from pulumi.runtime import settings as pulumi_settings


@dataclass(frozen=True)
class Declared:
    """One resource as the program declared it. Other resources are given by name."""

    type: str
    name: str
    inputs: dict[str, Any]
    secrets: frozenset[str]
    """Top-level inputs that are secret."""
    provider: str
    parent: str
    dependencies: frozenset[str]
    deleted_with: str
    protected: bool
    secret_outputs: frozenset[str]


class Engine(pulumi.runtime.Mocks):
    """Records every resource. Commands answer as `fleet-driver` does for local clusters."""

    def __init__(self) -> None:
        self.declared: list[Declared] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        outputs = dict(args.inputs)
        if args.typ == "command:local:Command":
            outputs["stdout"] = json.dumps(_answer(_plain(args.inputs)))
        return f"{args.name}-id", outputs

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], None]:
        return {}, None

    def named(self, name: str) -> Declared:
        """The custom resource of this name. A component may share a name with one of its children."""
        return next(each for each in self.declared if each.name == name and not each.type.startswith("fleet:"))

    def of_kind(self, kind: str) -> list[Declared]:
        """Objects of a Kubernetes kind, sorted by name."""
        return sorted((each for each in self.declared if each.inputs.get("kind") == kind), key=lambda each: each.name)

    def commands(self) -> dict[str, dict[str, Any]]:
        """Calls of fleet-driver by resource name: the inputs, with stdin parsed."""
        found = [each for each in self.declared if each.type == "command:local:Command"]
        return {each.name: {**each.inputs, "stdin": json.loads(each.inputs["stdin"])} for each in found}

    def counted(self) -> int:
        return len(self.declared)

    def all_before(self, name: str) -> set[str]:
        """Everything that stands before the custom resource `name` is made."""
        by_name: dict[str, list[Declared]] = {}
        for each in self.declared:
            by_name.setdefault(each.name, []).append(each)
        found: set[str] = set()
        waiting = [self.named(name)]
        while waiting:
            each = waiting.pop()
            # A child is registered after its component, and that after what it depends on.
            for other in {*each.dependencies, each.parent} - found - {""}:
                found.add(other)
                waiting += by_name.get(other, [])
        return found


class Monitor(pulumi_mocks.MockMonitor):
    """Also keeps what mocks are not told: dependencies, secrets, deleted_with."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._engine = engine

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802  the name of the gRPC method
        if request.type != "pulumi:pulumi:Stack":
            inputs = cast(dict[str, Any], rpc.deserialize_properties(request.object))
            self._engine.declared.append(
                Declared(
                    type=request.type,
                    name=request.name,
                    inputs=_plain(inputs),
                    secrets=frozenset(key for key, value in inputs.items() if _is_secret(value)),
                    provider=request.provider,
                    parent=_name(request.parent),
                    dependencies=frozenset(map(_name, request.dependencies)),
                    deleted_with=_name(request.deletedWith),
                    protected=request.protect,
                    secret_outputs=frozenset(request.additionalSecretOutputs),
                )
            )
        return super().RegisterResource(request)


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and rpc._special_sig_key in value  # pyright: ignore[reportPrivateUsage]


def _plain(value: Any) -> Any:
    """Without the marks of secrets, and with whole numbers as such: on the wire every number is a float."""
    if _is_secret(value):
        return _plain(value["value"])
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_plain(each) for each in cast(list[Any], value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _port(cluster: str, base: int) -> int:
    """Any port that differs by cluster."""
    return base + sum(map(ord, cluster)) % 1000


def _answer(inputs: dict[str, Any]) -> dict[str, Any]:
    # In a preview, what other commands will answer is unknown, and so is a stdin made of it.
    given = json.loads(inputs["stdin"]) if isinstance(inputs.get("stdin"), str) and inputs["stdin"].startswith("{") else {}
    name = given.get("name") or given.get("cluster", "")
    verb = inputs["create"].removeprefix("fleet-driver ")
    if pushed := re.match(r"fleet image push (\S+) ", verb):
        variants = re.findall(r"--variant (\w+)", verb)
        return {"digests": {each: f"sha256:{each}" for each in variants}, "sbom": dict.fromkeys(variants, f"oci://{pushed[1]}@sha256:sbom")}
    if verb == "cluster apply":
        return {"kubeconfig": f"kubeconfig of {name}", "server": "https://127.0.0.1:20000", "version": "v1.36.3"}
    if verb == "gpu-pools apply":
        return {"nodes": sum(pool["nodes"] for pool in given["pools"]), "gpus": sum(pool["nodes"] * pool["gpusPerNode"] for pool in given["pools"])}
    if verb == "gateways apply":
        door, regional, egress, relay = (_port(name, base) for base in (20000, 21000, 22000, 23000))
        return {
            "frontDoor": {"address": "127.0.0.1", "port": door, "url": f"http://127.0.0.1:{door}"},
            "regionalGateway": {"address": "127.0.0.1", "port": regional},
            "egress": {"address": "127.0.0.1", "port": egress},
            "streamRelay": {"address": "127.0.0.1", "port": relay},
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
    pulumi_mocks.set_mocks(engine, project="fleet", stack="test", preview=preview, monitor=Monitor(engine))
    values: dict[str, Any] = {}

    def keep(name: str, output: pulumi.Input[Any]) -> None:
        pulumi.Output.from_input(output).apply(lambda value: values.__setitem__(name, value))

    def whole() -> None:
        for name, output in program().items():
            keep(name, output)

    try:
        pulumi_mocks.test(whole)()
        loop.run_until_complete(pulumi.runtime.stack.wait_for_rpcs())
    finally:
        loop.close()
        pulumi_settings.reset_options()
    return engine, values
