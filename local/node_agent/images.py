"""What a container image stands for on this machine: a tool of the toolchain and its place on PATH.

Nothing is pulled and nothing is unpacked. images.json in the cluster's folder maps a repository to
{"path": [folder, ...], "entrypoint": [...], "env": {...}}; `local.node_agent.apply` writes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Folders of the system that every container sees after its own.
_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")


@dataclass(frozen=True)
class Image:
    """An image as far as a host process needs one."""

    path: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def environment(self) -> dict[str, str]:
        """What a container of it finds before its own variables."""
        return {"PATH": ":".join((*self.path, *_SYSTEM_PATH)), "LANG": "C.UTF-8", **self.env}


def repository(reference: str) -> str:
    """An image reference without tag and digest: `docker.io/vllm/x:v1@sha256:…` is `vllm/x`."""
    name = reference.partition("@")[0]
    head, separator, last = name.rpartition("/")
    return f"{head}{separator}{last.partition(':')[0]}".removeprefix("docker.io/").removeprefix("library/")


def find(folder: Path, reference: str) -> Image | None:
    """What stands for the image; None where nothing does."""
    try:
        table: dict[str, Any] = json.loads((folder / "images.json").read_text())
    except (OSError, ValueError):
        return None
    entry = table.get(repository(reference))
    if entry is None:
        return None
    return Image(tuple(entry["path"]), tuple(entry.get("entrypoint") or ()), dict(entry.get("env") or {}))
