"""The kubelet of a local region's one CPU node: runs the containers of pods as host processes.

Covered: commands, arguments and environment as Kubernetes resolves them, volumes by path rewriting, probes, restarts
with back-off, preStop and grace periods, logs for `kubectl logs`, and the mesh entry of ready pods. Not covered: images
(a repository stands for a tool of this machine), namespaces, cgroups, limits, security contexts
(docs/decisions/0008-node-agent.md). The GPU nodes beside it are kwok's.

`apply`, `delete` and `unit` are install.py's. They are loaded on first use: this package is also the agent process
itself, which stays resident and needs nothing of what its callers need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from local.node_agent.install import apply, delete, unit

__all__ = ["apply", "delete", "unit"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("local.node_agent.install"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
