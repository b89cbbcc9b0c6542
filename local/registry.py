"""The image registry of a local region: CNCF distribution as a host process on loopback, with tiny-chat in it as a model artifact.

A region has its own, as it has its own storage: what kills another region, or the hub, takes no images from it. Stack files cannot know
its port, so they name it registry.fleet.internal; the node agent goes to its region's instead, as a container runtime goes to
a mirror that it is told of.
"""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

from core.files import write_atomically
from local.host_cluster import HostCluster
from local.units import HttpReady, Unit
from oci import image, reference, store, transfer
from oci.reference import Reference
from oci.registry import Registry
from toolchain import tools

Object = dict[str, Any]

UNIT = "registry"
# The name in stack files.
HOST = "registry.fleet.internal"
# Otherwise it looks for a collector of traces on this machine, again and again.
ENV = {"OTEL_TRACES_EXPORTER": "none"}
_START_S = 30.0
# Host in an image's name → where it is gone to. Written here, read by the node agent of the cluster.
_MIRRORS = "registries.json"
# Several pods of one model start together.
_PULLING = threading.Lock()


def unit(cluster: HostCluster) -> Unit:
    port = cluster.port(UNIT)
    return Unit(
        name=UNIT,
        argv=command(cluster.dir.resolve() / UNIT, port),
        env={**ENV, "GOGC": "50"},
        ready=HttpReady(url=f"http://127.0.0.1:{port}/v2/"),
    )


def command(folder: Path, port: int) -> list[str]:
    """What runs the registry on loopback; all that it keeps lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "version": "0.1",
        # Every layer of every pull would be a line.
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    # JSON is YAML.
    write_atomically(folder / "config.yml", json.dumps(settings, indent=1))
    return [str(tools.path("registry")), "serve", str(folder / "config.yml")]


def apply(cluster: HostCluster) -> None:
    """It runs, and the node agent knows where. Raises UnitError."""
    cluster.put_unit(unit(cluster))
    cluster.wait_ready(UNIT, _START_S)
    write_atomically(cluster.dir / _MIRRORS, json.dumps({HOST: f"127.0.0.1:{cluster.port(UNIT)}"}))


def put(cluster: HostCluster, folder: Path) -> str:
    """The model in `folder` is in the registry as models/<name of the folder>:latest; returns its digest. Raises FleetError."""
    artifact, _ = transfer.pack(folder)
    transfer.push(artifact, Reference(f"127.0.0.1:{cluster.port(UNIT)}", f"models/{folder.name}", "latest"))
    return artifact.digest


def delete(cluster: HostCluster) -> None:
    """No registry, and nothing of what it held."""
    cluster.remove_unit(UNIT)
    shutil.rmtree(cluster.dir / UNIT, ignore_errors=True)


def pulled(cluster_folder: Path, name: str) -> Path:
    """The file system of the image `name` as a folder, as far as it holds a model: /models. Pulled once per digest. Raises FleetError."""
    found = reference.parse(f"{reference.SCHEME}{name}")
    mirrors: dict[str, str] = {}
    if (cluster_folder / _MIRRORS).exists():
        mirrors = json.loads((cluster_folder / _MIRRORS).read_text())
    here = Reference(mirrors.get(found.host, found.host), found.repository, found.tag, found.digest)
    with _PULLING:
        digest = here.digest or _resolved(here)
        folder = cluster_folder / "image-volumes" / digest.replace(":", "-")
        if not folder.exists():
            transfer.pull(str(Reference(here.host, here.repository, digest=digest)), folder / image.MODELS)
        return folder


def _resolved(wanted: Reference) -> str:
    """The digest that a tag names now."""
    with Registry(wanted) as registry:
        return store.load(registry, wanted.wanted).root.blob.digest
