"""The runtime image of one's own: baked and pushed by the update, or named by the digests of one that others baked.

What it is made of, and how, is runtime_image/; docs/runtime-image.md. Which runtime runs it is serving.py.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import pulumi
from pulumi_command import local
from pydantic import Field, model_validator

from components.spec import Spec, checked, refuse
from runtime_image.image import inputs
from runtime_image.image.inputs import Definition

Variant = Literal["gpu", "cpu"]
Repository = Annotated[
    str,
    *checked(
        r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+",
        200,
        "must be a registry and a repository without scheme, tag and digest, as `registry.example.com/fleet/vllm`",
        "registries take no longer ones",
    ),
]
Digest = Annotated[str, *checked(r"sha256:[0-9a-f]{64}", 71, "must be `sha256:` and 64 hexadecimal digits", "it is a digest")]


class RuntimeImageSpec(Spec):
    """The runtime image of one's own, in place of the images that vLLM publishes."""

    repository: Repository
    """Of the image for GPUs. That for CPUs is `<repository>-cpu`, as KServe rewrites names."""
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("gpu", "cpu")
    """Which runtimes use it. The others keep their `image`."""
    digests: dict[Variant, Digest] = Field(default_factory=dict[Variant, Digest])
    """Of variants that were baked elsewhere. The others are baked and pushed by `pulumi up`, which needs docker buildx or buildah."""
    base: Annotated[str, Field(min_length=1)] | None = None
    """Another base for what is baked: an image by its digest, or `debian` for one made from Debian's packages (`cpu` alone)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.variants)) < len(self.variants):
            raise refuse("`variants` must name each variant once")
        if unused := [each for each in self.digests if each not in self.variants]:
            raise refuse(f"`digests` names `{unused[0]}`, which is not one of `variants`", "add it there, or remove its digest")
        if self.base is not None and not self.baked:
            raise refuse("`base` has no effect: every variant has a digest", "remove `base`, or the digest of what should be baked")
        if self.base is not None and len(self.baked) > 1:
            raise refuse("`base` is of one variant, and several are baked", "leave a variant out of `variants`, or give it a digest")
        if self.base == inputs.base.NAME and "gpu" in self.baked:
            raise refuse(f"`base: {self.base}` can carry the variant `cpu` alone", "name a CUDA base by its digest")
        return self

    @property
    def baked(self) -> tuple[Variant, ...]:
        """What `pulumi up` builds."""
        return tuple(each for each in self.variants if each not in self.digests)

    def definition(self, variant: Variant) -> Definition:
        """What a variant is made from. Raises FleetError."""
        return inputs.read(variant, (self.base or "") if variant in self.baked else "")

    def tagged(self, variant: Variant) -> str:
        """A name that tells the version of vLLM, by which serving arguments are checked."""
        return f"{inputs.repository(self.repository, variant)}:v{self.definition(variant).vllm}"


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
