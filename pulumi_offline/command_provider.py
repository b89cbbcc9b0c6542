"""The offline `pulumi-resource-command`: `command:local:Command` and the function `command:local:run`.

Stands in for the official plugin, with its semantics (pulumi-command 1.2.1): create on creation, update or else create
on a change, delete on deletion; changed triggers replace; the resource option customTimeouts ends a command that takes
longer. Not covered, and refused by name: everything remote, and the collection of files by assetPaths and archivePaths.
"""

import argparse
import codecs
import contextlib
import functools
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

import grpc
from google.protobuf import empty_pb2

from pulumi_offline import COMMAND_VERSION as VERSION
from pulumi_offline import wire
from pulumi_offline.differences import changes
from pulumi_offline.plugin import Engine, PluginError, property_diff, rpc, serve
from pulumi_offline.stubs import plugin_pb2, provider_pb2, provider_pb2_grpc

_COMMAND = "command:local:Command"
_RUN = "command:local:run"
_STRINGS = ("create", "update", "delete", "stdin", "dir", "logging", "command")
_LOGGING = {"stdout": (True, False), "stderr": (False, True), "stdoutAndStderr": (True, True), "none": (False, False)}
_REFUSED = ("assetPaths", "archivePaths")

# An error quotes this much of the output; the whole of it went to the log line by line.
_TAIL_LINES = 40

_CHANGES = provider_pb2.DiffResponse.DiffChanges


class Commands:
    """Runs commands so that none outlives the plugin."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Ends what runs: SIGTERM to each process group, SIGKILL two seconds later."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for process in running:
            _end(process)

    def run(self, command: str, inputs: wire.Properties, previous: wire.Properties, urn: str, timeout_s: float = 0) -> tuple[str, str]:
        """Standard output and error of one command. Raises PluginError for a non-zero exit, with the end of both.

        One that takes longer than `timeout_s` is ended with all that it started, as in `cancel`. 0: it may take for ever.
        """
        interpreter = inputs.get("interpreter") or ["/bin/sh", "-c"]
        environment = {**os.environ, **{key: _text(value) for key, value in (inputs.get("environment") or {}).items()}}
        if inputs.get("addPreviousOutputInEnv", True):
            for key in ("stdout", "stderr"):
                if previous.get(key):
                    environment[f"PULUMI_COMMAND_{key.upper()}"] = previous[key]
        try:
            with self._lock:
                if self._cancelled:
                    raise PluginError(f"cancelled before it started: `{_shown(command)}`")
                process = subprocess.Popen(
                    [*interpreter, command],
                    env=environment,
                    cwd=inputs.get("dir"),
                    stdin=subprocess.PIPE if inputs.get("stdin") else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                self._running.add(process)
        except OSError as error:
            what = error.filename if isinstance(error.filename, str) else inputs.get("dir") or interpreter[0]
            raise PluginError(f"cannot be run: {error.strerror}: `{what}`") from None
        try:
            return self._collect(process, command, inputs, urn, timeout_s)
        finally:
            with self._lock:
                self._running.discard(process)

    def _collect(self, process: subprocess.Popen[bytes], command: str, inputs: wire.Properties, urn: str, timeout_s: float) -> tuple[str, str]:
        assert process.stdout is not None  # piped, as below
        assert process.stderr is not None
        tail: deque[str] = deque(maxlen=_TAIL_LINES)

        def line(text: str, *, show: bool) -> None:
            tail.append(text)
            if show:
                self._engine.status(text, urn)

        streams = zip((process.stdout, process.stderr), _LOGGING[inputs.get("logging") or "stdoutAndStderr"], strict=True)
        readers = [_Reader(stream, functools.partial(line, show=show)) for stream, show in streams]
        late = threading.Event()

        def out_of_time() -> None:
            late.set()
            _end(process)

        # Before stdin is written, which a command that reads nothing can hold up as well.
        timer = threading.Timer(timeout_s, out_of_time)
        if timeout_s:
            timer.start()
        if process.stdin:
            # A command that does not read its input closes the pipe.
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(str(inputs["stdin"]).encode())
        code = process.wait()
        timer.cancel()
        # Whoever inherited the pipes may keep them open for ever: a daemon that the command left running.
        outputs = [reader.result(5.0) for reader in readers]
        if late.is_set():
            hint = "hint: the resource option custom_timeouts sets the limit"
            raise PluginError("\n".join([f"command did not end within {timeout_s:g} s and was ended: `{_shown(command)}`", *tail, hint]))
        if code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
            raise PluginError("\n".join([f"command {how}: `{_shown(command)}`", *tail]))
        return outputs[0].removesuffix("\n"), outputs[1].removesuffix("\n")


class _Reader(threading.Thread):
    """Collects one stream and hands out its lines as they come."""

    def __init__(self, stream: IO[bytes], line: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._stream, self._line, self._parts = stream, line, list[str]()
        self.start()

    def run(self) -> None:
        decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
        for text in (decoder.decode(chunk) for chunk in self._chunks()):
            self._parts.append(text)
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                self._line(line)
        if rest:
            self._line(rest)

    def _chunks(self) -> Iterator[bytes]:
        while chunk := os.read(self._stream.fileno(), 65536):
            yield chunk

    def result(self, timeout_s: float) -> str:
        self.join(timeout_s)
        return "".join(self._parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to its process group, SIGKILL two seconds later. Returns at once."""
    _signal(process, signal.SIGTERM)
    threading.Timer(2.0, _signal, (process, signal.SIGKILL)).start()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(command: str) -> str:
    return command if len(command) <= 200 else command[:200] + "…"


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The ResourceProvider service."""

    def __init__(self, engine: Engine) -> None:
        self._commands = Commands(engine)

    def cancel(self) -> None:
        self._commands.cancel()

    @rpc
    def Handshake(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802  names of the service
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    @rpc
    def GetPluginInfo(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=VERSION)

    @rpc
    def GetMapping(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.GetMappingResponse()

    @rpc
    def Cancel(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.cancel()
        return empty_pb2.Empty()

    @rpc
    def CheckConfig(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.CheckResponse(inputs=request.news)

    @rpc
    def DiffConfig(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.DiffResponse(changes=_CHANGES.DIFF_NONE)

    @rpc
    def Configure(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    @rpc
    def Check(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        token = request.urn.split("::")[2].rpartition("$")[2]
        if token != _COMMAND:
            raise PluginError(f"resource type is not covered by the offline command plugin: `{token}`\nhint: use {_COMMAND}, or install the official plugin")
        failures = [provider_pb2.CheckFailure(property=key, reason=reason) for key, reason in _problems(wire.plain(_loaded(request.news)))]
        return provider_pb2.CheckResponse(inputs=request.news, failures=failures)

    @rpc
    def Diff(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        old, new = wire.plain(_loaded(request.old_inputs)), wire.plain(_loaded(request.news))
        found = changes(old, new, replace_on=["triggers"], ignore=request.ignoreChanges)
        return provider_pb2.DiffResponse(
            changes=_CHANGES.DIFF_SOME if found else _CHANGES.DIFF_NONE,
            replaces=[change.property_path for change in found if change.replace],
            detailedDiff={change.property_path: property_diff(change) for change in found},
            hasDetailedDiff=True,
        )

    @rpc
    def Create(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        inputs = _loaded(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=wire.dump(_state(inputs, wire.UNKNOWN, wire.UNKNOWN)))
        stdout, stderr = self._maybe_run(wire.plain(inputs), "create", {}, request)
        name = request.urn.rpartition("::")[2]
        return provider_pb2.CreateResponse(id=name + os.urandom(4).hex(), properties=wire.dump(_state(inputs, stdout, stderr)))

    @rpc
    def Update(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        inputs = _loaded(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=wire.dump(_state(inputs, wire.UNKNOWN, wire.UNKNOWN)))
        news, olds = wire.plain(inputs), wire.plain(_loaded(request.olds))
        stdout, stderr = self._maybe_run(news, "update" if news.get("update") is not None else "create", olds, request)
        return provider_pb2.UpdateResponse(properties=wire.dump(_state(inputs, stdout, stderr)))

    @rpc
    def Delete(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        state = wire.plain(_loaded(request.properties))
        self._maybe_run(state, "delete", state, request)
        return empty_pb2.Empty()

    @rpc
    def Read(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        """A command cannot be asked what it did: a refresh keeps what is recorded."""
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    @rpc
    def Invoke(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802
        if request.tok != _RUN:
            raise PluginError(f"function is not covered by the offline command plugin: `{request.tok}`\nhint: only {_RUN} is")
        arguments = _loaded(request.args)
        inputs = wire.plain(arguments)
        problems = _problems(inputs) or ([] if inputs.get("command") else [("command", "must be given")])
        if problems:
            failures = [provider_pb2.CheckFailure(property=key, reason=reason) for key, reason in problems]
            return provider_pb2.InvokeResponse(failures=failures)
        stdout, stderr = self._commands.run(inputs["command"], inputs, {}, "")
        # `return` is a keyword in Python, so the field is reached by name.
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(wire.dump(_state(arguments, stdout, stderr)))
        return response

    def _maybe_run(self, inputs: wire.Properties, which: str, previous: wire.Properties, request: Any) -> tuple[str, str]:
        """Without a command nothing runs and the outputs stay as they are."""
        if inputs.get(which) is None:
            return previous.get("stdout", ""), previous.get("stderr", "")
        return self._commands.run(inputs[which], inputs, previous, request.urn, request.timeout)


def _loaded(struct: Any) -> wire.Properties:
    try:
        return wire.load(struct)
    except wire.WireError as error:
        raise PluginError(str(error)) from None


def _state(inputs: wire.Properties, stdout: Any, stderr: Any) -> wire.Properties:
    """Outputs: the inputs, and what was printed, secret if any input is."""
    printed = {"stdout": stdout, "stderr": stderr}
    if wire.has_secret(inputs):
        printed = {key: wire.Secret(value) for key, value in printed.items()}
    return {**inputs, **printed}


def _problems(inputs: wire.Properties) -> list[tuple[str, str]]:
    found = [(key, f"`{key}` is not covered by the offline command plugin") for key in _REFUSED if inputs.get(key)]
    found += [(key, "must be a text") for key in _STRINGS if not isinstance(inputs.get(key), str | None | wire.Unknown)]
    logging = inputs.get("logging")
    if isinstance(logging, str) and logging not in _LOGGING:
        found.append(("logging", f"must be one of {', '.join(_LOGGING)}, got: `{logging}`"))
    return found


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description="Offline stand-in for pulumi-resource-command; started by the Pulumi engine.")
    parser.add_argument("engine", help="address of the engine")
    arguments, _ = parser.parse_known_args()
    provider = Provider(Engine(arguments.engine))
    register: Callable[[grpc.Server], None] = lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)  # noqa: E731
    serve(register, provider.cancel)


if __name__ == "__main__":
    main()
