"""API servers that hold the pinned CRDs."""

from collections.abc import Iterator
from typing import Any

import pytest

from local import karmada, manifests
from tests.conftest import ApiServer, run_api_server
from toolchain import tools


def karmada_crds() -> Iterator[dict[str, Any]]:
    """Karmada's CRDs without conversion: no webhook runs here, and only the stored versions are written."""
    for path in sorted((tools.share("karmada") / "charts/karmada/_crds/bases").rglob("*.yaml")):
        yield from manifests.read(path)


@pytest.fixture(scope="session")
def members_and_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One API server with the kinds of both: KServe's full schemas, where the hub itself has the minimal ones."""
    with run_api_server(tmp_path_factory.mktemp("members-and-hub")) as server:
        _add_kinds(server)
        yield server


def _add_kinds(api_server: ApiServer) -> None:
    manifests.apply_crds(api_server.kube, [*karmada_crds(), *karmada.kserve_crds(minimal=False), *karmada.istio_crds()])
    for name in ("models", "istio-ingress"):
        manifests.apply_all(api_server.kube, [manifests.namespace(name)])
