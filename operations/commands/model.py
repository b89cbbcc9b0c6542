"""`fleet model VERB`. What it does is operations/model_artifacts.py."""

import argparse
from pathlib import Path

from operations.commands.options import Group


def add(commands: Group) -> None:
    group = commands.add_parser("model", help="models as OCI artifacts: pack, inspect, verify, push, ensure, pull")
    group.set_defaults(run=run)
    verbs = group.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    pack = verbs.add_parser("pack", help="check a model directory and make an artifact of it")
    pack.add_argument("directory", type=Path, help="with config.json, *.safetensors and the tokenizer's files")
    pack.add_argument("target", nargs="?", help="oci://HOST/REPOSITORY:TAG to push to")
    pack.add_argument("--output", type=Path, metavar="DIR", help="write an OCI layout instead of pushing, or as well")
    pack.add_argument("--raw", action="store_true", help="ModelPack layers are the files themselves: Docker Model Runner needs it, the weights are kept twice")
    pack.add_argument("--base", default="", metavar="IMAGE", help="oci://…@sha256:… of an image with a shell, which KServe's modelcar mode needs")

    push = verbs.add_parser("push", help="push an OCI layout that pack made")
    push.add_argument("layout", type=Path)
    push.add_argument("target", help="oci://HOST/REPOSITORY:TAG")

    ensure = verbs.add_parser("ensure", help="pack and push a directory if the registry lacks it; `pulumi up` does so for models with `pack`")
    ensure.add_argument("directory", type=Path, help="read only where the registry lacks the digest")
    ensure.add_argument("source", help="oci://HOST/REPOSITORY@sha256:…")

    pull = verbs.add_parser("pull", help="the model's files of an artifact, each checked")
    pull.add_argument("source", help="oci://HOST/REPOSITORY:TAG, …@sha256:…, or an OCI layout")
    pull.add_argument("directory", type=Path, help="must not exist yet")

    inspect = verbs.add_parser("inspect", help="digests, layers, and the facts as a stack file has them")
    inspect.add_argument("source", help="an oci:// reference, an OCI layout or a model directory")
    inspect.add_argument("--stack", "-s", metavar="ENV", help="compare with the facts in stacks/Pulumi.ENV.yaml; exit code 1 if they differ")
    inspect.add_argument("--model", metavar="NAME", help="the model in the stack file (default: the one with this source)")

    verify = verbs.add_parser("verify", help="read every byte: digests, files, facts, licence")
    verify.add_argument("source", help="an oci:// reference or an OCI layout")
    verify.add_argument("--no-licence", action="store_true", help="accept a model without a licence file")


def run(arguments: argparse.Namespace) -> None:
    from operations import model_artifacts

    verbs = {
        "pack": model_artifacts.pack,
        "push": model_artifacts.push,
        "ensure": model_artifacts.ensure,
        "pull": model_artifacts.pull,
        "inspect": model_artifacts.inspect,
        "verify": model_artifacts.verify,
    }
    verbs[arguments.verb](arguments)
