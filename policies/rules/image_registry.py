"""Images come from registries that the environment allows.

Why: what runs beside the weights and the prompts should come from where it is scanned and kept; a public registry may also limit
or lose an image in the moment of a failover.

Fix: mirror the image and name the mirror, or add the registry to `allowedRegistries` of the environment in
policies/environments.yaml.
"""

import re
from collections.abc import Iterator

from policies.declared import Stack
from policies.pods import artifacts, pods
from policies.rule import Finding


def repository(image: str) -> str:
    """The image without tag and digest, and with its host, which is docker.io where none is written."""
    name = re.sub(r":[^/:]*$", "", image.partition("@")[0])
    head, _, rest = name.partition("/")
    if rest and ("." in head or ":" in head or head == "localhost"):
        return name
    return f"docker.io/{name}" if rest else f"docker.io/library/{name}"


def allowed(image: str, registries: tuple[str, ...]) -> bool:
    return any(f"{repository(image)}/".startswith(each.rstrip("/") + "/") for each in registries)


def check(stack: Stack) -> Iterator[Finding]:
    registries = stack.settings.allowed_registries
    told = f"not from an allowed registry ({', '.join(registries) or 'none is allowed'})"
    for pod in pods(stack):
        for where, image in pod.images:
            if image and not allowed(image, registries):
                yield Finding(says=f"{where}: image is {told}, got: `{image}`", on=pod.owner)
    for each, source in artifacts(stack):
        scheme, _, reference = source.partition("://")
        if scheme.startswith("oci") and not allowed(reference, registries):
            yield Finding(says=f"model artifact is {told}, got: `{source}`", on=each)
