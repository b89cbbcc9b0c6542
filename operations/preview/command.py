"""The options of `fleet preview`, `fleet preview-change` and `fleet preview-comment`. What they do is cli.py, imported when they are called."""

from pathlib import Path
from typing import Any

from operations.later import later

_MODULE = "operations.preview.cli"
_PREVIEW = (
    "Runs `pulumi preview` with the policy pack on a state of its own, with placeholders for kubeconfigs: what the stack file declares is "
    "judged without any credential. Exit code 1 where a policy refuses it."
)
_CHANGE = "Previews what is committed here and what is committed in BASE, each by its own program, and hands the cost before the change over."
_COMMENT = "Writes what previews found as one comment of a pull request, which later runs change in place."


def add_commands(commands: Any) -> None:
    """Adds both to the subparsers of `fleet`."""
    preview = commands.add_parser("preview", help="what a stack file declares, and what the policies say, without credentials", description=_PREVIEW)
    preview.add_argument("-s", "--stack", default="local", help="environment, in stacks/ or stacks/examples/ (default: %(default)s)")
    preview.add_argument("--base", type=Path, metavar="FILE", help="what --json wrote before the change: the difference is shown, and what it costs")
    preview.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    preview.set_defaults(run=later(_MODULE, "preview"))

    change = commands.add_parser("preview-change", help="every environment that a change may touch, before and after it", description=_CHANGE)
    change.add_argument("base", type=Path, help="a clone or worktree of the commit before the change, after `make setup`")
    change.add_argument("folder", type=Path, help="where ENV.head.json, ENV.base.json and ENV.plan.md are written")
    change.set_defaults(run=later(_MODULE, "change"))

    comment = commands.add_parser("preview-comment", help="one comment of a pull request from previews", description=_COMMENT)
    comment.add_argument("folder", type=Path, help="what preview-change wrote")
    comment.add_argument("--post", metavar="OWNER/REPOSITORY#NUMBER", help="post it by GitHub's API, with the token in GITHUB_TOKEN (default: print it)")
    comment.add_argument("--run-url", default="", metavar="URL", help="a link to the run, shown at the end")
    comment.set_defaults(run=later(_MODULE, "comment"))
