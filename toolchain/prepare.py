"""Has every tool and Pulumi's plugins. `python -m toolchain.prepare`, which the bootstrap runs in the environment that it made."""

import sys

from pulumi_offline.install import OfflineError
from toolchain import plugins, tools


def main() -> None:
    try:
        tools.acquire_all()
        for line in plugins.install():
            print(line)
    except (tools.ToolError, OfflineError) as error:
        hint = getattr(error, "hint", "")
        sys.exit(f"error: {error}" + (f"\nhint: {hint}" if hint else ""))
    except KeyboardInterrupt:
        sys.exit("error: interrupted\nhint: run it again; what is done is kept")


if __name__ == "__main__":
    main()
