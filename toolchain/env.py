"""The settings with which `pulumi`, `kubectl` and the rest see this clone's fleet: `eval "$(make -s env)"`."""

import os
import shlex

from toolchain import paths, tools

# The local stack's secrets are the credentials of API servers on loopback, which lie beside its state anyway. A word that
# everybody knows keeps the stack file the same on every machine; other environments name a real secrets provider.
_LOCAL_PASSPHRASE = "local"


def variables() -> dict[str, str]:
    venv = str(paths.REPO / ".venv" / "bin")
    ours = [venv, str(tools.bin_dir())]
    rest = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry not in ours]
    return {
        "PATH": os.pathsep.join([*ours, *rest]),
        "PULUMI_HOME": str(paths.CACHE / "pulumi-home"),
        "PULUMI_BACKEND_URL": f"file://{paths.STATE / 'pulumi'}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(paths.STATE / "passphrase"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # Text built from an Output by mistake becomes an error instead of a strange value.
        "PULUMI_ERROR_OUTPUT_STRING": "true",
        "KUBECONFIG": str(paths.STATE / "kubeconfig"),
    }


def prepare() -> None:
    """Makes what the settings name: the state folder, for its owner only, with an empty Pulumi backend."""
    paths.STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    (paths.STATE / "pulumi").mkdir(mode=0o700, exist_ok=True)
    passphrase = paths.STATE / "passphrase"
    if not passphrase.exists():
        temporary = passphrase.with_name(f".passphrase.{os.getpid()}")
        temporary.write_text(_LOCAL_PASSPHRASE)
        temporary.chmod(0o600)
        temporary.replace(passphrase)


def main() -> None:
    prepare()
    for name, value in variables().items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
