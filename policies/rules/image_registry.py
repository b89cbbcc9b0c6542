"""Images come from registries that the environment allows.

Why: what runs beside the weights and the prompts should come from where it is scanned and kept; a public registry may also limit
or lose an image in the moment of a failover.

Mend: mirror the image and name the mirror, or add the registry to `allowedRegistries` of the environment in
policies/environments.yaml.
"""

from collections.abc import Iterator

from policies.declared import Stack, at, text
from policies.pods import name_of, pods
from policies.rule import Finding


def registry(image: str) -> str:
    """The image with its host, which is docker.io where none is written."""
    head, _, rest = image.partition("/")
    if rest and ("." in head or ":" in head or head == "localhost"):
        return image
    return f"docker.io/{image}" if rest else f"docker.io/library/{image}"


def allowed(image: str, registries: tuple[str, ...]) -> bool:
    name = registry(image)
    return any(name.startswith(each.rstrip("/") + "/") for each in registries)


def check(stack: Stack) -> Iterator[Finding]:
    registries = stack.settings.allowed_registries
    told = f"not from an allowed registry ({', '.join(registries) or 'none is allowed'})"
    for pod in pods(stack):
        for container in pod.every:
            image = text(container.get("image"))
            if image and not allowed(image, registries):
                yield Finding(says=f"container `{name_of(container)}`: image is {told}, got: `{image}`", on=pod.owner)
    for each in stack.placed("InferenceService"):
        source = text(at(each.body, "spec", "predictor", "model", "storageUri"))
        scheme, _, reference = source.partition("://")
        if scheme.startswith("oci") and not allowed(reference, registries):
            yield Finding(says=f"model artifact is {told}, got: `{source}`", on=each)
