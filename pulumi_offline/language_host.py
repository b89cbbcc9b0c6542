"""The offline `pulumi-language-python`: runs Python programs and policy packs for engine 3.260.

Stands in for the official language host where it cannot be had; the last one that builds from the Go module proxy
(3.78) knows neither the `virtualenv` option nor policy packs of today. Covered: programs, policy packs, plugins with a
`__main__.py`, the option `virtualenv`, listing dependencies. Refused by name: other toolchains than pip and uv, type
checkers, the debugger, packaging and code generation. Dependencies are not installed; `make up` does that.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2, json_format

from pulumi_offline import LANGUAGE_HOST_VERSION as VERSION
from pulumi_offline.plugin import GRPC_OPTIONS, PluginError, rpc, serve
from pulumi_offline.stubs import analyzer_pb2, language_pb2, language_pb2_grpc, plugin_pb2

PROGRAM = Path(__file__).with_name("program.py")
EXIT_SHOWN = 32

# Run in the project's environment. Prints one line of JSON: every distribution, with its pulumi-plugin.json if any.
_LIST_PACKAGES = """
import importlib.metadata, importlib.util, json, os
found = {}
for dist in importlib.metadata.distributions():
    name = (dist.metadata["Name"] or "").lower().replace("_", "-")
    if not name or name in found:
        continue
    entry = found[name] = {"name": name, "version": dist.version}
    if name.startswith("pulumi"):
        try:
            spec = importlib.util.find_spec(name.replace("-", "_"))
        except (ImportError, ValueError):
            continue
        for place in (spec and spec.submodule_search_locations) or []:
            path = os.path.join(place, "pulumi-plugin.json")
            if os.path.isfile(path):
                entry["plugin"] = json.load(open(path))
print(json.dumps(sorted(found.values(), key=lambda entry: entry["name"])))
"""


@dataclass(frozen=True)
class Environment:
    """The Python that runs a program, as its Pulumi.yaml or PulumiPolicy.yaml chooses it."""

    python: str
    variables: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, info: Any) -> "Environment":
        """Raises PluginError for an option that is not covered or a virtual environment that does not exist."""
        options: dict[str, Any] = json_format.MessageToDict(info.options)
        for option in options.keys() - {"virtualenv", "toolchain"}:
            raise PluginError(f"Pulumi.yaml: runtime.options.{option}: is not covered by the offline language host")
        if options.get("toolchain", "pip") not in ("pip", "uv"):
            raise PluginError(f"Pulumi.yaml: runtime.options.toolchain: is not covered by the offline language host, got: `{options['toolchain']}`")
        chosen = options.get("virtualenv")
        if not chosen:
            return cls(sys.executable, dict(os.environ))
        if not isinstance(chosen, str):
            raise PluginError(f"Pulumi.yaml: runtime.options.virtualenv: must be a path, got: `{chosen}`")
        root = _virtualenv(Path(info.root_directory), Path(chosen).expanduser())
        python = root / "bin" / "python"
        if not python.exists():
            raise PluginError(f"Pulumi.yaml: runtime.options.virtualenv: holds no bin/python: `{root}`\nhint: make it with `python -m venv {root}`")
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"}
        variables |= {"VIRTUAL_ENV": str(root), "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
        return cls(str(python), variables)

    def packages(self) -> list[dict[str, Any]]:
        try:
            done = subprocess.run([self.python, "-c", _LIST_PACKAGES], env=self.variables, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise PluginError(f"the packages of `{self.python}` cannot be listed: {error}") from None
        return json.loads(done.stdout)


def _virtualenv(root: Path, chosen: Path) -> Path:
    """Relative to the project, or else to a folder above it, as the official host looks for it in a workspace."""
    if chosen.is_absolute():
        return chosen
    for folder in (root, *root.parents):
        if (folder / chosen).is_dir():
            return folder / chosen
        if (folder / ".git").exists():
            break
    return root / chosen


class Child:
    """A process of ours and all that it starts, ended together."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: str | None, *, piped: bool) -> None:
        stream = subprocess.PIPE if piped else None
        # Its own session: an interrupt from the terminal reaches it through the engine's Cancel, in order.
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder or None, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )

    def end(self) -> None:
        """Asks by SIGINT, then kills after 5 s. Returns at once."""
        if self.process.poll() is None:
            self._signal(signal.SIGINT)
            threading.Timer(5, self.kill).start()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The LanguageRuntime service of one engine."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._children: set[Child] = set()
        self._lock = threading.Lock()

    def cancel(self) -> None:
        with self._lock:
            children = list(self._children)
        for child in children:
            child.end()

    def kill(self) -> None:
        with self._lock:
            children = list(self._children)
        for child in children:
            child.kill()

    @contextlib.contextmanager
    def _child(self, command: list[str], environment: dict[str, str], folder: str | None, context: Any, *, piped: bool) -> Generator[Child]:
        try:
            child = Child(command, environment, folder, piped=piped)
        except OSError as error:
            raise PluginError(f"cannot be started: {error.strerror}: `{command[0]}`") from None
        with self._lock:
            self._children.add(child)
        # The engine drops the call when it is done with the program, or dies.
        context.add_callback(child.end)
        try:
            yield child
        finally:
            child.kill()
            with self._lock:
                self._children.discard(child)

    @rpc
    def Handshake(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802  names of the service
        self._engine = request.engine_address or self._engine
        return language_pb2.LanguageHandshakeResponse()

    @rpc
    def GetPluginInfo(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=VERSION)

    @rpc
    def Cancel(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.cancel()
        return empty_pb2.Empty()

    @rpc
    def GetRequiredPlugins(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Superseded by GetRequiredPackages, which this engine asks."""
        return language_pb2.GetRequiredPluginsResponse()

    @rpc
    def GetRequiredPackages(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        packages: list[Any] = []
        for entry in Environment.of(request.info).packages():
            described: dict[str, Any] = entry.get("plugin") or {}
            # pulumi-policy has no plugin and, in older releases, does not say so.
            if not described.get("resource", False) or entry["name"] == "pulumi-policy":
                continue
            version = str(described.get("version") or entry["version"])
            packages.append(
                plugin_pb2.PackageDependency(
                    name=described.get("name") or entry["name"].removeprefix("pulumi-"),
                    kind="resource",
                    version=version if version.startswith("v") else f"v{version}",
                    server=described.get("server") or "",
                )
            )
        return language_pb2.GetRequiredPackagesResponse(packages=packages)

    @rpc
    def GetProgramDependencies(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Every installed distribution; the direct ones are not told apart."""
        found = Environment.of(request.info).packages()
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=entry["name"], version=entry["version"]) for entry in found]
        )

    @rpc
    def About(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        environment = Environment.of(request.info) if request.HasField("info") else Environment(sys.executable, dict(os.environ))
        done = subprocess.run([environment.python, "--version"], capture_output=True, text=True, check=False)
        metadata = {"languageHost": "offline"}
        return language_pb2.AboutResponse(executable=environment.python, version=done.stdout.strip().removeprefix("Python "), metadata=metadata)

    @rpc
    def RuntimeOptionsPrompts(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return language_pb2.RuntimeOptionsResponse()

    @rpc
    def Run(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        environment = Environment.of(request.info)
        if request.attach_debugger:
            raise PluginError("attaching a debugger is not covered by the offline language host")
        options = {
            "monitor": request.monitor_address,
            "engine": self._engine,
            "project": request.project,
            "root_directory": request.info.root_directory,
            "stack": request.stack,
            "pwd": request.pwd,
            "dry_run": str(request.dryRun).lower(),
            "parallel": str(request.parallel),
            "organization": request.organization,
        }
        flags = [text for key, value in options.items() if value for text in (f"--{key}", value)]
        command = [environment.python, "-u", str(PROGRAM), *flags, request.info.entry_point or ".", *request.args]
        variables = {
            **environment.variables,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        with self._child(command, variables, request.pwd, context, piped=False) as child:
            code = child.process.wait()
        if code == EXIT_SHOWN:
            return language_pb2.RunResponse(bail=True)
        if code < 0:
            return language_pb2.RunResponse(error=f"program was ended by {signal.Signals(-code).name}")
        return language_pb2.RunResponse(error=f"program exited with non-zero exit code: {code}" if code else "")

    def RunPlugin(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        """A policy pack (kind `analyzer`), or a plugin that is a folder with a `__main__.py`. Streams its output."""
        try:
            yield from self._run_plugin(request, context)
        except PluginError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    def _run_plugin(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        environment = Environment.of(request.info)
        folder: str = request.info.program_directory
        # The engine sends its own environment along; the virtual environment has to stay first on PATH.
        variables = {**dict(item.split("=", 1) for item in request.env if "=" in item), **_activation(environment)} or environment.variables
        if not (Path(folder) / "__main__.py").is_file():
            raise PluginError(f"plugin has no `__main__.py`: `{folder}`")
        outputs: queue.Queue[Any] = queue.Queue()
        if request.kind != "analyzer":
            command = [environment.python, folder, *request.args]
            with self._child(command, variables, request.pwd, context, piped=True) as child:
                threads = _pumps(child, outputs)
                yield from _drained(child, threads, outputs)
            return
        pack = PolicyPack()
        yield language_pb2.RunPluginResponse(stdout=f"{pack.port}\n".encode())
        try:
            settings = pack.settings(context)
            if settings is not None:
                variables |= {
                    "PULUMI_PROJECT": settings.project,
                    "PULUMI_STACK": settings.stack,
                    "PULUMI_DRY_RUN": str(settings.dry_run).lower(),
                    "PULUMI_CONFIG": json.dumps(dict(settings.config)),
                    **({"PULUMI_ORGANIZATION": settings.organization} if settings.organization else {}),
                }
            # Packs read files beside them, so they run in their own folder.
            command = [environment.python, "-u", "-m", "pulumi.policy", *request.args, folder]
            with self._child(command, variables, folder, context, piped=True) as child:
                threads = _pumps(child, outputs, pack.attach)
                try:
                    yield from _drained(child, threads, outputs)
                finally:
                    pack.failed("the policy pack ended")
        finally:
            pack.stop()

    def InstallDependencies(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002, N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "the offline language host installs no dependencies\nhint: run `make up`, or pip in the environment")

    def _uncovered(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG002  the service's signature
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not covered by the offline language host\nhint: install the official Pulumi CLI for this command")

    Template = GenerateProgram = GenerateProject = GeneratePackage = Pack = Link = _uncovered


def _activation(environment: Environment) -> dict[str, str]:
    return {key: environment.variables[key] for key in ("VIRTUAL_ENV", "PATH") if key in environment.variables}


def _pumps(child: Child, outputs: "queue.Queue[Any]", first_line: Callable[[int], None] | None = None) -> list[threading.Thread]:
    """Threads that move a child's output into `outputs`. `first_line` takes the port that a policy pack prints first."""

    def stdout() -> None:
        assert child.process.stdout is not None  # piped
        if first_line:
            line = child.process.stdout.readline()
            if line.strip().isdigit():
                first_line(int(line))
            elif line:
                outputs.put(language_pb2.RunPluginResponse(stdout=line))
        for chunk in iter(lambda: child.process.stdout.read1(65536), b""):  # type: ignore[union-attr]
            outputs.put(language_pb2.RunPluginResponse(stdout=chunk))

    def stderr() -> None:
        assert child.process.stderr is not None  # piped
        for chunk in iter(lambda: child.process.stderr.read1(65536), b""):  # type: ignore[union-attr]
            outputs.put(language_pb2.RunPluginResponse(stderr=chunk))

    threads = [threading.Thread(target=target, daemon=True) for target in (stdout, stderr)]
    for thread in threads:
        thread.start()
    return threads


def _drained(child: Child, threads: list[threading.Thread], outputs: "queue.Queue[Any]") -> Iterator[Any]:
    """Output as it comes, the exit code at the end."""

    def watch() -> None:
        for thread in threads:
            thread.join()
        outputs.put(child.process.wait())

    threading.Thread(target=watch, daemon=True).start()
    while True:
        item = outputs.get()
        if isinstance(item, int):
            yield language_pb2.RunPluginResponse(exitcode=item)
            return
        yield item


class PolicyPack:
    """Stands between the engine and a policy pack until the pack can start.

    The pack reads project, stack and configuration from its environment, but the engine tells them in a call, and only
    to an analyzer that already answers. So the host answers first, then starts the pack and passes every call on.
    """

    _SERVICE = "/pulumirpc.Analyzer/"
    # A pack is imported before it answers; importing a large one on a busy machine takes seconds.
    _START_TIMEOUT_S = 120

    def __init__(self) -> None:
        self._settings: Any = None
        self._asked = threading.Event()
        self._started = threading.Event()
        self._failure = ""
        self._channel: grpc.Channel | None = None
        self._server = grpc.server(ThreadPoolExecutor(64), options=GRPC_OPTIONS)
        self._server.add_generic_rpc_handlers((_Forwarder(self._call),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def settings(self, context: grpc.ServicerContext) -> Any:
        """What ConfigureStack said, None where the engine has no stack. Raises PluginError when the engine is gone."""
        while not self._asked.wait(0.2):
            if not context.is_active():
                raise PluginError("the engine went away before it configured the policy pack")
        return self._settings

    def attach(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=GRPC_OPTIONS)
        self._started.set()

    def failed(self, why: str) -> None:
        self._failure = why
        self._started.set()

    def stop(self) -> None:
        self._server.stop(None)

    def _call(self, method: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        name = method.removeprefix(self._SERVICE)
        if name == "Handshake":
            return analyzer_pb2.AnalyzerHandshakeResponse().SerializeToString()
        if name == "ConfigureStack":
            self._settings = analyzer_pb2.AnalyzerStackConfigureRequest.FromString(body)
        # Any other call first means that there is no stack, as for `pulumi policy publish`.
        self._asked.set()
        if not self._started.wait(self._START_TIMEOUT_S) or self._channel is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, self._failure or f"the policy pack did not start within {self._START_TIMEOUT_S} s")
            raise AssertionError("abort raises")
        try:
            return self._channel.unary_unary(method)(body)
        except grpc.RpcError as error:
            if name == "ConfigureStack" and error.code() == grpc.StatusCode.UNIMPLEMENTED:
                return analyzer_pb2.AnalyzerStackConfigureResponse().SerializeToString()
            context.abort(error.code(), error.details() or "the policy pack failed")
            raise AssertionError("abort raises") from None


class _Forwarder(grpc.GenericRpcHandler):
    def __init__(self, call: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._call = call

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method: str = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._call(method, body, context))


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="Offline stand-in for pulumi-language-python; started by the Pulumi engine.")
    parser.add_argument("-version", "--version", action="version", version=VERSION)
    parser.add_argument("engine", nargs="?", default="", help="address of the engine")
    arguments, _ = parser.parse_known_args()
    host = LanguageHost(arguments.engine)

    def end() -> None:
        # The engine kills us 5 s after it asked; children must be gone by then.
        host.cancel()
        threading.Timer(2, host.kill).start()

    register: Callable[[grpc.Server], None] = lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)  # noqa: E731
    serve(register, end)


if __name__ == "__main__":
    main()
