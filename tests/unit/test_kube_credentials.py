"""What the client does when the credentials of a kubeconfig expire while it is in use."""

import base64
from pathlib import Path

import httpx
import pytest
import yaml

from kube.client import Kube, Unauthorized
from kube.kubeconfig import KubeconfigError, load, portable

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


@pytest.mark.parametrize("how", ["exec", "tokenFile"])
def test_credentials_that_cannot_be_renewed_are_refused_credentials(how: str, tmp_path: Path, good: set[str]) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    command = plugin(tmp_path)
    user = f"{{exec: {{command: {command}}}}}" if how == "exec" else "{tokenFile: token}"
    with Kube.from_kubeconfig(kubeconfig(tmp_path, user)) as kube:
        expire(good)
        token.unlink()
        command.write_text("#!/bin/sh\necho 'log in first' >&2\nexit 1\n")
        # Not KubeconfigError: whoever takes a cluster with expired credentials for one that is away must see this one too.
        with pytest.raises(Unauthorized, match="log in first" if how == "exec" else "tokenFile cannot be read"):
            kube.request("GET", "/version")


@pytest.mark.parametrize(
    ("cluster", "user", "wrong"),
    [
        ("{server: 'https://x'}", "{tokenFile: gone}", "tokenFile cannot be read"),
        ("{server: 'https://x'}", "{exec: {command: /etc}}", "exec plugin cannot be run"),
        ("{server: 'https://x', certificate-authority-data: bm90IFBFTQ==}", "{}", "certificate-authority is not a PEM certificate"),
        ("{server: 'https://x'}", "{client-certificate-data: YQ==, client-key-data: YQ==}", "are not a PEM certificate and its key"),
        ("{server: 'https://x'}", "{client-certificate-data: a, client-key-data: YQ==}", "client-certificate-data is not base64"),
    ],
)
def test_what_is_wrong_with_a_kubeconfig_is_said_without_a_traceback(cluster: str, user: str, wrong: str) -> None:
    entries = f"clusters: [{{name: x, cluster: {cluster}}}]\nusers: [{{name: x, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: x, user: x}}}}]"
    with pytest.raises(KubeconfigError, match=wrong):
        load(f"current-context: x\n{entries}\n")


def test_files_that_a_kubeconfig_names_relative_to_itself_are_taken_along(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("the authority")
    path = tmp_path / "kubeconfig"
    path.write_text(
        """current-context: x
clusters: [{name: x, cluster: {server: "https://x", certificate-authority: ca.pem}}]
users: [{name: x, user: {tokenFile: token}}, {name: y, user: {exec: {command: bin/plugin}}}, {name: z, user: {exec: {command: aws}}}]
"""
    )
    read = yaml.safe_load(portable(path))
    assert read["clusters"][0]["cluster"] == {"server": "https://x", "certificate-authority-data": base64.b64encode(b"the authority").decode()}
    users = [each["user"] for each in read["users"]]
    assert users == [{"tokenFile": str(tmp_path / "token")}, {"exec": {"command": str(tmp_path / "bin/plugin")}}, {"exec": {"command": "aws"}}]
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(KubeconfigError, match="certificate file cannot be read"):
        portable(path)


@pytest.mark.parametrize("text", ["a: [", "text", "clusters: [{name: x,   cluster: {server: 'https://x', certificate-authority: /etc/ca.pem}}]\n"])
def test_a_kubeconfig_that_names_nothing_relative_is_not_rewritten(text: str, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    assert portable(tmp_path / "kubeconfig") == text
