"""What a Karmada that somebody else installed is told about kinds of KServe and Istio, which do not run there."""

import json
import shutil
import subprocess

import httpx
import pytest

from federation import verification
from kube.client import Kube
from kube.kubeconfig import Connection
from operations import existing_clusters_document
from specs import propagation
from specs.control_planes import karmada

KINDS = [str(each) for each in propagation.KINDS]
CUSTOM = [each for each in propagation.KINDS if each.served_by != "Kubernetes"]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Kube:
    """An API server that serves Kubernetes' own kinds."""
    served = [each for each in propagation.KINDS if each not in CUSTOM]

    def answer(request: httpx.Request) -> httpx.Response:
        version = request.url.path.removeprefix("/apis/").removeprefix("/api/")
        found = [{"name": each.resource, "kind": each.kind, "namespaced": True} for each in served if each.api_version == version]
        return httpx.Response(200 if found else 404, json={"resources": found, "message": "not found"})

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=httpx.MockTransport(answer), base_url=options["base_url"]))
    return Kube(Connection("http://hub", None, {}))


def test_each_missing_kind_of_a_hub_names_the_command_that_copies_its_crd(plain: Kube) -> None:
    found = verification.kind_findings(plain, KINDS, on_hub=True)
    assert [each.hint for each in found] == [karmada.copy_crds(f"{each.resource}.{each.group}") for each in CUSTOM]
    # KServe and Istio themselves must not be installed on the hub: their webhooks have no server there.
    assert not any("helm" in each.hint or "chart" in each.hint for each in found)
    assert all("helm" in each.hint or "chart" in each.hint for each in verification.kind_findings(plain, KINDS))


def test_the_page_copies_the_crds_of_all_propagated_kinds() -> None:
    text = existing_clusters_document.tables()
    assert len(CUSTOM) == len(karmada.propagated_crds())
    assert f"get crd {' '.join(karmada.propagated_crds())} -o json" in text


@pytest.mark.skipif(shutil.which("jq") is None, reason="a tool of the reader's, not of ours")
@pytest.mark.parametrize("several", [False, True])
def test_a_copied_crd_has_its_schema_and_neither_conversion_nor_what_the_server_wrote(several: bool) -> None:
    spec = {"group": "serving.kserve.io", "conversion": {"strategy": "Webhook", "webhook": {}}, "versions": [{"name": "v1beta1"}]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a", "uid": "b"}, "spec": spec, "status": {}}
    program = karmada.copy_crds("a").partition("jq '")[2].partition("' |")[0]
    given = {"kind": "List", "items": [crd]} if several else crd
    done = subprocess.run(["jq", program], input=json.dumps(given), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "a"},
        "spec": {**spec, "conversion": {"strategy": "None"}},
    }
