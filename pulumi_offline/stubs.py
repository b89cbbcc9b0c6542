"""The engine's gRPC messages, taken from the Pulumi SDK without loading the SDK.

`import pulumi` costs 0.4 s and the engine starts one plugin process per provider and operation, so a fleet of a few
clusters would spend seconds on it. The generated stubs need nothing of the SDK but its folders, which two empty
packages give them. Only plugin processes may import this module: a program that wants the real SDK afterwards, in the
same process, would find these shells.
"""

import importlib.util
import sys
import types
from pathlib import Path


def _shells() -> None:
    if "pulumi" in sys.modules:
        return
    spec = importlib.util.find_spec("pulumi")
    if spec is None or spec.origin is None:
        raise SystemExit(f"the Pulumi SDK is not installed for `{sys.executable}`\nhint: run `make up`, which sets up the environment")
    root = Path(spec.origin).parent
    for name, folder in (("pulumi", root), ("pulumi.runtime", root / "runtime"), ("pulumi.runtime.proto", root / "runtime/proto")):
        shell = types.ModuleType(name)
        shell.__path__ = [str(folder)]
        sys.modules[name] = shell


_shells()

from pulumi.runtime.proto import (  # noqa: E402  the shells have to stand first
    analyzer_pb2,
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

__all__ = [
    "analyzer_pb2",
    "engine_pb2",
    "engine_pb2_grpc",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "status_pb2",
]
