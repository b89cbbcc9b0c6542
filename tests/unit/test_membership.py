"""What joining declares, what counts as joined, and what an interruption leaves. Joining real clusters: tests/local/test_control_planes_real.py."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from federation import membership, rights
from federation.verification import VerificationError
from kube.client import Kube, Unauthorized, Unreachable
from specs import propagation
from tests.unit import fleets
from tests.unit.test_fleet import declare

SPEC = {
    "cluster": "us-east",
    "region": "us-east",
    "zone": "us-east-1",
    "provider": "local",
    "labels": {"tier": "prod"},
    "kinds": [str(each) for each in propagation.KINDS],
}
# Port 1 is reserved and refuses connections.
NOBODY = """apiVersion: v1
kind: Config
current-context: x
clusters: [{name: x, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: x, user: {token: secret-token}}]
contexts: [{name: x, context: {cluster: x, user: x}}]
"""


class Hub:
    """Answers as a hub that knows the given Cluster objects."""

    def __init__(self, *clusters: dict[str, Any]) -> None:
        self.clusters = list(clusters)

    def list(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        assert (api_version, kind) == (membership.CLUSTER_API, "Cluster")
        return self.clusters


def test_the_cluster_object_says_where_it_is() -> None:
    cluster = membership.cluster_object(SPEC, "https://127.0.0.1:20000", "uid")
    assert cluster["metadata"] == {"name": "us-east", "labels": {"tier": "prod"}}
    assert cluster["spec"] == {
        "syncMode": "Push",
        "id": "uid",
        "apiEndpoint": "https://127.0.0.1:20000",
        "secretRef": {"namespace": "karmada-cluster", "name": "us-east"},
        "impersonatorSecretRef": {"namespace": "karmada-cluster", "name": "us-east-impersonator"},
        "region": "us-east",
        "provider": "local",
        "zones": ["us-east-1"],
    }


def test_an_unknown_place_is_left_out_of_the_cluster_object() -> None:
    cluster = membership.cluster_object({"cluster": "a", "zone": "", "provider": ""}, "https://x", "uid")
    assert not {"region", "provider", "zones"} & set(cluster["spec"])


def test_a_member_grants_two_accounts_what_rights_says_and_makes_the_namespaces_of_the_fleet() -> None:
    objects = membership.member_objects("us-east")
    accounts = [item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"]
    assert accounts == ["karmada-impersonator", "karmada-us-east"]
    assert [item for item in objects if item["apiVersion"] == rights.RBAC_API] == rights.grants("us-east", membership.SYSTEM)
    made = [item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"]
    assert made == ["karmada-cluster", *propagation.NAMESPACES]


def test_kinds_that_karmada_has_not_seen_on_a_member_are_named() -> None:
    def reporting(kinds: Sequence[propagation.Kind]) -> dict[str, Any]:
        return {"status": {"apiEnablements": [{"groupVersion": each.api_version, "resources": [{"kind": each.kind}]} for each in kinds]}}

    assert membership.absent_kinds(reporting(propagation.KINDS), propagation.KINDS) == []
    without = [each for each in propagation.KINDS if each.kind != "AuthorizationPolicy"]
    assert [each.kind for each in membership.absent_kinds(reporting(without), propagation.KINDS)] == ["AuthorizationPolicy"]
    # Another version of a kind does not count.
    [gateway] = [each for each in propagation.KINDS if each.kind == "Gateway"]
    assert membership.absent_kinds(reporting([replace(gateway, api_version="networking.istio.io/v1beta1")]), [gateway]) == [gateway]
    assert membership.absent_kinds({}, [gateway]) == [gateway]


def test_the_same_cluster_under_two_names_is_refused() -> None:
    hub = cast(Kube, Hub({"metadata": {"name": "other"}, "spec": {"id": "uid"}}))
    with pytest.raises(ValueError, match="cluster `us-east`: is a member already, under the name: `other`"):
        membership.refuse_twin(hub, "us-east", "uid")
    membership.refuse_twin(hub, "other", "uid")


def test_a_hub_that_is_away_is_told_without_a_secret(capfd: pytest.CaptureFixture[str]) -> None:
    spec = {**SPEC, "hubKubeconfig": NOBODY, "memberKubeconfig": NOBODY}
    for call in (membership.join, membership.unjoin):
        with pytest.raises(Unreachable) as failure:
            call(spec)
        said = capfd.readouterr()
        assert "secret-token" not in str(failure.value) + said.out + said.err


def test_credentials_that_cannot_be_read_make_a_member_dead_not_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert membership.reach("apiVersion: v1\nkind: Config\n") is None
    assert membership.reach(None) is None
    assert "kubeconfig" in capfd.readouterr().err


# A whole join, against two API servers in memory


PLURALS = {
    "Namespace": "namespaces",
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Cluster": "clusters",
    "Work": "works",
    "SelfSubjectAccessReview": "selfsubjectaccessreviews",
}
EVERYWHERE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "Cluster")


class Cluster:
    """An API server as far as a join needs one. `before` sees each request, and may end it."""

    def __init__(self, name: str, kinds: Sequence[propagation.Kind] = (), member: "Cluster | None" = None) -> None:
        self.name = name
        self.member = member
        self.kinds = {("v1", kind): PLURALS[kind] for kind in ("Namespace", "Secret", "ServiceAccount")}
        self.kinds |= {(rights.RBAC_API, kind): PLURALS[kind] for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")}
        self.kinds |= {(each.api_version, each.kind): each.resource for each in kinds}
        self.kinds |= {("authorization.k8s.io/v1", "SelfSubjectAccessReview"): "selfsubjectaccessreviews"}
        if member is not None:
            self.kinds |= {(membership.CLUSTER_API, "Cluster"): "clusters", (membership.WORK_API, "Work"): "works"}
        self.objects: dict[str, dict[str, Any]] = {} if member else {"/api/v1/namespaces/kube-system": {"metadata": {"uid": "uid-of-kube-system"}}}
        self.requests: list[str] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        if (ended := self.before(request)) is not None:
            return ended
        version = path.removeprefix("/apis/").removeprefix("/api/")
        if served := [(kind, plural) for (known, kind), plural in self.kinds.items() if known == version]:
            return httpx.Response(200, json={"resources": [{"name": plural, "kind": kind, "namespaced": kind not in EVERYWHERE} for kind, plural in served]})
        if request.method == "POST":
            return httpx.Response(201, json={"status": {"allowed": True}})
        if request.method == "PATCH":
            body = json.loads(request.content)
            self.objects[path] = {**self.objects.get(path, {}), **body}
            return httpx.Response(200, json=self.seen(path))
        if request.method == "DELETE":
            return httpx.Response(200 if self.objects.pop(path, None) else 404, json={"message": "not found"})
        if path == "/version":
            return httpx.Response(200, json={})
        if path in self.objects:
            return httpx.Response(200, json=self.seen(path))
        if path.rsplit("/", 1)[-1] in PLURALS.values():
            return httpx.Response(200, json={"items": [self.seen(each) for each in self.objects if each.startswith(f"{path}/")]})
        return httpx.Response(404, json={"message": f"{path} not found"})

    def seen(self, path: str) -> dict[str, Any]:
        """With what controllers add: tokens, and the state of a cluster."""
        found = self.objects[path]
        if found.get("type") == "kubernetes.io/service-account-token":
            return {**found, "data": {"token": f"token-of-{found['metadata']['name']}", "ca.crt": "ca"}}
        if found.get("kind") == "Cluster" and self.member:
            apis = [{"groupVersion": version, "resources": [{"kind": kind}]} for version, kind in self.member.kinds]
            status = {"conditions": [{"type": "Ready", "status": "True"}], "apiEnablements": apis}
            return {**found, "metadata": {**found["metadata"], "uid": "uid-of-cluster"}, "status": status}
        return found

    @property
    def kubeconfig(self) -> str:
        return NOBODY.replace("https://127.0.0.1:1", f"http://{self.name}")


@pytest.fixture
def member() -> Cluster:
    return Cluster("member", propagation.KINDS)


@pytest.fixture
def hub(member: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster("hub", member=member)
    clusters = {each.name: each for each in (made, member)}
    transport = httpx.MockTransport(lambda request: clusters[request.url.host].answer(request))
    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=transport, base_url=options["base_url"], headers=options["headers"]))
    return made


def joined(hub: Cluster, member: Cluster, **more: Any) -> dict[str, Any]:
    return membership.join({**SPEC, "hubKubeconfig": hub.kubeconfig, "memberKubeconfig": member.kubeconfig, **more})


def dies(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def test_a_join_grants_on_the_member_and_declares_on_the_hub(hub: Cluster, member: Cluster) -> None:
    assert joined(hub, member) == {"id": "uid-of-kube-system"}
    assert hub.objects["/apis/cluster.karmada.io/v1alpha1/clusters/us-east"]["spec"]["apiEndpoint"] == "http://member"
    secret = hub.objects["/api/v1/namespaces/karmada-cluster/secrets/us-east"]
    assert secret["data"] == {"token": "token-of-karmada-us-east", "caBundle": "ca"}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-of-cluster"
    before = dict(hub.objects), dict(member.objects)
    joined(hub, member)
    assert (hub.objects, member.objects) == before


def test_a_join_goes_on_wherever_the_hub_or_the_member_died_during_the_last_one(hub: Cluster, member: Cluster) -> None:
    joined(hub, member)
    whole, counts = (dict(hub.objects), dict(member.objects)), {each.name: len(each.requests) for each in (hub, member)}
    for dying in (hub, member):
        # The member's first request only asks whether it is alive.
        for last in range(1 if dying is member else 0, counts[dying.name]):
            for each in (hub, member):
                each.requests, each.before = [], lambda _: None
                each.objects = {path: found for path, found in each.objects.items() if path.endswith("kube-system")}
            dying.before = lambda request, last=last, dying=dying: dies(request) if len(dying.requests) > last else None
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(membership, "JOIN_TIMEOUT_S", 0)
                patch.setattr(membership, "TOKEN_TIMEOUT_S", 0)
                with pytest.raises((Unreachable, TimeoutError), match=f"http://{dying.name} does not answer"):
                    joined(hub, member)
            dying.before = lambda _: None
            joined(hub, member)
            assert (hub.objects, member.objects) == whole, f"{dying.name} died after request {last}"


@pytest.mark.parametrize("expiring", ["hub", "member"])
def test_credentials_that_expire_on_the_way_are_told_at_once_and_without_a_secret(expiring: str, hub: Cluster, member: Cluster) -> None:
    joined(hub, member)
    cluster = hub if expiring == "hub" else member
    count = len(cluster.requests)
    for last in range(1, count):
        cluster.requests = []
        cluster.before = lambda _, last=last: httpx.Response(401, json={"message": "Unauthorized"}) if len(cluster.requests) > last else None
        with pytest.raises(Unauthorized) as failure:
            joined(hub, member)
        assert str(failure.value) == f"http://{expiring} refuses the credentials of the kubeconfig: expired or revoked"
        assert "re-run" in failure.value.hint


def test_a_member_that_lacks_kinds_is_refused_before_anything_is_changed(hub: Cluster, member: Cluster) -> None:
    for kind in ("InferenceService", "AuthorizationPolicy", "RequestAuthentication"):
        [found] = [each for each in propagation.KINDS if each.kind == kind]
        del member.kinds[found.api_version, kind]
    with pytest.raises(VerificationError) as failure:
        joined(hub, member)
    for kind in ("InferenceService", "AuthorizationPolicy", "RequestAuthentication"):
        assert f"kind {kind}: must be served" in str(failure.value)
    assert "install the charts kserve-crd" in str(failure.value)
    assert "helm upgrade --install istio-base" in str(failure.value)
    assert not [each for cluster in (hub, member) for each in cluster.requests if not each.startswith(("GET ", "POST /apis/authorization"))]
    joined(hub, member, kinds=["v1/ConfigMap"])


def test_leaving_takes_back_every_right_and_keeps_the_namespaces_of_models(hub: Cluster, member: Cluster) -> None:
    joined(hub, member)
    assert membership.unjoin({**SPEC, "hubKubeconfig": hub.kubeconfig, "memberKubeconfig": member.kubeconfig}) == {}
    left = [path for path in member.objects if "/karmada-cluster/" not in path]
    assert sorted(left) == sorted(f"/api/v1/namespaces/{each}" for each in ("kube-system", *propagation.NAMESPACES))


WORK = "/apis/work.karmada.io/v1alpha1/namespaces/karmada-es-us-east/works/model"


@pytest.mark.parametrize("ready", ["True", "False"])
def test_a_member_that_refuses_the_kubeconfig_is_cleaned_up_by_karmada_where_karmada_reaches_it(
    ready: str, hub: Cluster, member: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    joined(hub, member)
    member.before = lambda _: httpx.Response(401, json={"message": "Unauthorized"})
    hub.objects[WORK] = {"metadata": {"name": "model", "namespace": "karmada-es-us-east", "finalizers": ["karmada.io/execution-controller"]}}
    space = "/api/v1/namespaces/karmada-es-us-east"
    hub.objects[space] = {"metadata": {"name": "karmada-es-us-east"}}

    def empties(request: httpx.Request) -> httpx.Response | None:
        """The namespace goes with its last Work; a patch brings none back."""
        if request.url.path == space and WORK not in hub.objects:
            hub.objects.pop(space, None)
        return httpx.Response(200, json={}) if (request.method, request.url.path) == ("PATCH", WORK) else None

    hub.before = empties
    seen = hub.seen
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    monkeypatch.setattr(hub, "seen", lambda path: {**seen(path), "status": status} if path.endswith("/clusters/us-east") else seen(path))
    membership.unjoin({**SPEC, "hubKubeconfig": hub.kubeconfig, "memberKubeconfig": member.kubeconfig})
    # Without its finalizer a Work goes and leaves its object on the member.
    assert ([each for each in hub.requests if each == f"PATCH {WORK}"] == []) == (ready == "True")
    assert f"DELETE {WORK}" in hub.requests
    said = capfd.readouterr().err
    assert ("Karmada removes what it put there" in said) == (ready == "True")
    assert ("what Karmada put there stays behind" in said) == (ready == "False")


def test_other_rights_run_the_join_of_every_member_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def given() -> str:
        rights.digest.cache_clear()
        found, _ = declare(fleets.small())
        return found.commands()["east-membership-join"]["stdin"]["rights"]

    before = given()
    assert before == given()
    monkeypatch.setattr(rights, "IMPERSONATOR", ())
    assert given() != before
    monkeypatch.undo()
    rights.digest.cache_clear()


@pytest.mark.parametrize(
    ("kind", "name", "applied", "dropped"),
    [
        ("ClusterRole", "karmada-impersonator", "False", True),
        ("ClusterRoleBinding", "karmada-impersonator", "", True),
        # Somebody gave Karmada the rights: it can take it back, and must.
        ("ClusterRole", "karmada-impersonator", "True", False),
        ("ClusterRole", "of-the-owner", "False", False),
        ("InferenceService", "karmada-impersonator", "False", False),
    ],
)
def test_only_works_that_karmada_could_never_apply_are_not_waited_for(kind: str, name: str, applied: str, dropped: bool) -> None:
    manifest = {"kind": kind, "metadata": {"name": name}}
    status = {"conditions": [{"type": "Applied", "status": applied}]} if applied else {}
    work = {"spec": {"workload": {"manifests": [manifest]}}, "status": status}
    assert membership._never_arrived(work) is dropped  # pyright: ignore[reportPrivateUsage]


def test_a_work_without_manifests_is_waited_for() -> None:
    assert not membership._never_arrived({"spec": {}})  # pyright: ignore[reportPrivateUsage]
