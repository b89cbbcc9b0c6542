"""Probes of a container: when they are due, what a run of successes or failures means, and the checks themselves."""

import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local.node_agent import processes

Object = dict[str, Any]

# The kubelet's own name, which servers know from their access logs.
_USER_AGENT = "kube-probe/1.36"


@dataclass(frozen=True)
class Target:
    """Whom a check asks: the pod's address, the container's named ports, and how to run a command in the container."""

    address: str
    ports: Mapping[str, int]
    run: Callable[[list[str], float], int]


class Threshold:
    """Counts results until enough of the same kind came in a row; then the verdict changes.

    verdict: None until decided once, as for a startup probe; a readiness probe begins with False, a liveness probe with
    True, as in the kubelet.
    """

    def __init__(self, probe: Object, verdict: bool | None) -> None:
        self.verdict = verdict
        self._needed = {True: int(probe.get("successThreshold") or 1), False: int(probe.get("failureThreshold") or 3)}
        self._last: bool | None = None
        self._run = 0

    def record(self, *, success: bool) -> bool | None:
        """The verdict after one more result."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        if self._run >= self._needed[success]:
            self.verdict = success
        return self.verdict


def check(probe: Object, target: Target) -> str | None:
    """Runs one check. None where it succeeded, else why not."""
    timeout = float(probe.get("timeoutSeconds") or 1)
    try:
        if "httpGet" in probe:
            return _http_get(probe["httpGet"], target, timeout)
        if "tcpSocket" in probe:
            action = probe["tcpSocket"]
            host = _host(action, target)
            socket.create_connection((host, port(action["port"], target.ports)), timeout).close()
            return None
        if "exec" in probe:
            code = target.run(list(probe["exec"]["command"]), timeout)
            return None if code == 0 else f"command exited with {code}"
    except (OSError, http.client.HTTPException, ValueError, subprocess.TimeoutExpired) as error:
        return str(error) or type(error).__name__
    return "the node agent knows httpGet, tcpSocket and exec probes only"


def port(value: str | int, ports: Mapping[str, int]) -> int:
    """A port by number or by the name of a containerPort. Raises ValueError."""
    if isinstance(value, int) or value.isdigit():
        return int(value)
    if value not in ports:
        raise ValueError(f"the container has no port named `{value}`")
    return ports[value]


def _host(action: Object, target: Target) -> str:
    host = str(action.get("host") or target.address)
    # A local fleet sends nothing off this machine, whatever a manifest says.
    if not host.startswith("127.") and host not in ("localhost", "::1"):
        raise ValueError(f"a probe may ask loopback only, got host: `{host}`")
    return host


def http_get(action: Object, target: Target, timeout: float) -> int:
    """Status of a GET, as probes and preStop hooks do it: certificates are not checked, redirects not followed."""
    host, number = _host(action, target), port(action["port"], target.ports)
    if action.get("scheme") == "HTTPS":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, number, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, number, timeout=timeout)
    headers = {"User-Agent": _USER_AGENT, "Connection": "close", **{each["name"]: each["value"] for each in action.get("httpHeaders") or []}}
    try:
        connection.request("GET", action.get("path") or "/", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _http_get(action: Object, target: Target, timeout: float) -> str | None:
    status = http_get(action, target, timeout)
    return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"


class Prober:
    """The probes of one run of a container, a thread each. `started`, `ready` and `unhealthy` are their verdicts.

    unhealthy: None, or which probe failed and why; the container has to be stopped then.
    """

    def __init__(self, container: Object, target: Target, started_at: float, *, started: bool = False, ready: bool = False) -> None:
        """`started_at` is when the process started (epoch seconds). `started` and `ready` are what an agent before us had
        found out about a container that we adopt."""
        self._target = target
        self._stop = threading.Event()
        self._startup, self._readiness = container.get("startupProbe"), container.get("readinessProbe")
        self.started = started or not self._startup
        self.ready = (ready or not self._readiness) if self.started else False
        self.unhealthy: str | None = None
        self.message = ""
        self._began = started_at
        for kind, probe in (("startup", self._startup), ("readiness", self._readiness), ("liveness", container.get("livenessProbe"))):
            if probe and not (kind == "startup" and self.started):
                threading.Thread(target=self._watch, args=(kind, probe), name=f"{kind} {container['name']}", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self, kind: str, probe: Object) -> None:
        initial = {"startup": None, "readiness": self.ready, "liveness": True}[kind]
        threshold = Threshold(probe, initial)
        self._stop.wait(max(0.0, self._began + float(probe.get("initialDelaySeconds") or 0) - time.time()))
        period = float(probe.get("periodSeconds") or 10)
        while not self._stop.is_set():
            if kind == "startup" or self.started:
                problem = check(probe, self._target)
                if self._stop.is_set():
                    return
                if self._judge(kind, threshold.record(success=problem is None), problem):
                    return
            # The kubelet looks at readiness at once when the startup probe succeeds; waiting a whole period would cost
            # the first token as much.
            self._stop.wait(period if self.started or kind == "startup" else min(period, 0.2))

    def _judge(self, kind: str, verdict: bool | None, problem: str | None) -> bool:
        """Takes a verdict over; True where this probe has said all it has to say."""
        if problem is not None:
            self.message = f"{kind} probe failed: {problem}"
        if kind == "readiness":
            self.ready = bool(verdict)
            return False
        if verdict is False:
            self.unhealthy = f"{kind} probe failed: {problem}"
            self.ready = False
            return True
        if kind == "startup" and verdict:
            self.ready = not self._readiness
            self.started = True
            return True
        return False


def run_in(argv: list[str], environment: Mapping[str, str], cwd: str, timeout: float) -> int:
    """Runs a command beside a container, with its environment. Returns its exit code; raises subprocess.TimeoutExpired."""
    process = subprocess.Popen(
        argv, env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        processes.kill_group(process.pid)
        process.wait()
        raise
