"""Changes to the example production stacks that break one rule each, for tests with and without the engine.

A change edits the stack file, or declares objects beside the fleet, as a pull request would.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from operations.stack_file import read_spec
from specs import labels
from tests.unit import fleets

EXAMPLES = fleets.REPO / "stacks" / "examples"
AMERICAS, EUROPE = "prod-americas", "prod-europe"
DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGE = f"registry.example.com/llm/vllm-openai:v0.33.0@{DIGEST}"
_LABELS = {labels.LABEL_PART_OF: labels.PART_OF, labels.LABEL_COMPONENT: "test"}

Object = dict[str, Any]


def nothing(_: Object) -> None:
    """No edit."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One pull request."""

    rule: str
    """The rule that refuses it."""
    told: str
    """A part of what is said."""
    about: str
    """The resource, or the cluster of the stack file, that is blamed."""
    stack: str = AMERICAS
    edit: Callable[[Object], None] = nothing
    objects: list[Object] = field(default_factory=list[Object])

    def __str__(self) -> str:
        return f"{self.rule}-{self.about}"


def read(stack: str) -> Object:
    """What is below `fleet:spec` in an example."""
    return read_spec(EXAMPLES / f"Pulumi.{stack}.yaml")


def edited(change: Change) -> Object:
    # A copy of each part: YAML's anchors give several clusters one driver.
    spec = json.loads(json.dumps(read(change.stack)))
    change.edit(spec)
    return spec


def model(spec: Object, name: str) -> Object:
    return next(each for each in spec["models"] if each["name"] == name)


def cluster(spec: Object, name: str) -> Object:
    return next(each for each in spec["clusters"] if each["name"] == name)


def pool(spec: Object, where: str, name: str) -> Object:
    return next(each for each in cluster(spec, where)["gpuPools"] if each["name"] == name)


def metadata(name: str, **more: Any) -> Object:
    return {"name": name, "namespace": "models", "labels": dict(_LABELS), **more}


def deployment(name: str, **container: Any) -> Object:
    """A Deployment beside the fleet that satisfies every rule."""
    security = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    amount = {"cpu": "1", "memory": "1Gi"}
    whole = {
        "name": "main",
        "image": f"registry.example.com/tools/exporter@{DIGEST}",
        "resources": {"requests": dict(amount), "limits": dict(amount)},
        "securityContext": security,
        **container,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name),
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [whole]}}},
    }


def security(**more: Any) -> Object:
    """The security context of `deployment` with these fields instead."""
    return {**deployment("x")["spec"]["template"]["spec"]["containers"][0]["securityContext"], **more}


def destination_rule(name: str, policy: Object, host: str = "models.example.com") -> Object:
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata(name), "spec": {"host": host, "trafficPolicy": policy}}


def override(name: str, target: str, overriders: Object) -> Object:
    """An OverridePolicy over a model's InferenceService in us-east."""
    return {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "OverridePolicy",
        "metadata": metadata(name),
        "spec": {
            "resourceSelectors": [{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": target}],
            "overrideRules": [{"targetCluster": {"clusterNames": ["us-east"]}, "overriders": overriders}],
        },
    }


def plaintext(path: str, value: Any) -> Object:
    return {"plaintext": [{"path": path, "operator": "replace", "value": value}]}


def _set(*path: Any, to: Any) -> Callable[[Object], None]:
    """An edit of one field; numbers are places in lists."""

    def edit(spec: Object) -> None:
        holder: Any = spec
        for part in path[:-1]:
            holder = holder[part]
        holder[path[-1]] = to

    return edit


def _model(name: str, *path: Any, to: Any) -> Callable[[Object], None]:
    return lambda spec: _set(*path, to=to)(model(spec, name))


def _remove_owner(spec: Object) -> None:
    del model(spec, "llama-3-8b")["owner"]


def _one_region(spec: Object) -> None:
    placement = model(spec, "llama-3-8b")["placement"]
    placement["clusters"] = placement["clusters"][:1]
    placement["minimumClusters"] = 1


def _all_in_one(spec: Object) -> None:
    chat = model(spec, "llama-3-8b")
    chat["replicas"] = 1
    chat["placement"] |= {"minimumClusters": 1, "clusters": [{"name": "us-east", "weight": 1}, {"name": "us-west", "weight": 9}]}


def _unprotect(spec: Object) -> None:
    del spec["hub"]["protect"]


def _eu_rule_in_the_us(spec: Object) -> None:
    model(spec, "llama-3-8b")["placement"]["jurisdictions"] = ["US"]


_TAINTED = {
    "apiVersion": "policy.karmada.io/v1alpha1",
    "kind": "PropagationPolicy",
    "metadata": metadata("waits"),
    "spec": {
        "resourceSelectors": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "any"}],
        "placement": {
            "clusterAffinity": {"clusterNames": ["us-east"]},
            "clusterTolerations": [{"key": "example.com/gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
        },
    },
}
_WILDCARD = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "exporter", "labels": dict(_LABELS)},
    "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}],
}
_SHORT = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": metadata("short"),
    "spec": {
        "hosts": ["*"],
        "gateways": ["istio-ingress/front-door"],
        "http": [{"timeout": "60s", "route": [{"destination": {"host": "llama-3-8b.fleet.internal"}}]}],
    },
}
_TOKEN = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("hub"), "data": {"config": "token: hf_" + "a" * 34}}
_OUTSIDE: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": metadata("overflow"),
    "spec": {
        "hosts": ["qwen-32b.fleet.internal"],
        "ports": [{"number": 80, "name": "http2", "protocol": "HTTP2"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "192.0.2.10", "locality": "us-east-1"}],
    },
}
_VLLM = {
    "image": IMAGE,
    "command": ["vllm", "serve", "/mnt/models"],
    "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}},
    "startupProbe": {"httpGet": {"path": "/health", "port": 8080}},
}
_NO_EJECTION = {"outlierDetection": {"consecutiveGatewayErrors": 3}}
_NO_DETECTION = {"loadBalancer": {"localityLbSetting": {"enabled": True, "failover": [{"from": "us-east-1", "to": "us-west-2"}]}}}
_AMOUNT = {"cpu": "1", "memory": "1Gi"}

# The first of each rule is also tried with the engine.
BAD: tuple[Change, ...] = (
    Change(
        rule="image-by-digest",
        told="image has no digest, got: `registry.example.com/llm/vllm-openai:v0.33.0`",
        about="llama-3-70b-isvc",
        edit=_set("runtimes", "vllm", "image", to="registry.example.com/llm/vllm-openai:v0.33.0"),
    ),
    Change(
        rule="image-by-digest",
        told="model artifact has no digest",
        about="llama-3-8b-isvc",
        edit=_model("llama-3-8b", "source", to="oci://registry.example.com/models/llama:1"),
    ),
    Change(
        rule="image-by-digest",
        told="InferenceService models/llama-3-8b in us-east",
        about="llama-3-8b-isvc",
        objects=[override("hot-fix", "llama-3-8b", plaintext("/spec/predictor/model/image", "registry.example.com/llm/vllm-openai:v0.33.0"))],
    ),
    Change(
        rule="image-registry",
        told="image is not from an allowed registry (registry.example.com), got: `docker.io/vllm/",
        about="llama-3-70b-isvc",
        edit=_set("runtimes", "vllm", "image", to=f"docker.io/vllm/vllm-openai:v0.33.0@{DIGEST}"),
    ),
    Change(
        rule="image-registry",
        told="model artifact is not from an allowed registry",
        about="llama-3-8b-isvc",
        edit=_model("llama-3-8b", "source", to=f"oci://registry.example.com.evil.example/models/llama@{DIGEST}"),
    ),
    Change(
        rule="pod-privilege",
        told="container `main` is privileged",
        about="exporter",
        objects=[deployment("exporter", securityContext=security(privileged=True))],
    ),
    Change(
        rule="pod-user", told="runs as root, got: `runAsUser: 0`", about="exporter", objects=[deployment("exporter", securityContext=security(runAsUser=0))]
    ),
    Change(
        rule="pod-user",
        told="may gain rights",
        about="exporter",
        objects=[deployment("exporter", securityContext=security(allowPrivilegeEscalation=True))],
    ),
    Change(
        rule="pod-capabilities",
        told="adds capabilities, got: `SYS_ADMIN`",
        about="exporter",
        objects=[deployment("exporter", securityContext=security(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}))],
    ),
    Change(
        rule="pod-capabilities",
        told="seccomp filters nothing, got: `Unconfined`",
        about="exporter",
        objects=[deployment("exporter", securityContext=security(seccompProfile={"type": "Unconfined"}))],
    ),
    Change(
        rule="pod-root-file-system",
        told="`readOnlyRootFilesystem` is not true",
        about="exporter",
        objects=[deployment("exporter", securityContext=security(readOnlyRootFilesystem=False))],
    ),
    Change(
        rule="pod-resources",
        told="lacks `resources.limits.memory`",
        about="exporter",
        objects=[deployment("exporter", resources={"requests": _AMOUNT, "limits": {"cpu": "1"}})],
    ),
    Change(
        rule="pod-resources",
        told="must be equal in requests and limits, got: `None` and `1`",
        about="exporter",
        objects=[deployment("exporter", resources={"requests": _AMOUNT, "limits": {**_AMOUNT, "nvidia.com/gpu": "1"}})],
    ),
    Change(
        rule="pod-probes",
        told="has no `startupProbe`",
        about="second",
        objects=[deployment("second", **{key: value for key, value in _VLLM.items() if key != "startupProbe"})],
    ),
    Change(
        rule="startup-budget",
        told="gives up after 300 s, and the model needs 420 s (`runtime.loadSeconds`)",
        about="llama-3-70b-isvc",
        edit=_set("runtimes", "vllm", "startupSeconds", to=300),
    ),
    Change(
        rule="serving-arguments",
        told="argument `--max-model-length` is no argument of vLLM 0.33.0; did you mean `--max-model-len`?",
        about="second",
        objects=[deployment("second", **{**_VLLM, "args": ["--max-model-length=4096"]})],
    ),
    Change(
        rule="serving-arguments",
        told="must be the 2 GPUs of the pod, got: `1`",
        about="llama-3-8b-isvc",
        objects=[override("tune", "llama-3-8b", plaintext("/spec/predictor/model/args", ["--max-model-len=4096", "--tensor-parallel-size=1"]))],
    ),
    Change(
        rule="plaintext-secret",
        told="environment variable `HF_TOKEN` holds a secret in plain text",
        about="exporter",
        objects=[deployment("exporter", env=[{"name": "HF_TOKEN", "value": "anything"}])],
    ),
    Change(
        rule="plaintext-secret",
        told="environment variable `API_KEY` is filled from a Secret",
        about="exporter",
        objects=[deployment("exporter", env=[{"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api"}}}])],
    ),
    Change(rule="plaintext-secret", told="`data.config` holds what looks like a token of Hugging Face", about="hub", objects=[_TOKEN]),
    Change(rule="rbac-wildcard", told="`rules[0].resources` is a wildcard", about="exporter", objects=[_WILDCARD]),
    Change(
        rule="front-door-tls",
        told="its front door, made by driver `existing`, is reached without TLS",
        about="us-west",
        edit=_set("clusters", 1, "driver", "frontDoor", "url", to="http://us-west.llm.example.com"),
    ),
    Change(
        rule="front-door-authentication",
        told="no AuthorizationPolicy demands an identity at the front doors of",
        about="stack",
        edit=lambda spec: spec.pop("frontDoors"),
    ),
    Change(
        rule="front-door-authentication",
        told="no AuthorizationPolicy demands an identity at the front doors of",
        about="stack",
        stack=EUROPE,
        edit=lambda spec: spec.pop("frontDoors"),
    ),
    Change(
        rule="namespace-default-deny",
        told="namespace `lab` serves models, and no NetworkPolicy denies by default there in us-east, us-west",
        about="second",
        objects=[{**deployment("second", **_VLLM), "metadata": metadata("second", namespace="lab")}],
    ),
    Change(rule="failover-partner", told="runs in one region only, got: `us-east-1`", about="llama-3-8b-isvc", edit=_one_region),
    Change(rule="failover-partner", told="runs in one region only, got: `us-west-2`", about="llama-3-8b-isvc", edit=_all_in_one),
    Change(rule="outlier-detection", told="has no outlierDetection", about="far", objects=[destination_rule("far", _NO_DETECTION)]),
    Change(rule="ejection-limit", told="ejects none of 2 endpoints, got: `10`", about="small", objects=[destination_rule("small", _NO_EJECTION)]),
    Change(rule="stream-timeout", told="`http[0].timeout` cuts streams, got: `60s`", about="short", objects=[_SHORT]),
    Change(rule="lost-cluster-taint", told="waits for the taint `example.com/gone`", about="waits", objects=[_TAINTED]),
    Change(
        rule="toleration-outlasts-load",
        told="replicas are moved after 60 s, and the model takes 420 s to load",
        about="llama-3-70b-placement-propagation",
        edit=_model("llama-3-70b", "placement", "evictAfterSeconds", to=60),
    ),
    Change(
        rule="capacity-without-a-region",
        told="has 8 GPUs of type L40S, and 10 are needed when region `eu-north-1` is lost",
        about="frankfurt",
        stack=EUROPE,
        edit=_model("qwen-7b", "replicas", to=10),
    ),
    Change(
        rule="residency",
        told="sends requests of model `qwen-32b` to region `us-east-1`, which is outside of EU",
        about="overflow",
        stack=EUROPE,
        objects=[_OUTSIDE],
    ),
    Change(
        rule="residency",
        told="nobody has said which law governs its store",
        about="qwen-7b-isvc",
        stack=EUROPE,
        edit=_model("qwen-7b", "source", to="s3://llm-weights-us/qwen2.5-7b-instruct"),
    ),
    Change(rule="residency", told="nobody has said which law governs its store", about="llama-3-8b-isvc", edit=_eu_rule_in_the_us),
    Change(
        rule="residency",
        told="sends requests of model `qwen-32b` to an endpoint that tells no locality",
        about="overflow",
        stack=EUROPE,
        objects=[{**_OUTSIDE, "spec": {**_OUTSIDE["spec"], "hosts": ["*.fleet.internal"], "endpoints": [{"address": "192.0.2.10"}]}}],
    ),
    Change(
        rule="spot-fallback",
        told="pool `l4` has spot nodes only, and the cluster no other L4",
        about="us-east",
        edit=_set("clusters", 0, "gpuPools", 1, "capacityTypes", to=["spot"]),
    ),
    Change(
        rule="cost-budget",
        told="cost 159,082 a month at their largest, and the budget is 120,000",
        about="stack",
        edit=_set("clusters", 0, "gpuPools", 0, "nodes", to=4),
    ),
    Change(
        rule="versions-tested",
        told="cluster `us-west`: no row of the matrix has Kubernetes 1.34 (tested: 1.36.3)",
        about="us-west",
        edit=_set("clusters", 1, "driver", "versions", "kubernetes", to="1.34"),
    ),
    Change(
        rule="versions-tested",
        told="does not tell the version of KServe",
        about="us-west",
        edit=_set("clusters", 1, "driver", "versions", to={"kubernetes": "1.36", "istio": "1.31"}),
    ),
    Change(rule="deletion-protection", told="`hub-cluster` makes a cluster and is not protected", about="hub-cluster", edit=_unprotect),
    Change(rule="labels-and-owners", told="nobody answers for it", about="llama-3-8b-isvc", edit=_remove_owner),
    Change(
        rule="labels-and-owners",
        told="lacks the labels `app.kubernetes.io/part-of`",
        about="any",
        objects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any", "namespace": "models"}}],
    ),
    Change(
        rule="override-readable",
        told="cannot be followed because of `imageOverrider`",
        about="mirror",
        objects=[override("mirror", "llama-3-8b", {"imageOverrider": [{"component": "Registry", "operator": "replace", "value": "mirror.example.com"}]})],
    ),
)


def by_rule() -> list[Change]:
    """The first change of each rule."""
    found: dict[str, Change] = {}
    for each in BAD:
        found.setdefault(each.rule, each)
    return list(found.values())


def stack_file(spec: Object, more: Object | None = None) -> str:
    return yaml.safe_dump({"config": {"fleet:spec": spec, **(more or {})}}, sort_keys=False)
