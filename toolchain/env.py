"""The settings with which `pulumi`, `kubectl` and the rest see this clone's fleet: `eval "$(make -s env)"`."""

import hashlib
import os
import shlex
from pathlib import Path

from toolchain import paths, tools
from toolchain.acquisition import write

# The local stack's secrets are the credentials of API servers on loopback, which lie beside its state anyway. A word that
# everybody knows keeps the stack file the same on every machine; other environments name a real secrets provider.
_LOCAL_PASSPHRASE = "local"


def pulumi_home() -> Path:
    """Of our own: the engine cannot tell an offline plugin from the official one, so none may reach the user's other projects.

    And of this clone's: offline plugins run its code with its environment, so a second clone would turn the first one's to itself.
    """
    return paths.CACHE / f"pulumi-home-{hashlib.sha256(str(paths.REPO).encode()).hexdigest()[:12]}"


def variables() -> dict[str, str]:
    """Name to value. What they point at is made by `prepare`. A second call in the prepared environment gives the same."""
    ours = [str(paths.REPO / ".venv" / "bin"), str(tools.bin_dir())]
    rest = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry not in ours]
    return {
        # The environment first: Pulumi's language host takes the first python on PATH.
        "PATH": os.pathsep.join([*ours, *rest]),
        "PULUMI_HOME": str(pulumi_home()),
        "PULUMI_BACKEND_URL": f"file://{paths.STATE / 'pulumi'}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(paths.STATE / "passphrase"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # Text built from an Output by mistake becomes an error instead of a strange value.
        "PULUMI_ERROR_OUTPUT_STRING": "true",
        "KUBECONFIG": str(paths.STATE / "kubeconfig"),
    }


def prepare() -> None:
    """Makes what the settings name: the state folder, for its owner only, with an empty Pulumi backend and the passphrase."""
    paths.STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Also where something else made the folder first: kubeconfigs and keys lie in it.
    paths.STATE.chmod(0o700)
    (paths.STATE / "pulumi").mkdir(mode=0o700, exist_ok=True)
    passphrase = paths.STATE / "passphrase"
    if not passphrase.exists():
        write(passphrase, _LOCAL_PASSPHRASE.encode(), mode=0o600)


def main() -> None:
    prepare()
    for name, value in variables().items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
