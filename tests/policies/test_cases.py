"""What good fleets declare passes every rule, and ways around a rule do not."""

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.declared import UNKNOWN, Resource, Stack
from policies.rule import findings
from policies.rules import RULES
from tests.policies import changes
from tests.policies.changes import AMERICAS, DIGEST, IMAGE, Object, deployment, destination_rule, metadata, override, plaintext, security
from tests.policies.stacks import breaches, stack

_AMOUNT = {"cpu": "1", "memory": "1Gi"}
_PROBES = {key: {"httpGet": {"path": "/health", "port": 8080}} for key in ("readinessProbe", "startupProbe")}
_ADDRESS = "/spec/predictor/model"


@functools.cache
def _example() -> Stack:
    return stack(AMERICAS, changes.read(AMERICAS))


def _beside(*objects: Object) -> Stack:
    added = [Resource(type=f"kubernetes:{each['apiVersion']}:{each['kind']}", name=each["metadata"]["name"], props=each) for each in objects]
    return replace(_example(), resources=[*_example().resources, *added], _variants={})


def _container(**fields: Any) -> Object:
    return {**deployment("x")["spec"]["template"]["spec"]["containers"][0], **fields}


def _pod(name: str = "exporter", **spec: Any) -> Object:
    """A Deployment whose pod has these fields too."""
    body = deployment(name)
    body["spec"]["template"]["spec"].update(spec)
    return body


def _gpus(requests: Any, limits: Any, name: str = "nvidia.com/gpu") -> Object:
    asked = ({**_AMOUNT, **({name: each} if each is not None else {})} for each in (requests, limits))
    return dict(zip(("requests", "limits"), asked, strict=True))


def _vllm(*arguments: str, **fields: Any) -> Object:
    return _container(image=IMAGE, command=["vllm", "serve", "/mnt/models"], args=list(arguments), **{**_PROBES, **fields})


def _role(**rule: Any) -> Object:
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    return {**api, "metadata": metadata("role"), "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}]}


def _service(name: str = "second", **predictor: Any) -> Object:
    """An InferenceService beside the fleet, in two regions."""
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata(name), "spec": {"predictor": predictor}}


def _propagation(target: Object, name: str = "second", **spec: Any) -> Object:
    selector = {key: target[key] for key in ("apiVersion", "kind")} | {"name": target["metadata"]["name"]}
    placement = {"clusterAffinity": {"clusterNames": ["us-east", "us-west"]}}
    held = metadata(name)
    held["labels"]["inference-fleet.dev/owner"] = "search"
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": held,
        "spec": {"resourceSelectors": [selector], "placement": placement, **spec},
    }


def _placed(**predictor: Any) -> list[Object]:
    service = _service(**predictor)
    return [service, _propagation(service)]


def _patch(path: str, operator: str, value: Any = None, **selector: Any) -> Object:
    """An override of the Deployment `exporter` in us-east."""
    body = override("patch", "exporter", {"plaintext": [{"path": path, "operator": operator, "value": value}]})
    body["spec"]["resourceSelectors"] = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "exporter", **selector}]
    return body


def _rule(target: Object, **fields: Any) -> Object:
    """The same override with other fields beside its overriders."""
    body = copy.deepcopy(target)
    body["spec"]["overrideRules"][0] |= fields
    return body


_CONTAINERS = "/spec/template/spec/containers"
_PRIVILEGED = _container(name="second", securityContext=security(privileged=True))
_LAX = _patch(f"{_CONTAINERS}/0/securityContext/privileged", "add", value=True)
_OLD_FORM = {**_LAX, "spec": {"resourceSelectors": _LAX["spec"]["resourceSelectors"], **_LAX["spec"]["overrideRules"][0]}}
_EVERYTHING = {**_LAX, "spec": {key: each for key, each in _LAX["spec"].items() if key != "resourceSelectors"}}
_RUNTIME = next(each for each in _example().of_kind("ServingRuntime", "ClusterServingRuntime") if each.name)
_OF_RUNTIME = {
    **_LAX,
    "kind": "ClusterOverridePolicy",
    "spec": {
        "resourceSelectors": [{"apiVersion": "serving.kserve.io/v1alpha1", "kind": _RUNTIME.kind}],
        "overrideRules": [
            {"targetCluster": {"clusterNames": ["us-east"]}, "overriders": plaintext("/spec/containers/0/securityContext/capabilities", {"drop": []})}
        ],
    },
}


def _taint(name: str = "gone", clusters: Any = None, **conditions: Any) -> Object:
    whole = {
        "addOnConditions": [{"conditionType": "Ready", "operator": "NotIn", "statusValues": ["True"]}],
        "removeOnConditions": [{"conditionType": "Ready", "operator": "In", "statusValues": ["True"]}],
        "taints": [{"key": "example.com/gone", "effect": "NoExecute"}],
        **({"targetClusters": clusters} if clusters else {}),
        **conditions,
    }
    return {"apiVersion": "policy.karmada.io/v1alpha1", "kind": "ClusterTaintPolicy", "metadata": metadata(name), "spec": whole}


def _waiting(**toleration: Any) -> Object:
    anything = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any"}}
    told = {"key": "example.com/gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 600, **toleration}
    placement = {"clusterAffinity": {"clusterNames": ["us-east", "us-west"]}, "clusterTolerations": [told]}
    return _propagation(anything, "waits", placement=placement)


def _ready(operator: str, *values: str) -> list[Object]:
    return [{"conditionType": "Ready", "operator": operator, "statusValues": list(values)}]


def _entry(*endpoints: Object) -> Object:
    spec = {"hosts": ["far.example.com"], "ports": [{"number": 80, "name": "http2", "protocol": "HTTP2"}], "resolution": "STATIC", "endpoints": list(endpoints)}
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": metadata("far"), "spec": spec}


_FAR = _entry({"address": "192.0.2.1", "locality": "us-east-1"}, {"address": "192.0.2.2", "locality": "us-west-2"})
_EJECTS = {"outlierDetection": {"consecutiveGatewayErrors": 3, "maxEjectionPercent": 100}}
_FAILS_OVER = {"loadBalancer": {"localityLbSetting": {"failover": [{"from": "us-east-1", "to": "us-west-2"}]}}}


_FILTER = {
    "apiVersion": "networking.istio.io/v1alpha3",
    "kind": "EnvoyFilter",
    "metadata": metadata("short"),
    "spec": {"configPatches": [{"patch": {"value": {"typed_config": {"common_http_protocol_options": {"max_stream_duration": "60s"}}}}}]},
}


_DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": metadata("deny", namespace="research"),
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


def _in_us_east(kind: Object, *changes: Object) -> Object:
    """Changes objects of a kind in one cluster alone."""
    api = {"apiVersion": "policy.karmada.io/v1alpha1", "kind": "ClusterOverridePolicy"}
    rule = {"targetCluster": {"clusterNames": ["us-east"]}, "overriders": {"plaintext": list(changes)}}
    return {**api, "metadata": metadata("lax"), "spec": {"resourceSelectors": [kind], "overrideRules": [rule]}}


_NETWORK = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "default-deny"}
_CALLERS = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "name": "callers"}
_TOKENS = {**_CALLERS, "kind": "RequestAuthentication"}


def _map(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("map"), "data": data}


_GOOD: dict[str, list[Object]] = {
    "amounts in any unit": [_pod(containers=[_container(resources={"requests": {"cpu": 0.5, "memory": "512Mi"}, "limits": {"memory": "1.5Gi"}})])],
    "GPUs as number and text": [_pod(containers=[_container(resources=_gpus(1.0, "1"))])],
    "GPUs of AMD": [_pod(containers=[_vllm("--tensor-parallel-size", "2", resources=_gpus("2", "2", "amd.com/gpu"))])],
    "an init container without amounts of its own": [_pod(initContainers=[_container(name="copy", resources={})])],
    "a sidecar before the one that answers": [_pod(containers=[_container(name="proxy"), {**_vllm(), "name": "vllm"}])],
    "a registry with a path that is the image": [_pod(containers=[_container(image=f"registry.example.com/tools:v1@{DIGEST}")])],
    "vLLM by short names": [_pod(containers=[_vllm("-tp", "2", "--max-model-len", "4096", "-O3", resources=_gpus("2", "2"))])],
    "vLLM by names with underscores": [_pod(containers=[_vllm("--tensor_parallel_size=2", "--max_model_len=4096", resources=_gpus("2", "2"))])],
    "a worker that answers nobody": [
        {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": metadata("group"),
            "spec": {"leaderWorkerTemplate": {"workerTemplate": {"spec": {"containers": [{**_vllm(), "readinessProbe": None, "startupProbe": None}]}}}},
        }
    ],
    "a security context of the pod": [
        _pod(
            securityContext={"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            containers=[
                _container(securityContext={key: security()[key] for key in ("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities")}),
            ],
        )
    ],
    "an override that removes": [deployment("exporter"), _patch(f"{_CONTAINERS}/0/resources/limits/cpu", "remove")],
    "an override for clusters by label": [
        deployment("exporter"),
        _rule(_patch("/spec/replicas", "add", value=2), targetCluster={"labelSelector": {"matchLabels": {"gpu": "h100"}}}),
    ],
    "an override for another namespace": [deployment("exporter"), {**_LAX, "metadata": metadata("patch", namespace="other")}],
    "an override for other labels": [
        deployment("exporter"),
        _patch(f"{_CONTAINERS}/0/image", "replace", "evil", name="", labelSelector={"matchLabels": {"a": "b"}}),
    ],
    "a role for named resources": [_role(verbs=["impersonate"], resources=["users"], resourceNames=["system:karmada"])],
    "a path of an address": [_role(nonResourceURLs=["/healthz/*"], apiGroups=[], resources=[])],
    "a taint that is told otherwise": [
        _waiting(),
        _taint(addOnConditions=_ready("In", "False", "Unknown"), removeOnConditions=_ready("NotIn", "False", "Unknown")),
    ],
    "any taint for a time": [_waiting(key=None), _taint()],
    "a host with a wildcard": [_FAR, destination_rule("far", _EJECTS, host="*.example.com")],
    "outlier detection by broken connections": [
        destination_rule(
            "far",
            {
                **_FAILS_OVER,
                "outlierDetection": {"splitExternalLocalOriginErrors": True, "consecutive5xxErrors": 0, "maxEjectionPercent": 100},
            },
        )
    ],
    "a service of a namespace of its own with a model's name": [
        {**_service("llama-3-70b", containers=[_vllm()]), "metadata": metadata("llama-3-70b", namespace="research")},
        {
            **_propagation(_service("llama-3-70b")),
            "metadata": {**_propagation(_service())["metadata"], "namespace": "research"},
        },
        _DENY,
        {**_propagation(_DENY, "deny"), "metadata": {**_propagation(_DENY, "deny")["metadata"], "namespace": "research"}},
    ],
    "a model's own fields over a runtime's": _placed(
        model={
            "runtime": _RUNTIME.name,
            "resources": {"requests": dict(_AMOUNT), "limits": dict(_AMOUNT)},
            "securityContext": {"readOnlyRootFilesystem": True},
        }
    ),
    "a policy that sends it to all but one cluster, of several": [
        _service(containers=[_vllm()]),
        _propagation(_service(), placement={"clusterAffinity": {"exclude": ["nowhere"]}}),
    ],
    "names that only look like secrets": [
        _map(tokenizer="a", MAX_TOKENS="4096"),
        _pod(containers=[_container(env=[{"name": "HF_TOKEN_FILE", "value": "/a"}])]),
    ],
    "an address without a password": [_map(url="https://user@example.com:8080/a:b@c")],
}

_BAD: dict[str, tuple[str, list[Object]]] = {
    "a sidecar without amounts": ("pod-resources", [_pod(initContainers=[_container(name="proxy", restartPolicy="Always", resources={})])]),
    "slices of a GPU that differ": ("pod-resources", [_pod(containers=[_container(resources=_gpus("1", "2", "nvidia.com/mig-1g.10gb"))])]),
    "GPUs of AMD that differ": ("pod-resources", [_pod(containers=[_container(resources=_gpus("1", None, "amd.com/gpu"))])]),
    "GPUs that no rank uses, as a number": ("serving-arguments", [_pod(containers=[_vllm("-tp", "1", resources=_gpus(2.0, 2.0))])]),
    "a root file system behind no GPU": (
        "pod-root-file-system",
        [_pod(containers=[_container(resources=_gpus(0, 0), securityContext=security(readOnlyRootFilesystem=False))])],
    ),
    "capabilities dropped where Kubernetes does not look": (
        "pod-capabilities",
        [_pod(securityContext={"capabilities": {"drop": ["ALL"]}}, containers=[_container(securityContext=security(capabilities=None))])],
    ),
    "a privileged init container": ("pod-privilege", [_pod(initContainers=[_container(name="copy", securityContext=security(privileged=True))])]),
    "a port of the node": ("pod-privilege", [_pod(containers=[_container(ports=[{"containerPort": 80, "hostPort": 80}])])]),
    "a path of the node behind a claim": (
        "pod-privilege",
        [{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata("disk"), "spec": {"hostPath": {"path": "/"}}}],
    ),
    "seccomp off for the pod": (
        "pod-capabilities",
        [_pod(securityContext={"seccompProfile": {"type": "Unconfined"}}, containers=[_container(securityContext=security(seccompProfile=None))])],
    ),
    "the one that answers behind a sidecar": (
        "pod-probes",
        [_pod(containers=[_container(name="proxy", **_PROBES), {**_vllm(), "name": "vllm", "startupProbe": None}])],
    ),
    "an image as a volume": ("image-by-digest", [_pod(volumes=[{"name": "weights", "image": {"reference": "registry.example.com/models/a:1"}}])]),
    "an image of a host with a port": ("image-registry", [_pod(containers=[_container(image=f"registry.example.com:5000/tools@{DIGEST}")])]),
    "weights by the older form": ("image-by-digest", _placed(huggingface={**_vllm(), "storageUri": "oci://registry.example.com/models/a:1"})),
    "weights in a list": ("image-registry", _placed(containers=[_vllm()], storageUris=[{"uri": f"oci://example.org/a@{DIGEST}"}])),
    "a pod of the older form": ("pod-user", _placed(triton={**_vllm(), "securityContext": security(runAsUser=0)})),
    "a worker of a service": (
        "pod-user",
        _placed(containers=[_vllm()], workerSpec={"containers": [_container(securityContext=security(runAsNonRoot=False))]}),
    ),
    "an init container of a service": ("image-by-digest", _placed(containers=[_vllm()], initContainers=[_container(image="registry.example.com/a:1")])),
    "an override that appends": ("pod-privilege", [deployment("exporter"), _patch(f"{_CONTAINERS}/-", "add", _PRIVILEGED)]),
    "an override that inserts": ("pod-privilege", [deployment("exporter"), _patch(f"{_CONTAINERS}/0", "add", _PRIVILEGED)]),
    "an override that removes": ("pod-user", [deployment("exporter"), _patch(f"{_CONTAINERS}/0/securityContext/runAsNonRoot", "remove")]),
    "an override of the older form": ("pod-privilege", [deployment("exporter"), _OLD_FORM]),
    "an override of everything": ("pod-privilege", [deployment("exporter"), _EVERYTHING]),
    "an override for every cluster": ("pod-privilege", [deployment("exporter"), _rule(_LAX, targetCluster=None)]),
    "an override for all but one cluster": ("pod-privilege", [deployment("exporter"), _rule(_LAX, targetCluster={"exclude": ["us-west"]})]),
    "an override by expression": (
        "pod-privilege",
        [
            deployment("exporter"),
            {
                **_LAX,
                "spec": {
                    **_LAX["spec"],
                    "resourceSelectors": [
                        {
                            "apiVersion": "apps/v1",
                            "kind": "Deployment",
                            "labelSelector": {"matchExpressions": [{"key": "app.kubernetes.io/component", "operator": "In", "values": ["test"]}]},
                        }
                    ],
                },
            },
        ],
    ),
    "an override of the runtime": ("pod-capabilities", [_OF_RUNTIME]),
    "an override that makes another object": ("override-readable", [deployment("exporter"), _patch("", "replace", deployment("exporter"))]),
    "a role for every subresource": ("rbac-wildcard", [_role(resources=["*/*"])]),
    "a role that takes any right": ("rbac-wildcard", [_role(verbs=["escalate"], resources=["clusterroles"])]),
    "a binding of all who are known": (
        "rbac-wildcard",
        [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": metadata("all"),
                "roleRef": {"kind": "ClusterRole", "name": "view"},
                "subjects": [{"kind": "Group", "name": "system:authenticated"}],
            }
        ],
    ),
    "a taint that an unreachable cluster never gets": ("lost-cluster-taint", [_waiting(), _taint(addOnConditions=_ready("NotIn", "True", "Unknown"))]),
    "a taint with a second condition": (
        "lost-cluster-taint",
        [_waiting(), _taint(addOnConditions=[*_ready("NotIn", "True"), {"conditionType": "Other", "operator": "In", "statusValues": ["True"]}])],
    ),
    "a taint of one cluster of two": ("lost-cluster-taint", [_waiting(), _taint(clusters={"clusterNames": ["us-east"]})]),
    "a taint of another value": ("lost-cluster-taint", [_waiting(operator="Equal", value="x"), _taint()]),
    "outlier detection that is off": (
        "outlier-detection",
        [destination_rule("far", {**_FAILS_OVER, "outlierDetection": {"consecutive5xxErrors": 0, "maxEjectionPercent": 100}})],
    ),
    "a port that ejects nothing": (
        "ejection-limit",
        [destination_rule("far", {**_EJECTS, "portLevelSettings": [{"port": {"number": 80}, "outlierDetection": {"consecutiveGatewayErrors": 1}}]})],
    ),
    "an end of every connection": ("stream-timeout", [destination_rule("far", {"connectionPool": {"tcp": {"maxConnectionDuration": "5m"}}})]),
    "an end of every stream in Envoy's own words": ("stream-timeout", [_FILTER]),
    "a timeout of KServe's own route": ("stream-timeout", _placed(containers=[_vllm()], timeout=60)),
    "a second policy that takes a region away": (
        "failover-partner",
        [_propagation(_service("llama-3-8b"), "all", priority=1, placement={"clusterAffinity": {"clusterNames": ["us-east"]}})],
    ),
    "a service that goes nowhere": ("failover-partner", [_service(containers=[_vllm()])]),
    "a service without a second region": (
        "failover-partner",
        [_service(containers=[_vllm()]), _propagation(_service(), placement={"clusterAffinity": {"fieldSelector": {"matchExpressions": [
            {"key": "region", "operator": "In", "values": ["us-east-1"]}]}}})],
    ),
    "a namespace that is open in one cluster": (
        "namespace-default-deny",
        [_in_us_east(_NETWORK, {"path": "/spec/egress", "operator": "add", "value": [{}]})],
    ),
    "a door that asks nobody in one cluster": (
        "front-door-authentication",
        [_in_us_east(_CALLERS, {"path": "/spec/action", "operator": "replace", "value": "ALLOW"})],
    ),
    "a door that asks only at one port": (
        "front-door-authentication",
        [_in_us_east(_CALLERS, {"path": "/spec/rules/0/to/0/operation", "operator": "replace", "value": {"ports": ["8443"]}})],
    ),
    "tokens that are read at no door": (
        "front-door-authentication",
        [_in_us_east(_TOKENS, {"path": "/spec/selector/matchLabels/istio", "operator": "replace", "value": "another"})],
    ),
    "a key in a shell's line": (
        "plaintext-secret",
        [_pod(containers=[_container(command=["sh", "-c", "exec serve --api_key=$KEY"])])],
    ),
    "a password of a database": ("plaintext-secret", [_pod(containers=[_container(env=[{"name": "PGPASSWORD", "value": "a"}])])]),
    "a password in an address": ("plaintext-secret", [_map(config="store: postgres://fleet:hunter2@db.example.com/models")]),
    "a token under its name": ("plaintext-secret", [_map(**{"api-key": "a"})]),
    "all keys of a Secret": ("plaintext-secret", [_pod(containers=[_container(envFrom=[{"secretRef": {"name": "keys"}}])])]),
}  # fmt: skip


@pytest.mark.parametrize("case", _GOOD)
def test_what_a_good_fleet_declares_passes(case: str) -> None:
    assert {rule: [each.text for each in found] for rule, found in breaches(_beside(*_GOOD[case])).items()} == {}


@pytest.mark.parametrize("case", _BAD)
def test_a_way_around_a_rule_is_closed(case: str) -> None:
    rule, objects = _BAD[case]
    found = breaches(_beside(*objects))
    assert list(found) == [rule], {name: [each.text for each in held] for name, held in found.items()}


def _places(value: Any, *way: Any) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in entries:
        yield (*way, key)
        yield from _places(each, *way, key)


_ODD = (None, UNKNOWN, "", "odd", 0, -1.5, True, [], [None], ["odd"], [{}], {}, {"odd": None})


@functools.cache
def _every_object() -> tuple[Object, ...]:
    own = [each.body for each in _example().objects]
    return (*own, *(each for objects in _GOOD.values() for each in objects), *(each for _, objects in _BAD.values() for each in objects))


@settings(max_examples=150)
@given(st.data())
def test_no_object_is_odd_enough_to_stop_a_rule(data: st.DataObject) -> None:
    # An API server would refuse most of these; a rule that ends in an error says nothing about the rest.
    body = copy.deepcopy(data.draw(st.sampled_from(_every_object())))
    *way, last = data.draw(st.sampled_from(sorted(_places(body), key=str)))
    holder = functools.reduce(lambda each, key: each[key], way, body)
    holder[last] = data.draw(st.sampled_from(_ODD))
    odd = replace(_example(), resources=[Resource(type="kubernetes:x:X", name="odd", props=body)], _variants={})
    for rule in RULES:
        findings(rule, odd)
