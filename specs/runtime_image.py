"""The runtime image that a team builds itself."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from runtime_image.image import inputs
from runtime_image.image.inputs import Definition
from specs.base import Spec, checked, refuse

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
