"""The model store of a local cluster: models that vLLM reads from a claim or a registry."""

from dataclasses import dataclass

import pulumi

from components.drivers.commands import driver_command, inside, result


@dataclass(frozen=True, kw_only=True)
class ModelStoreArgs:
    cluster: str
    owner: pulumi.Resource | None


class ModelStore(pulumi.ComponentResource):
    """The claim `model-store` of a local cluster, seeded with the small model. `models` lists what it holds."""

    models: pulumi.Output[list[str]]

    def __init__(self, name: str, args: ModelStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:serving:ModelStore", name, None, opts)
        command = driver_command(f"{name}-seed", "model-store", {"cluster": args.cluster}, inside(self, args.owner))
        self.seeded = command
        self.models = result(command, "models", default=[])
        self.register_outputs({"models": self.models})
