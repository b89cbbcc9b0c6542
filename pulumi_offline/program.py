"""Runs one Pulumi program; started by the language host with the Python of the project's environment.

That environment need not hold this repository: only the standard library and the Pulumi SDK are used here. The SDK on
PyPI lacks the executor that the official CLI ships beside its language host.
"""

import argparse
import asyncio
import ctypes
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Tells the language host that the message was already shown, so that it adds none of its own.
EXIT_SHOWN = 32
_PR_SET_PDEATHSIG = 1


def _end_with_host() -> None:
    """A program outlives a killed engine otherwise, and goes on registering resources into nothing.

    An interrupt is how the engine ends a program after a failure elsewhere; a KeyboardInterrupt traceback would bury it.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_SHOWN))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _users_trace(program: Path) -> str:
    """The traceback from the user's first frame on, without ours."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    inside = [index for index, frame in enumerate(frames) if Path(frame.filename).resolve() in (program, program / "__main__.py")]
    return traceback.format_exc(limit=inside[0] - len(frames)) if inside else traceback.format_exc()


def main() -> int:
    _end_with_host()
    parser = argparse.ArgumentParser(description="Runs a Pulumi program; started by the language host.")
    for option in ("project", "root_directory", "stack", "parallel", "dry_run", "pwd", "monitor", "engine", "organization"):
        parser.add_argument(f"--{option}")
    parser.add_argument("program")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    try:
        import pulumi  # noqa: PLC0415  its absence deserves a message of its own
        import pulumi.runtime  # noqa: PLC0415
    except ImportError as error:
        print(f"{error}\nThe Pulumi SDK is not installed for `{sys.executable}`.\nhint: install the project's requirements there", file=sys.stderr)
        return 1
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    parallel = int(options.parallel or 0)
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=options.monitor,
            engine=options.engine,
            project=options.project,
            stack=options.stack,
            parallel=parallel,
            dry_run=options.dry_run == "true",
            organization=options.organization,
            root_directory=options.root_directory,
        )
    )
    sys.argv = [options.program, *options.arguments]
    if options.pwd:
        os.chdir(options.pwd)
    program = Path(options.program).resolve()
    # A directory is run through its __main__.py, and runpy puts it on sys.path.
    if program.is_dir() and not (program / "__main__.py").is_file():
        pulumi.log.error(f"the Python program has no `__main__.py`: `{program}`")
        return EXIT_SHOWN
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Each resource in flight may hold a thread in a call to the engine.
    executor = ThreadPoolExecutor(max_workers=max(parallel, 1) * 4)
    loop.set_default_executor(executor)
    # A program that fails leaves outputs that never resolve; asyncio would complain about each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def run() -> None:
        runpy.run_path(options.program, run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception:  # noqa: BLE001  whatever the program raised is shown to its author
        pulumi.log.error("Program failed with an unhandled exception:\n" + _users_trace(program))
        return EXIT_SHOWN
    finally:
        executor.shutdown(wait=True)
        loop.close()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
