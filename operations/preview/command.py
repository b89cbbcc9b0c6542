"""The options of `fleet preview` and `fleet preview-comment`. What they do is cli.py, imported when they are called."""

from pathlib import Path
from typing import Any

from operations.later import later

_MODULE = "operations.preview.cli"
_PREVIEW = (
    "Runs `pulumi preview` with the policy pack on a state of its own, with placeholders for kubeconfigs: what the stack file declares is "
    "judged without any credential. Exit code 1 where a policy refuses it."
)
_COMMENT = "Writes what previews found as one comment of a pull request, which later runs change in place."


def add_commands(commands: Any) -> None:
    """Adds both to the subparsers of `fleet`."""
    preview = commands.add_parser("preview", help="what a stack file declares, and what the policies say, without credentials", description=_PREVIEW)
    preview.add_argument("-s", "--stack", default="local", help="environment, in stacks/ or stacks/examples/ (default: %(default)s)")
    preview.add_argument("--base", type=Path, metavar="FILE", help="what --json wrote before the change: the difference is shown, and what it costs")
    preview.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    preview.set_defaults(run=later(_MODULE, "preview"))

    changed = commands.add_parser("changed-stacks", help="environments that a change may touch, one a line")
    changed.add_argument("files", nargs="*", metavar="FILE", help="changed files, relative to the repository (default: one a line from stdin)")
    changed.add_argument("--json", action="store_true", help="as one JSON list")
    changed.set_defaults(run=later(_MODULE, "changed"))

    comment = commands.add_parser("preview-comment", help="one comment of a pull request from previews", description=_COMMENT)
    comment.add_argument("folder", type=Path, help="holds ENV.head.json of each environment, and ENV.base.json and ENV.plan.md where there are any")
    comment.add_argument("--post", metavar="OWNER/REPOSITORY#NUMBER", help="post it by GitHub's API, with the token in GITHUB_TOKEN (default: print it)")
    comment.add_argument("--run-url", default="", metavar="URL", help="a link to the run, shown at the end")
    comment.set_defaults(run=later(_MODULE, "comment"))
