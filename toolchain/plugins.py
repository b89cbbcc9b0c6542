"""Pulumi's plugins, in the folder where this clone's engine looks for them.

`kubernetes` is the official provider, downloaded or built as the other tools are. The language host and `command` are official
where they can be downloaded, else those of pulumi_offline.
"""

from pathlib import Path

import pulumi_offline.install
from toolchain import env, tools
from toolchain.catalogue import KUBERNETES_PLUGIN
from toolchain.pins import PINS


def install() -> list[str]:
    """Puts them in place and returns lines for the user. Quick and silent once all is. Raises ToolError, OfflineError."""
    home = env.pulumi_home()
    link_kubernetes(home)
    return pulumi_offline.install.install(tools.path("pulumi"), home)


def link_kubernetes(home: Path) -> None:
    """A link, as for the other tools: the binary has 167 MB, and each clone has a folder of its own. Raises ToolError."""
    folder = home / "plugins" / f"resource-kubernetes-v{PINS.pulumi_kubernetes}"
    folder.mkdir(parents=True, exist_ok=True)
    tools.point(folder / KUBERNETES_PLUGIN, tools.path(KUBERNETES_PLUGIN))
