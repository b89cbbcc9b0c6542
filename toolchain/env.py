"""The settings with which `pulumi`, `kubectl` and the rest work in this clone: `eval "$(make -s env)"`.

Tools for every stack. Only `STACK=local` names a backend, a passphrase and a kubeconfig: those of every other stack are the user's.
"""

import argparse
import hashlib
import os
import shlex
from pathlib import Path

from toolchain import backend, paths, tools


def pulumi_home() -> Path:
    """Of our own: the engine cannot tell an offline plugin from the official one, so none may reach the user's other projects.

    And of this clone's: offline plugins run its code with its environment, so a second clone would turn the first one's to itself.
    """
    return paths.CACHE / f"pulumi-home-{hashlib.sha256(str(paths.REPO).encode()).hexdigest()[:12]}"


def tooling() -> dict[str, str]:
    """What every stack needs, name to value. A second call in the prepared environment gives the same."""
    ours = [str(paths.REPO / ".venv" / "bin"), str(tools.bin_dir())]
    rest = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry not in ours]
    return {
        # The environment first: Pulumi's language host takes the first python on PATH.
        "PATH": os.pathsep.join([*ours, *rest]),
        "PULUMI_HOME": str(pulumi_home()),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # Text built from an Output by mistake becomes an error instead of a strange value.
        "PULUMI_ERROR_OUTPUT_STRING": "true",
    }


def credentials_folder() -> Path:
    return backend.credentials_folder(pulumi_home(), os.environ)


def _login() -> dict[str, str]:
    # PULUMI_HOME is this clone's, and what the user told `pulumi login` lies in theirs.
    return {"PULUMI_CREDENTIALS_PATH": str(credentials_folder())}


def _local() -> dict[str, str]:
    """What only the stack `local` has. The passphrase goes before any other that a shell may hold for another stack."""
    return {
        backend.BACKEND_URL: backend.local_url(),
        "PULUMI_CONFIG_PASSPHRASE": backend.LOCAL_PASSPHRASE,
        "KUBECONFIG": str(paths.STATE / "kubeconfig"),
    }


def of_stack(stack: str) -> dict[str, str]:
    """The settings of the engine for one stack. Beside them it has the user's environment, which decides where state goes."""
    return {**tooling(), **(_local() if stack == backend.LOCAL else _login())}


def prepare() -> None:
    """Makes what the settings of the stack `local` name: the state folder, for its owner only, with an empty Pulumi backend."""
    paths.STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Also where something else made the folder first: kubeconfigs and keys lie in it.
    paths.STATE.chmod(0o700)
    backend.local_folder().mkdir(mode=0o700, exist_ok=True)


def lines(stack: str) -> list[str]:
    """For a shell. `stack` is empty for the tools alone. What an earlier `STACK=local` set is taken back for other stacks."""
    local = _local()
    if stack == backend.LOCAL:
        return [_export(name, value) for name, value in {**tooling(), **_login(), **local}.items()]
    stale = [name for name, value in local.items() if os.environ.get(name) == value]
    return [*(f"unset {name}" for name in stale), *(_export(name, value) for name, value in {**tooling(), **_login()}.items())]


def _export(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toolchain.env")
    parser.add_argument("stack", nargs="?", default="", help="`local` for its backend, passphrase and kubeconfig too")
    stack: str = parser.parse_args().stack
    if stack == backend.LOCAL:
        prepare()
    print("\n".join(lines(stack)))


if __name__ == "__main__":
    main()
