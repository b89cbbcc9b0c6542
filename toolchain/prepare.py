"""Has every tool and Pulumi's plugins. `python -m toolchain.prepare`, which the bootstrap runs in the environment that it made."""

import sys

from toolchain import env, offline, tools


def main() -> None:
    try:
        tools.acquire_all()
        for line in offline.install(tools.path("pulumi"), env.pulumi_home()):
            print(line)
    except (tools.ToolError, offline.OfflineError) as error:
        hint = getattr(error, "hint", "")
        sys.exit(f"error: {error}" + (f"\nhint: {hint}" if hint else ""))
    except KeyboardInterrupt:
        sys.exit("error: interrupted\nhint: run it again; what is done is kept")


if __name__ == "__main__":
    main()
