"""The runtime image of one's own: baked and pushed by the update, or named by the digests of one that others baked.

What it is made of, and how, is runtime_image/; docs/runtime-image.md. Which runtime runs it is serving.py.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_command import local

from runtime_image.image import inputs
from specs.runtime_image import RuntimeImageSpec, Variant


@dataclass(frozen=True, kw_only=True)
class RuntimeImageArgs:
    spec: RuntimeImageSpec


class RuntimeImage(pulumi.ComponentResource):
    """`images` holds the name of each variant with its digest, `told` what the stack's outputs say of it.

    Baked anew when something it is made from changed, and not otherwise: what the recipe reads decides, not the day. Nothing is removed
    from the registry on deletion, because pods of a cluster that is away may still ask for it.
    """

    images: dict[Variant, pulumi.Output[str]]
    told: dict[str, dict[str, pulumi.Input[Any]]]

    def __init__(self, name: str, args: RuntimeImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:runtime_image:RuntimeImage", name, None, opts)
        spec = args.spec
        self.images, self.told = {}, {}
        pushed = self._pushed(name, spec) if spec.baked else None
        for variant in spec.variants:
            definition = spec.definition(variant)
            repository = inputs.repository(spec.repository, variant)
            digest = spec.digests[variant] if variant in spec.digests else _answered(pushed, "digests", variant)
            self.images[variant] = pulumi.Output.concat(repository, "@", digest)
            self.told[variant] = {"repository": repository, "digest": digest, "image": self.images[variant]}
            if variant in spec.baked:
                self.told[variant] |= {"vllm": definition.vllm, "torch": definition.torch, "sbom": _answered(pushed, "sbom", variant)}
        self.register_outputs({"images": self.images})

    def _pushed(self, name: str, spec: RuntimeImageSpec) -> local.Command:
        variants = [part for variant in spec.baked for part in ("--variant", variant)]
        base = ["--base", spec.base] if spec.base else []
        return local.Command(
            f"{name}-push",
            create=shlex.join(["fleet", "image", "push", spec.repository, *variants, *base, "--json"]),
            triggers=[spec.definition(variant).digest for variant in spec.baked],
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _answered(pushed: local.Command | None, field: str, variant: Variant) -> pulumi.Output[str]:
    """What `fleet image push --json` says of a variant."""
    assert pushed is not None
    return pushed.stdout.apply(lambda text: json.loads(text)[field][variant])
