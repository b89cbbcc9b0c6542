"""A model directory of one's own, in a registry before anything is served from it. docs/model-artifacts.md."""

import shlex
from dataclasses import dataclass

import pulumi
from pulumi_command import local


@dataclass(frozen=True, kw_only=True)
class ModelArtifactArgs:
    directory: str
    """Relative to the folder of the stack file."""
    source: str
    """oci://…@sha256:… that the directory packs to."""


class ModelArtifact(pulumi.ComponentResource):
    """Packs and pushes the directory where the registry lacks the digest. Models depend on `published`.

    The digest is written in the stack file, so a preview reads no weights, and an update on a machine without the directory works once
    the registry has the model. Nothing is removed from the registry on deletion: other stacks may serve it.
    """

    def __init__(self, name: str, args: ModelArtifactArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:model_artifact:ModelArtifact", name, None, opts)
        self.published = local.Command(
            f"{name}-push",
            create=shlex.join(["fleet", "model", "ensure", args.directory, args.source]),
            # A command that changed is run again; a digest that changed is another artifact.
            triggers=[args.source],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
