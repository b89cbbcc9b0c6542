"""What the offline plugins share: serving one engine on loopback, writing to its log, and ending with it."""

import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, cast

import grpc
from google.protobuf import any_pb2, struct_pb2

from pulumi_offline.differences import Change
from pulumi_offline.stubs import engine_pb2, engine_pb2_grpc, provider_pb2, status_pb2

# The engine sends whole states; its own limit is 400 MB.
GRPC_OPTIONS = [("grpc.max_receive_message_length", 400 << 20), ("grpc.max_send_message_length", 400 << 20)]

# A resource that waits for readiness holds its worker for minutes. Threads are started only when needed.
WORKERS = 256

DEBUG, INFO, WARNING, ERROR = 0, 1, 2, 3


_KINDS: dict[tuple[str, bool], Any] = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


class PluginError(Exception):
    """What a plugin tells the engine and so the user. The message says what failed and, where known, what helps."""


class PartialError(PluginError):
    """The object exists and must be recorded, but the operation did not finish: it is not ready, or not gone."""

    def __init__(self, message: str, resource_id: str, state: struct_pb2.Struct, inputs: struct_pb2.Struct | None, reasons: list[str]) -> None:
        super().__init__(message)
        self.detail = provider_pb2.ErrorResourceInitFailed(id=resource_id, properties=state, reasons=[message, *reasons], inputs=inputs)


class Engine:
    """The engine's log. Messages with a urn show beside that resource."""

    def __init__(self, address: str) -> None:
        self._stub = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address, options=GRPC_OPTIONS))

    def log(self, severity: int, message: str, urn: str = "", *, ephemeral: bool = False, stream: int = 0) -> None:
        request = engine_pb2.LogRequest(severity=cast(Any, severity), message=message, urn=urn, ephemeral=ephemeral, streamId=stream)
        try:
            self._stub.Log(request, timeout=10)
        except grpc.RpcError:
            # The engine is going away. What we did for it matters more than this line.
            return

    def status(self, message: str, urn: str) -> None:
        """Progress: shown while the resource is worked on, gone afterwards."""
        self.log(INFO, message, urn, ephemeral=True)


def property_diff(change: Change) -> Any:
    return provider_pb2.PropertyDiff(kind=_KINDS[change.kind, change.replace], inputDiff=change.kind == "delete")


def rpc(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turns exceptions of a service method into gRPC errors that the engine prints as they stand."""

    @functools.wraps(method)
    def handler(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except PartialError as error:
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
            detail = any_pb2.Any()
            detail.Pack(error.detail)
            status.details.append(detail)
            # Where the engine looks for the state of a resource that exists but is not ready.
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except PluginError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:  # noqa: BLE001  a plugin that dies takes the whole update with it
            traceback.print_exc(file=sys.stderr)
            # Only the type: the text of an unforeseen exception may quote a property, and so a secret.
            where = traceback.extract_tb(error.__traceback__)[-1]
            context.abort(grpc.StatusCode.INTERNAL, f"offline plugin: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}")

    return handler


def serve(register: Callable[[grpc.Server], None], cancel: Callable[[], None]) -> NoReturn:
    """Serves on a free loopback port, prints it as the engine expects, and ends when the engine ends or asks to.

    `cancel` must make running operations return soon; the process waits 3 s for them, the engine kills after 5.
    """
    parent = os.getppid()
    server = grpc.server(ThreadPoolExecutor(WORKERS), options=GRPC_OPTIONS)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    server.start()
    print(port, flush=True)
    # Polled, because PR_SET_PDEATHSIG fires when the engine's *thread* that started us ends.
    while not stop.wait(0.5):
        if os.getppid() != parent:
            break
    cancel()
    server.stop(3).wait(3)
    # Workers in a blocked call would keep the interpreter from ending.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
