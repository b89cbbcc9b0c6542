"""One whole fleet for all tests of this folder: up once, changed by the last modules, and removed.

Its state lies beside the developer's, so a fleet of `make up` is not touched. FLEET_TEST_KEEP=1 leaves it running, and the
next run goes on with it.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kube.client import Kube
from local import processes
from local.down import of_fleet
from toolchain import paths

# Known folders: what a killed run leaves behind is found and removed by the next one.
FOLDER = paths.REPO / ".fleet-test"
STACK_FILE = paths.REPO / "stacks" / "Pulumi.local.yaml"
BROKEN_STACK = "fleet-test-broken"
BROKEN_STACK_FILE = STACK_FILE.with_name(f"Pulumi.{BROKEN_STACK}.yaml")

_NEEDED_GIB = 10.0
_KEEP = bool(os.environ.get("FLEET_TEST_KEEP"))
# They take regions away, and clusters out of the stack: everything else is asked before.
_LAST = ("test_callers", "test_scaling", "test_drill", "test_dead_region", "test_existing_cluster", "test_taking_out")
_LOG_LINES = 12
# Longer than the two minutes for which tiny-chat waits before it leaves a region, and than a load of vLLM.
_SETTLES_S = 300.0

Object = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    command: str
    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return f"$ {self.command}\nexit {self.code} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


@dataclass
class Calls:
    """Requests that were made one after another while something happened."""

    seconds: list[float] = field(default_factory=list[float])
    clusters: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])


class Fleet:
    """A fleet by its state folder, and the commands a user has for it. Making one touches nothing."""

    def __init__(self, name: str) -> None:
        self.state = FOLDER / name

    # Commands

    @cached_property
    def environment(self) -> dict[str, str]:
        """As a user's shell: nothing of another fleet in it."""
        foreign = ("PULUMI_", "FLEET_", "KUBECONFIG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign) or name == "FLEET_CACHE"}
        return {**kept, "FLEET_STATE": str(self.state)}

    @cached_property
    def shell_environment(self) -> dict[str, str]:
        """The same after `eval "$(make -s env STACK=local)"`."""
        exports = subprocess.run(
            [sys.executable, "-m", "toolchain.env", "local"], env=self.environment, cwd=paths.REPO, check=True, capture_output=True, text=True
        ).stdout
        pairs = [shlex.split(line)[1].split("=", 1) for line in exports.splitlines()]
        return {**self.environment, **dict(pairs)}

    def run(self, *command: str, check: bool = True, stdin: str = "", shell: bool = False, timeout: float = 600) -> Ran:
        """Runs a command in the clone. `shell`: with the settings of `make env`. Fails the test when it fails, unless `check` is off."""
        environment = self.shell_environment if shell else self.environment
        begun = time.monotonic()
        done = subprocess.run(command, env=environment, cwd=paths.REPO, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        ran = Ran(shlex.join(command), done.returncode, done.stdout, done.stderr, time.monotonic() - begun)
        if check and ran.code:
            pytest.fail(ran.text)
        return ran

    def fleet(self, *arguments: str, check: bool = True, timeout: float = 600) -> Ran:
        return self.run(_script("fleet"), *arguments, check=check, timeout=timeout)

    def driver(self, *arguments: str, stdin: str = "", check: bool = True) -> Ran:
        return self.run(_script("fleet-driver"), *arguments, stdin=stdin, check=check)

    def pulumi(self, *arguments: str, check: bool = True) -> Ran:
        return self.run("pulumi", *arguments, "--non-interactive", "--color=never", shell=True, check=check)

    def update(self, change: Callable[[Object], None] | None = None, *, check: bool = True) -> Ran:
        """`pulumi up` of the stack file as `change` leaves its `fleet:spec`; of the committed one without."""
        document: Object = yaml.safe_load(STACK_FILE.read_text())
        if change:
            change(document["config"]["fleet:spec"])
        file = FOLDER / "Pulumi.changed.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return self.pulumi("up", "-s", "local", "--yes", "--skip-preview", "--suppress-progress", "--config-file", str(file), check=check)

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """`fleet …`, under way: for tests that cut it off."""
        return subprocess.Popen(
            [_script("fleet"), *arguments],
            env=self.environment,
            cwd=paths.REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heed,  # noqa: PLW1509 - it takes no lock
        )

    def down(self) -> Ran:
        return self.run(sys.executable, "-m", "local.down")

    # What is there

    def processes(self) -> list[int]:
        return processes.find(of_fleet(self.state))

    @property
    def outputs(self) -> Object:
        """With secrets in clear."""
        return yaml.safe_load(self.pulumi("stack", "output", "-s", "local", "--json", "--show-secrets").out)

    def kube(self, cluster: str) -> Kube:
        return Kube.from_kubeconfig(self.state / "clusters" / cluster / "kubeconfig")

    def door(self, cluster: str, gateway: str = "front-door") -> str:
        """URL of a cluster's front door, or of its regional gateway; also while the cluster is dead."""
        ports: Object = yaml.safe_load((self.state / "clusters" / cluster / "ports.json").read_text())["ports"]
        return f"http://127.0.0.1:{ports[gateway]}"

    def ask(self, cluster: str, model: str = "tiny-chat", timeout: float = 30) -> httpx.Response:
        """One short chat completion through a front door."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        return httpx.post(f"{self.door(cluster)}/{model}/v1/chat/completions", json=body, timeout=timeout, trust_env=False)

    @contextmanager
    def calling(self, *doors: str) -> Generator[dict[str, Calls]]:
        """Asks tiny-chat through each of the front doors, again and again, as long as the block runs."""
        calls = {door: Calls() for door in doors}
        stop = threading.Event()

        def call(door: str, record: Calls) -> None:
            while not stop.wait(0.2):
                begun = time.monotonic()
                try:
                    answer = self.ask(door)
                    if answer.status_code == 200:
                        record.clusters.append(answer.headers.get("x-fleet-cluster", ""))
                    else:
                        record.failures.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    record.failures.append(repr(error))
                record.seconds.append(time.monotonic() - begun)

        threads = [threading.Thread(target=call, args=pair, daemon=True) for pair in calls.items()]
        for thread in threads:
            thread.start()
        try:
            yield calls
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)

    def settle(self) -> None:
        """Waits until every model is, as the hub shows it, ready in the clusters and numbers that are declared."""
        declared = {
            model: {cluster: (True, each["replicas"], "") for cluster, each in clusters.items()} for model, clusters in self.outputs["placements"].items()
        }
        shown: dict[str, dict[str, tuple[bool, int, str]]] = {}

        def all_there() -> bool:
            with self.kube("hub") as hub:
                for each in hub.list("serving.kserve.io/v1beta1", "InferenceService", "models"):
                    statuses = (each.get("status") or {}).get("clusterStatuses") or []
                    shown[each["metadata"]["name"]] = {one["name"]: (one["ready"], one["replicas"], one.get("message", "")) for one in statuses}
            assert shown == declared, shown
            return True

        wait_until(all_there, f"the models to be where they are declared: {declared}", _SETTLES_S)

    def logs(self) -> str:
        """What a person would look at first: the state, then the end of each log that may tell why."""
        parts = [self.fleet("status", check=False).text]
        for file in sorted((self.state / "clusters").glob("*/logs/*.log")) + sorted((self.state / "clusters").glob("*/pods/**/*.log")):
            if file.stem in ("kserve", "istiod", "node-agent", "karmada-controller-manager", "karmada-scheduler") or "pods" in file.parts:
                tail = file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
                parts.append("\n".join([f"==> {file.relative_to(self.state)} <==", *(line[:300] for line in tail)]))
        return "\n\n".join(parts)


def _heed() -> None:
    # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def wait_until(check: Callable[[], Any], what: str, timeout_s: float) -> float:
    """Waits until `check` is true and returns after how many seconds it was. Errors of a server that comes and goes are not true."""
    begun = time.monotonic()
    last: object = None
    while True:
        try:
            last = check()
            if last:
                return time.monotonic() - begun
        except Exception as error:  # noqa: BLE001
            last = error
        if time.monotonic() - begun > timeout_s:
            pytest.fail(f"waited {timeout_s:.0f} s for {what}; last: {last!r}")
        time.sleep(0.3)


def available_gib() -> float:
    meminfo = Path("/proc/meminfo").read_text()
    return next(int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("MemAvailable:")) / 1024 / 1024


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        module = item.path.stem
        return _LAST.index(module) + 1 if item.path.parent == Path(__file__).parent and module in _LAST else 0

    # All fleet tests after all others: they take the longest.
    items.sort(key=lambda item: (item.path.parent == Path(__file__).parent, place(item)))
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.fleet)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and isinstance(fleet, Fleet) and fleet.state.exists():
        report.sections.append(("the fleet", fleet.logs()))
    return report


def _clear(*fleets: Fleet) -> None:
    for each in fleets:
        each.down()
        if left := each.processes():
            pytest.fail(f"`make down` leaves processes: {left}")
    BROKEN_STACK_FILE.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def whole() -> Iterator[tuple[Fleet, Ran]]:
    """The fleet of the stack `local`, and the `fleet up` that made it."""
    fleet, spare = Fleet("whole"), Fleet("spare")
    _clear(spare, *([] if _KEEP else [fleet]))
    if not fleet.processes() and (available := available_gib()) < _NEEDED_GIB:
        pytest.fail(f"a whole fleet needs {_NEEDED_GIB:.0f} GiB of free memory, there are {available:.1f} (`make down` frees those of `make up`)")
    FOLDER.mkdir(exist_ok=True)
    try:
        first = fleet.fleet("up", check=False)
        if first.code:
            pytest.fail(f"{first.text}\n{fleet.logs()}")
        yield fleet, first
    finally:
        if not _KEEP:
            _clear(fleet, spare)
            shutil.rmtree(FOLDER, ignore_errors=True)


@pytest.fixture
def fleet(whole: tuple[Fleet, Ran]) -> Fleet:
    return whole[0]


@pytest.fixture
def first_up(whole: tuple[Fleet, Ran]) -> Ran:
    return whole[1]


@pytest.fixture
def spare() -> Iterator[Fleet]:
    """A second state folder, empty, for a fleet that never gets far."""
    fleet = Fleet("spare")
    _clear(fleet)
    FOLDER.mkdir(exist_ok=True)
    yield fleet
    _clear(fleet)
