"""The options of `fleet model`. What it does is cli.py, imported when it is called."""

from pathlib import Path
from typing import Any

from operations.later import later

_MODULE = "operations.model.cli"


def add_commands(commands: Any) -> None:
    """Adds `model` to the subparsers of `fleet`."""
    group = commands.add_parser("model", help="models as OCI artifacts: pack, inspect, verify, push, ensure, pull")
    verbs = group.add_subparsers(required=True, metavar="COMMAND")

    pack = verbs.add_parser("pack", help="check a model directory and make an artifact of it")
    pack.add_argument("directory", type=Path, help="with config.json, *.safetensors and the tokenizer's files")
    pack.add_argument("target", nargs="?", help="oci://HOST/REPOSITORY:TAG to push to")
    pack.add_argument("--output", type=Path, metavar="DIR", help="write an OCI layout instead of pushing, or as well")
    pack.add_argument("--raw", action="store_true", help="ModelPack layers are the files themselves: Docker Model Runner needs it, the weights are kept twice")
    pack.add_argument("--base", default="", metavar="IMAGE", help="oci://…@sha256:… of an image with a shell, which KServe's modelcar mode needs")
    pack.set_defaults(run=later(_MODULE, "pack"))

    push = verbs.add_parser("push", help="push an OCI layout that pack made")
    push.add_argument("layout", type=Path)
    push.add_argument("target", help="oci://HOST/REPOSITORY:TAG")
    push.set_defaults(run=later(_MODULE, "push"))

    ensure = verbs.add_parser("ensure", help="pack and push a directory if the registry lacks it; `pulumi up` does so for models with `pack`")
    ensure.add_argument("directory", type=Path, help="read only where the registry lacks the digest")
    ensure.add_argument("source", help="oci://HOST/REPOSITORY@sha256:…")
    ensure.set_defaults(run=later(_MODULE, "ensure"))

    pull = verbs.add_parser("pull", help="the model's files of an artifact, each checked")
    pull.add_argument("source", help="oci://HOST/REPOSITORY:TAG, …@sha256:…, or an OCI layout")
    pull.add_argument("directory", type=Path, help="must not exist yet")
    pull.set_defaults(run=later(_MODULE, "pull"))

    inspect = verbs.add_parser("inspect", help="digests, layers, and the facts as a stack file has them")
    inspect.add_argument("source", help="an oci:// reference, an OCI layout or a model directory")
    inspect.add_argument("--stack", "-s", metavar="ENV", help="compare with the facts in stacks/Pulumi.ENV.yaml; exit code 1 if they differ")
    inspect.add_argument("--model", metavar="NAME", help="the model in the stack file (default: the one with this source)")
    inspect.set_defaults(run=later(_MODULE, "inspect"))

    verify = verbs.add_parser("verify", help="read every byte: digests, files, facts, licence")
    verify.add_argument("source", help="an oci:// reference or an OCI layout")
    verify.add_argument("--no-licence", action="store_true", help="accept a model without a licence file")
    verify.set_defaults(run=later(_MODULE, "verify"))
