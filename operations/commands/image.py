"""`fleet image VERB`. What it does is operations/image."""

import argparse
from pathlib import Path

from operations.commands.options import Group

# As in runtime_image.image.inputs and .scan, which are not imported for the sake of `fleet status`.
_VARIANTS = ("gpu", "cpu")
_SEVERITIES = ("low", "medium", "high", "critical")
_SOURCE = "oci://HOST/REPOSITORY:TAG or …@sha256:…, an OCI layout, or the name of a variant that was built here"


def add(commands: Group) -> None:
    group = commands.add_parser("image", help="the serving runtime image: build, push, inspect, test, scan, sign, verify")
    group.set_defaults(run=run)
    verbs = group.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    build = verbs.add_parser("build", help="build what has changed; prints variant and digest")
    _add_what(build)

    push = verbs.add_parser("push", help="build what has changed, and push it with its list of contents")
    push.add_argument("repository", help="HOST/REPOSITORY; the CPU variant goes to HOST/REPOSITORY-cpu, where KServe looks for it")
    push.add_argument("--tag", help="of all variants (default: the version of vLLM and the digest of the inputs)")
    push.add_argument("--json", action="store_true", help="print one JSON object")
    _add_what(push)

    inputs = verbs.add_parser("inputs", help="what the image would be built from: digests, and the tag that follows")
    inputs.add_argument("--json", action="store_true", help="print one JSON object")
    _add_what(inputs, builder=False)

    inspect = verbs.add_parser("inspect", help="versions, user, command, and the size of each layer")
    inspect.add_argument("source", help=_SOURCE)

    test = verbs.add_parser("test", help="run the image as an arbitrary user with a read-only root: requests, drain, times")
    test.add_argument("source", nargs="?", help=f"{_SOURCE}; without it the CPU variant is built, pushed to a registry here, and pulled")
    test.add_argument("--user", type=int, default=1234567890, help="user id (default: %(default)s)")
    test.add_argument("--base", default="", metavar="IMAGE", help="`debian`: a base made from distribution packages")
    test.add_argument("--builder", choices=("docker", "buildah"), default="", help="default: the first that works")

    scan = verbs.add_parser("scan", help="known vulnerabilities, less those in runtime_image/scan-ignore.toml")
    scan.add_argument("source", nargs="?", help=f"{_SOURCE}; not needed with --report")
    scan.add_argument("--report", type=Path, metavar="FILE", help="judge this JSON report of trivy or grype instead of scanning")
    scan.add_argument("--fail-on", choices=_SEVERITIES, default="high", help="the least severity that fails (default: %(default)s)")

    for verb, text in (("sign", "sign a digest with cosign"), ("verify", "check a digest's signature with cosign")):
        command = verbs.add_parser(verb, help=text)
        command.add_argument("target", help="oci://HOST/REPOSITORY@sha256:…")
        command.add_argument("--key", default="", help="a file, or the address of a key service")
        if verb == "verify":
            command.add_argument("--identity", default="", help="of who signed without a key")
            command.add_argument("--issuer", default="", help="who vouches for the identity")


def _add_what(command: argparse.ArgumentParser, *, builder: bool = True) -> None:
    command.add_argument("--variant", action="append", choices=_VARIANTS, help="build only this one; may be repeated (default: all)")
    command.add_argument("--base", default="", metavar="IMAGE", help="another base; `debian`: one made from distribution packages, of the CPU variant alone")
    if builder:
        command.add_argument("--builder", choices=("docker", "buildah"), default="", help="default: the first that works")


def run(arguments: argparse.Namespace) -> None:
    from operations.image import cli

    verbs = {
        "build": cli.build,
        "push": cli.push,
        "inputs": cli.show_inputs,
        "inspect": cli.inspect,
        "test": cli.test,
        "scan": cli.scan,
        "sign": cli.sign,
        "verify": cli.verify,
    }
    verbs[arguments.verb](arguments)
