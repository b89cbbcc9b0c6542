"""API servers for tests: etcd and kube-apiserver as processes of ours, on loopback, gone with the test module."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import settings

from kube.client import Kube, KubeError
from toolchain import tools

# The same examples every time, however busy the machine: a failure is the change's. HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Tests below these folders start real programs; those of tests/fleet a whole fleet. All others are the default tier.
_INTEGRATION = frozenset({"dataplane", "gateways", "guard", "local", "offline", "schema", "state"})

_READY_S = 60.0
_PR_SET_PDEATHSIG = 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in _INTEGRATION:
            item.add_marker(pytest.mark.integration)


@dataclass(frozen=True)
class ApiServer:
    """A real API server over a real etcd, without controllers unless started. `token` may do anything."""

    url: str
    folder: Path
    kubeconfig: Path
    kube: Kube


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_us() -> None:
    # A test run that is killed runs no fixture's end.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def process(command: list[str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_die_with_us)  # noqa: PLW1509
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_until(check: Callable[[], bool], what: str, timeout_s: float = _READY_S, log: Path | None = None) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log else ""
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}\n{tail}")
        time.sleep(0.1)


def _answers(kube: Kube) -> bool:
    try:
        return kube.request("GET", "/readyz", timeout=5).text == "ok"
    except KubeError:
        return False


@contextmanager
def run_api_server(folder: Path, *extra: str, token: str = "test-token") -> Generator[ApiServer]:
    """etcd and kube-apiserver with their files in `folder`. `extra` are further flags of kube-apiserver."""
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (folder / "sa.key").write_bytes(pem)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    client, peer, secure = free_port(), free_port(), free_port()
    etcd = [
        str(tools.path("etcd")),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        # Nothing here has to survive a power cut.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    api_server = [
        str(tools.path("kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        # Loopback is no endpoint that Kubernetes accepts, and no test asks for the Service `kubernetes`.
        "--endpoint-reconciler-type=none",
        f"--secure-port={secure}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        # Pods need no token here, and nothing would make one.
        "--disable-admission-plugins=ServiceAccount",
        *extra,
    ]
    url = f"https://127.0.0.1:{secure}"
    with ExitStack() as stack:
        stack.enter_context(process(etcd, folder / "etcd.log"))
        stack.enter_context(process(api_server, folder / "kube-apiserver.log"))
        certificate = folder / "certificates" / "apiserver.crt"
        wait_until(certificate.is_file, "the API server's certificate", log=folder / "kube-apiserver.log")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        kube = stack.enter_context(Kube.from_kubeconfig(path))
        wait_until(lambda: _answers(kube), "kube-apiserver to be ready", log=folder / "kube-apiserver.log")
        wait_until(lambda: kube.find("v1", "Namespace", "default") is not None, "the namespace `default`")
        yield ApiServer(url, folder, path, kube)


@contextmanager
def run_controllers(server: ApiServer, controllers: str) -> Generator[None]:
    """kube-controller-manager with these controllers (comma-separated names)."""
    command = [
        str(tools.path("kube-controller-manager")),
        f"--kubeconfig={server.kubeconfig}",
        f"--controllers={controllers}",
        "--bind-address=127.0.0.1",
        f"--secure-port={free_port()}",
        f"--cert-dir={server.folder / 'controller-certificates'}",
        "--leader-elect=false",
    ]
    with process(command, server.folder / "kube-controller-manager.log"):
        yield


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An empty API server for the tests of one module. No controllers: nothing becomes ready, namespaces do not end."""
    with run_api_server(tmp_path_factory.mktemp("api-server")) as server:
        yield server
