"""What is wrong with a control plane or a cluster that somebody else set up, and the command that fixes it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One setting that is wrong. It is found by reading; nothing was changed."""

    setting: str
    """Where it is set: a component and its flag, a key of a ConfigMap, an object."""
    wrong: str
    """What must hold, and what breaks where it does not."""
    got: str
    """What was found."""
    hint: str
    """The command that sets it."""
    required: bool = True
    """False: the fleet works without, less well. Such a finding is a warning and ends nothing."""

    def told(self, cluster: str) -> str:
        return f"{cluster}: {self.setting}: {self.wrong}, got: `{self.got}`\n  hint: {self.hint}"


def version_of(image: str) -> tuple[int, ...] | None:
    """The version in the tag of an image, None where the tag is no version: `docker.io/x:v1.18.2-distroless@sha256:…` is (1, 18, 2)."""
    name = image.partition("@")[0].rsplit("/", 1)[-1]
    numbers = name.partition(":")[2].removeprefix("v").partition("-")[0].split(".")
    return tuple(map(int, numbers)) if len(numbers) > 1 and all(each.isdigit() for each in numbers) else None


def version_finding(what: str, image: str, oldest: tuple[int, int], reason: str) -> list[Finding]:
    """A version that is too old. One that cannot be read from the image is a warning."""
    least = ".".join(map(str, oldest))
    found = version_of(image)
    if found is None:
        wrong = f"its version cannot be read from its image; {least} or newer is needed: {reason}"
        return [Finding(setting=what, wrong=wrong, got=image, hint=f"use an image whose tag is the version of {what}", required=False)]
    if found[:2] >= oldest:
        return []
    return [Finding(setting=what, wrong=f"must be {least} or newer: {reason}", got=".".join(map(str, found)), hint=f"upgrade {what} to {least} or newer")]


def nested(pairs: dict[str, Any]) -> dict[str, Any]:
    """Helm values from dotted keys: {"a.b": 1} is {"a": {"b": 1}}."""
    root: dict[str, Any] = {}
    for key, value in pairs.items():
        *folders, leaf = key.split(".")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return root
