"""The comment of a pull request: what it says, and that there is one."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from core.errors import FleetError
from operations.preview import comment, github
from operations.preview.cli import changed_stacks
from operations.preview.comment import LONGEST, MARK, Environment
from operations.preview.result import Preview, Violation, difference, read

_TYPE = "kubernetes:serving.kserve.io/v1beta1:InferenceService"
_ISVC = f"{_TYPE} chat-isvc"
_REFUSED = Violation(
    policy="image-by-digest", mandatory=True, resource="chat-isvc", message="Title.\nimage has no digest, got: `a|b:1`\nwhy: tags move\nfix: add it"
)
_TOLD = Violation(policy="front-door-authentication", mandatory=False, resource="", message="Title.\nnobody asks\nwhy: money\nfix: ask")
_BASE = Preview(stack="prod", spec={}, resources={_ISVC: {"spec": {"replicas": 2, "image": "a:1"}}, "old thing": {}})
_HEAD = Preview(stack="prod", spec={}, resources={_ISVC: {"spec": {"replicas": 3, "image": "a:1"}}, "new thing": {}}, violations=(_REFUSED, _TOLD))


def said(*environments: Environment) -> str:
    return comment.text(environments)


def test_it_says_who_refuses_what_and_how_it_is_fixed() -> None:
    text = said(Environment(name="prod", head=_HEAD, base=_BASE))
    assert text.startswith(f"{MARK}\n## Fleet preview: refused for prod\n")
    assert "| prod | ❌ 1 refuse, 1 advisory | 1 added, 1 changed, 1 removed |" in text
    assert "| `image-by-digest` | chat-isvc | image has no digest, got: `a\\|b:1` | add it |" in text
    assert "| `front-door-authentication` | the stack | nobody asks | ask |" in text


def test_it_shows_what_changes_and_nothing_else() -> None:
    text = said(Environment(name="prod", head=_HEAD, base=_BASE))
    assert "- **added** `new thing`" in text
    assert "- **removed** `old thing`" in text
    assert f"- **changed** `{_ISVC}`\n  - `spec.replicas`: `2` → `3`\n" in text
    assert "a:1" not in text
    assert "No resource is declared otherwise" in said(Environment(name="prod", head=replace(_HEAD, resources=_BASE.resources), base=_BASE))
    assert "It is not known what was declared before" in said(Environment(name="prod", head=_HEAD))


def test_a_change_inside_a_commands_document_is_shown_by_its_field() -> None:
    base, head = (replace(_BASE, resources={"command join": {"stdin": json.dumps({"cluster": "east", "zone": zone})}}) for zone in ("a", "b"))
    assert difference(base, head).changed == {"command join": {"stdin.zone": ("a", "b")}}


def test_a_program_that_fails_shows_its_words() -> None:
    text = said(Environment(name="prod", head=replace(_HEAD, errors=("stacks/Pulumi.prod.yaml: models[0]: is required",), violations=(), resources={})))
    assert "refused for prod" in text
    assert "❌ no preview" in text
    assert "```text\nstacks/Pulumi.prod.yaml: models[0]: is required\n```" in text


def test_a_plan_is_shown_where_there_is_one() -> None:
    assert "<summary>Plan</summary>\n\n| model | GPUs |" in said(Environment(name="prod", head=_HEAD, plan="| model | GPUs |\n"))
    assert "<summary>Plan" not in said(Environment(name="prod", head=_HEAD))


def test_text_of_a_pull_request_names_nobody_and_opens_no_tag() -> None:
    rude = Violation(
        policy="residency", mandatory=True, resource="@everyone", message="Title.\n<img src=x> @platform-team [the fix](https://evil.example)\nfix: no"
    )
    text = said(Environment(name="prod", head=replace(_HEAD, violations=(rude,))))
    assert "@everyone" not in text
    assert "@platform-team" not in text
    assert "<img" not in text
    assert "](https://evil.example)" not in text
    assert "@team" not in said(Environment(name="prod", head=_HEAD, plan="owner: @team"))


def test_a_digest_can_be_copied_from_it() -> None:
    tag = Violation(policy="image-registry", mandatory=True, resource="chat-isvc", message="Title.\ngot: `host/a:1@sha256:0123`\nfix: no")
    assert "`host/a:1@sha256:0123`" in said(Environment(name="prod", head=replace(_HEAD, violations=(tag,))))


def test_it_is_never_longer_than_a_comment_may_be() -> None:
    many = {f"kind name-{number}": {"spec": "x" * 100} for number in range(3000)}
    changed = [Environment(name=f"prod-{number}", head=replace(_HEAD, resources=many), base=_BASE) for number in range(20)]
    text = comment.text(changed, "https://example.com/run/1")
    assert len(text) <= LONGEST
    # Of all of them who refuses what; of what changes no more than there is room for.
    assert text.count("| `image-by-digest` |") == 20
    assert "more: the run has them" in text
    assert text.endswith("[The run](https://example.com/run/1)\n")


@pytest.mark.parametrize("head", [replace(_HEAD, violations=(_TOLD,)), replace(_HEAD, errors=("x\n" * 50_000,))])
def test_what_is_cut_is_closed(head: Preview) -> None:
    plan = "| model | GPUs |\n" * 10_000
    text = comment.text([Environment(name="prod", head=head, base=_BASE, plan=plan)], "https://example.com/run/1")
    assert len(text) <= LONGEST
    assert "Cut here" in text
    assert text.count("<details") == text.count("</details>")
    assert text.count("```") % 2 == 0
    assert text.endswith("[The run](https://example.com/run/1)\n")


def test_without_a_changed_environment_it_says_so() -> None:
    assert said() == f"{MARK}\n## Fleet preview\n\nThis change touches no environment.\n"


def test_a_preview_is_read_as_it_was_written(tmp_path: Path) -> None:
    _HEAD.write(tmp_path / "prod.head.json")
    assert read(tmp_path / "prod.head.json") == _HEAD
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(FleetError, match="cannot be read as a preview"):
        read(tmp_path / "broken.json")


_KNOWN = ["local", "prod-americas", "prod-europe"]


@pytest.mark.parametrize(
    ("files", "touched"),
    [
        (["stacks/examples/Pulumi.prod-europe.yaml", "docs/architecture.md"], ["prod-europe"]),
        (["stacks/Pulumi.local.yaml"], ["local"]),
        (["components/mesh/mesh.py"], _KNOWN),
        (["policies/environments.yaml"], _KNOWN),
        (["stacks/config.py"], _KNOWN),
        (["stacks/schema.json", "README.md", "tests/unit/test_mesh.py"], []),
        (["stacks/Pulumi.gone.yaml"], []),
        (["stacks/choices.prod-europe.yaml"], ["prod-europe"]),
        (["operations/plan/report.py"], _KNOWN),
    ],
)
def test_a_change_touches_the_environments_that_it_may_change(files: list[str], touched: list[str]) -> None:
    assert changed_stacks(files, _KNOWN) == touched


class _GitHub(BaseHTTPRequestHandler):
    """The comments of one pull request."""

    comments: ClassVar[list[dict[str, Any]]] = []
    tokens: ClassVar[set[str]] = set()
    refuses: ClassVar[bool] = False

    def _answer(self) -> None:
        self.tokens.add(self.headers["authorization"])
        length = int(self.headers.get("content-length") or 0)
        given = json.loads(self.rfile.read(length)) if length else {}
        path, _, query = self.path.partition("?")
        status, told = 200, None
        if self.refuses:
            status, told = 403, {"message": "Resource not accessible by integration"}
        elif self.command == "GET":
            page = int(query.rsplit("page=", 1)[1])
            told = self.comments[(page - 1) * 100 : page * 100]
        elif self.command == "POST" and path == "/repos/team/fleet/issues/7/comments":
            status, told = 201, {"id": len(self.comments), "html_url": "https://example.com/new", "user": {"type": "Bot"}, **given}
            self.comments.append(told)
        elif self.command == "PATCH":
            told = next(each for each in self.comments if path == f"/repos/team/fleet/issues/comments/{each['id']}")
            told.update(given)
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815  names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the signature of http.server
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    person = {"user": {"type": "User"}, "html_url": ""}
    nobody = {"user": None, "html_url": ""}
    # Enough for a second page, and two who quote ours, one of whom has no account any more.
    quoting = [{"id": number, "body": f"{MARK} is what it begins with", **who} for number, who in enumerate((person, nobody))]
    _GitHub.comments[:] = [*quoting, *({"id": number, "body": "hello", **person} for number in range(2, 101))]
    _GitHub.refuses = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GitHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_later_runs_change_the_one_comment_and_no_persons(hub: str) -> None:
    for number in range(3):
        assert github.upsert(hub, "secret", "team/fleet#7", MARK, f"{MARK}\nrun {number}") == "https://example.com/new"
    ours = [each["body"] for each in _GitHub.comments if each["user"] and each["user"]["type"] == "Bot"]
    assert ours == [f"{MARK}\nrun 2"]
    assert len(_GitHub.comments) == 102
    assert _GitHub.tokens == {"Bearer secret"}


def test_a_refusal_of_github_says_what_the_job_lacks(hub: str) -> None:
    _GitHub.refuses = True
    with pytest.raises(FleetError, match="HTTP 403") as refused:
        github.upsert(hub, "secret", "team/fleet#7", MARK, MARK)
    assert "pull-requests: write" in refused.value.hint
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["se cret", "secret\nmore", "secrét"])
def test_what_is_no_token_is_not_shown(token: str) -> None:
    with pytest.raises(FleetError, match="GITHUB_TOKEN is no token") as refused:
        github.upsert("http://127.0.0.1:1", token, "team/fleet#7", MARK, MARK)
    assert token not in str(refused.value)


def test_a_target_that_is_none_is_refused() -> None:
    with pytest.raises(FleetError, match="must be OWNER/REPOSITORY#NUMBER"):
        github.upsert("http://127.0.0.1:1", "secret", "team/fleet", MARK, MARK)
