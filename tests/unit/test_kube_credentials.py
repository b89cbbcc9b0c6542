"""What the client does when the credentials of a kubeconfig expire while it is in use."""

from pathlib import Path

import httpx
import pytest

from kube.client import Kube, Unauthorized

SERVER = "http://member"


def kubeconfig(folder: Path, user: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        f"""current-context: x
clusters: [{{name: x, cluster: {{server: "{SERVER}"}}}}]
contexts: [{{name: x, context: {{cluster: x, user: x}}}}]
users: [{{name: x, user: {user}}}]
"""
    )
    return path


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Tokens that the server takes."""
    tokens = {"first"}

    def answer(request: httpx.Request) -> httpx.Response:
        known = request.headers["Authorization"].removeprefix("Bearer ") in tokens
        return httpx.Response(200 if known else 401, json={"message": "Unauthorized"})

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=httpx.MockTransport(answer), base_url=SERVER, headers=options["headers"]))
    return tokens


def expire(good: set[str]) -> None:
    good.clear()
    good.add("second")


def plugin(folder: Path) -> Path:
    """Prints what lies in `token`."""
    path = folder / "plugin"
    path.write_text(f"""#!/bin/sh\nprintf '{{"status": {{"token": "%s"}}}}' "$(cat {folder / "token"})"\n""")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("how", ["exec", "tokenFile"])
def test_new_credentials_are_taken_from_where_the_old_ones_came(how: str, tmp_path: Path, good: set[str]) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    user = f"{{exec: {{command: {plugin(tmp_path)}}}}}" if how == "exec" else "{tokenFile: token}"
    with Kube.from_kubeconfig(kubeconfig(tmp_path, user)) as kube:
        kube.request("GET", "/version")
        expire(good)
        token.write_text("second")
        assert kube.request("GET", "/version").status_code == 200
        # Nothing new to be had: said once, at once.
        good.clear()
        with pytest.raises(Unauthorized, match=f"{SERVER} refuses the credentials of the kubeconfig: expired or revoked"):
            kube.request("GET", "/version")


def test_a_token_in_the_kubeconfig_itself_is_not_renewed(tmp_path: Path, good: set[str]) -> None:
    with Kube.from_kubeconfig(kubeconfig(tmp_path, "{token: first}")) as kube:
        expire(good)
        with pytest.raises(Unauthorized) as failure:
            kube.wait(lambda: kube.request("GET", "/version"), 60, "an answer")
        assert "first" not in str(failure.value)
