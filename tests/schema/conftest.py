"""API servers that hold the pinned CRDs."""

from collections.abc import Iterator
from typing import Any

import pytest

from local import karmada, manifests
from tests.conftest import ApiServer
from toolchain import tools


def karmada_crds() -> Iterator[dict[str, Any]]:
    """Karmada's CRDs without conversion: no webhook runs here, and only the stored versions are written."""
    for path in sorted((tools.share("karmada") / "charts/karmada/_crds/bases").rglob("*.yaml")):
        yield from manifests.read(path)


@pytest.fixture(scope="module")
def members_and_hub(api_server: ApiServer) -> ApiServer:
    """One API server with the kinds of both: KServe's full schemas, where the hub itself has the minimal ones."""
    manifests.apply_crds(api_server.kube, [*karmada_crds(), *karmada.kserve_crds(minimal=False), *karmada.istio_crds()])
    for name in ("models", "istio-ingress"):
        manifests.apply_all(api_server.kube, [manifests.namespace(name)])
    return api_server
