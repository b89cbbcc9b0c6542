"""One comment of a pull request, by GitHub's API: made once, changed in place by later runs."""

import re
from typing import Any

import httpx

from core.errors import FleetError

_PAGE = 100
_TARGET = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)#(?P<number>\d+)")


def upsert(api: str, token: str, target: str, mark: str, body: str) -> str:
    """Puts `body` into the comment of `target` (OWNER/REPOSITORY#NUMBER) that begins with `mark`. Returns its address.

    `api`: GitHub's, such as https://api.github.com. Raises FleetError.
    """
    found = _TARGET.fullmatch(target)
    if found is None:
        raise FleetError(f"must be OWNER/REPOSITORY#NUMBER, got: `{target}`")
    # What is no header is shown by the library, and a token is not to be shown.
    if not re.fullmatch(r"[!-~]+", token):
        raise FleetError("GITHUB_TOKEN is no token: it holds a blank, a line break, or a letter outside ASCII")
    repository = f"{api.rstrip('/')}/repos/{found['repository']}"
    headers = {"authorization": f"Bearer {token}", "accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
    with httpx.Client(headers=headers, timeout=30, follow_redirects=True) as client:
        comments = f"{repository}/issues/{found['number']}/comments"
        known = _ours(client, comments, mark)
        if known is None:
            return _ask(client, "POST", comments, json={"body": body})["html_url"]
        return _ask(client, "PATCH", f"{repository}/issues/comments/{known}", json={"body": body})["html_url"]


def _ours(client: httpx.Client, comments: str, mark: str) -> int | None:
    page = 1
    while True:
        found: list[dict[str, Any]] = _ask(client, "GET", comments, params={"per_page": _PAGE, "page": page})
        for each in found:
            # A person may quote the mark; what a person wrote is not overwritten.
            if str(each.get("body")).startswith(mark) and (each.get("user") or {}).get("type") == "Bot":
                return each["id"]
        if len(found) < _PAGE:
            return None
        page += 1


def _ask(client: httpx.Client, method: str, url: str, **more: Any) -> Any:
    try:
        answer = client.request(method, url, **more)
    except httpx.HTTPError as error:
        raise FleetError(f"GitHub does not answer: {error}") from None
    if answer.is_error:
        hint = "the job needs `permissions: pull-requests: write`; a pull request from a fork never has it" if answer.status_code in (401, 403, 404) else ""
        if "rate limit" in answer.text:
            hint = "run the job again later"
        raise FleetError(f"GitHub refuses {method} {url}: HTTP {answer.status_code} {answer.text.strip()[:200]}", hint=hint)
    try:
        return answer.json()
    except ValueError:
        raise FleetError(f"GitHub answers {method} {url} with something else than JSON", hint="GITHUB_API_URL must be the address of its API") from None
