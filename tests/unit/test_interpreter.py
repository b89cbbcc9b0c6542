"""What Karmada makes of an InferenceService by our scripts, run by Karmada's own interpreter."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.federation import interpreter
from components.serving import models
from tests.unit import fleets
from tests.unit.fleets import parse_fleet
from toolchain import tools

GENERATION = "resourcetemplate.karmada.io/generation"


@pytest.fixture(scope="module")
def interpret(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs one operation: interpret(operation, observed=…, status=[…], replicas=…) → the results, by description."""
    karmadactl = tools.path("karmadactl")
    folder = tmp_path_factory.mktemp("interpreter")
    (folder / "rules.yaml").write_text(yaml.safe_dump(interpreter.resource_interpreter()))

    def run(
        operation: str, observed: Any = None, status: list[Any] | None = None, replicas: int | None = None, check: bool = True, desired: Any = None
    ) -> dict[str, Any]:
        command = [str(karmadactl), "interpret", "-f", str(folder / "rules.yaml"), "--operation", operation]
        # An API server is never asked; without a kubeconfig the command would still look for one.
        if observed is not None:
            (folder / "observed.yaml").write_text(yaml.safe_dump(observed))
            command += ["--observed-file", str(folder / "observed.yaml")]
        if desired is not None:
            (folder / "desired.yaml").write_text(yaml.safe_dump(desired))
            command += ["--desired-file", str(folder / "desired.yaml")]
        if status is not None:
            (folder / "status.yaml").write_text(yaml.safe_dump_all(status))
            command += ["--status-file", str(folder / "status.yaml")]
        if replicas is not None:
            command += ["--desired-replica", str(replicas)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return _results(done.stdout)

    return run


def _results(text: str) -> dict[str, Any]:
    """karmadactl prints `# [1/3] name:` before each YAML value."""
    found: dict[str, Any] = {}
    name, lines = "", list[str]()
    for line in [*text.splitlines(), "# [end] end:"]:
        if line.startswith("# ["):
            if name:
                found[name] = yaml.safe_load("\n".join(lines))
            name, lines = line.split("] ", 1)[1].rstrip(":"), []
        elif line != "---":
            lines.append(line)
    return found


def service(replicas: int = 2, **predictor: Any) -> dict[str, Any]:
    spec = parse_fleet(fleets.small())
    body = models.inference_service(spec.models[0].model_copy(update={"replicas": replicas}), spec.runtimes)
    body["spec"]["predictor"].update(predictor)
    body["metadata"]["generation"] = 3
    return body


def member(*, ready: bool | None = True, generation: int = 3, **status: Any) -> dict[str, Any]:
    """The copy on a member, as KServe leaves it."""
    body = service()
    body["metadata"]["annotations"] = {GENERATION: str(generation)}
    conditions = [] if ready is None else [{"type": "Ready", "status": str(ready), "message": "" if ready else "Deployment has no ready replica"}]
    # KServe's quirk: the generation is that of the Deployment.
    body["status"] = {"conditions": conditions, "observedGeneration": 99, "url": "http://chat.models", **status}
    return body


def item(cluster: str, *, ready: bool = True, generation: int = 3, applied: bool = True, **more: Any) -> dict[str, Any]:
    status = {"ready": ready, "replicas": 1, "resourceTemplateGeneration": generation, **({} if ready else {"message": "loading"})}
    return {"clusterName": cluster, "applied": applied, "status": status, **more}


def aggregated(interpret: Any, items: list[Any], previous: dict[str, Any] | None = None) -> dict[str, Any]:
    body = service()
    if previous:
        body["status"] = previous
    results = interpret("aggregateStatus", observed=body, status=items)
    (whole,) = results.values()
    return whole["status"]


def condition(status: dict[str, Any], kind: str) -> str:
    return next(each["status"] for each in status["conditions"] if each["type"] == kind)


def test_karmada_takes_the_scripts(tmp_path: Path) -> None:
    try:
        karmadactl = tools.path("karmadactl")
    except tools.ToolError as error:
        pytest.skip(f"karmadactl is not built: {error}")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(interpreter.resource_interpreter()))
    done = subprocess.run([str(karmadactl), "interpret", "-f", str(rules), "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stdout.upper()


def test_replicas_and_gpus_are_what_the_service_asks_for(interpret: Any) -> None:
    results = interpret("interpretReplica", observed=service(replicas=6))
    assert results["replica"] == 6
    assert results["requires"]["resourceRequest"] == {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert results["requires"]["nodeClaim"]["nodeSelector"] == {"inference-fleet.dev/accelerator": "H100"}


def test_a_service_scaled_to_zero_still_counts_as_one_replica(interpret: Any) -> None:
    assert interpret("interpretReplica", observed=service(minReplicas=0))["replica"] == 1


@pytest.mark.parametrize(
    ("least", "most", "share", "want"),
    [
        (6, 6, 3, (3, 3)),
        (6, 12, 2, (2, 4)),
        (6, 7, 1, (1, 2)),
        (2, 0, 1, (1, 0)),
        (1, 4, 1, (1, 4)),
        (4, 2, 3, (3, 3)),
    ],
)
def test_a_cluster_gets_its_share_of_the_minimum_and_of_the_maximum(interpret: Any, least: int, most: int, share: int, want: tuple[int, int]) -> None:
    results = interpret("reviseReplica", observed=service(minReplicas=least, maxReplicas=most), replicas=share)
    predictor = results["revised"]["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == want
    # Everything else goes to the member as it is.
    assert predictor["model"] == service()["spec"]["predictor"]["model"]


@pytest.mark.parametrize(
    ("observed", "want"),
    [
        (member(), True),
        (member(ready=False), False),
        (member(ready=None), False),
        (service(), False),
        (member(modelStatus={"transitionStatus": "BlockedByFailedLoad"}), False),
        (member(modelStatus={"transitionStatus": "UpToDate"}), True),
    ],
    ids=["ready", "not ready", "no condition", "no status", "load failed", "up to date"],
)
def test_health_is_the_ready_condition(interpret: Any, observed: dict[str, Any], want: bool) -> None:
    assert interpret("interpretHealth", observed=observed)["healthy"] is want


def test_the_status_of_a_member_keeps_what_the_hub_needs(interpret: Any) -> None:
    (status,) = interpret("interpretStatus", observed=member()).values()
    assert status == {"ready": True, "replicas": 2, "resourceTemplateGeneration": 3, "url": "http://chat.models"}


def test_a_failed_load_is_told_with_its_reason(interpret: Any) -> None:
    failed = member(ready=False, modelStatus={"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such file"}})
    (status,) = interpret("interpretStatus", observed=failed).values()
    assert status["ready"] is False
    assert status["message"] == "no such file"


@pytest.mark.parametrize(
    ("items", "ready", "every"),
    [
        ([item("east"), item("west")], "True", "True"),
        ([item("east"), item("west", ready=False)], "True", "False"),
        ([item("east", ready=False), item("west", ready=False)], "False", "False"),
        ([item("east", generation=2), item("west", generation=2)], "False", "False"),
        ([item("east"), item("west", generation=2)], "True", "False"),
        ([item("east"), {"clusterName": "west"}], "True", "False"),
        ([item("east"), item("west", applied=False, appliedMessage="connection refused")], "True", "False"),
    ],
    ids=["all", "one", "none", "all of the version before", "one of the version before", "one silent", "one unreachable"],
)
def test_the_hub_is_ready_when_one_cluster_serves_the_present_version(interpret: Any, items: list[Any], ready: str, every: str) -> None:
    status = aggregated(interpret, items)
    assert (condition(status, "Ready"), condition(status, "AllClustersReady")) == (ready, every)
    assert [each["name"] for each in status["clusterStatuses"]] == ["east", "west"]
    # Who waits for Ready compares the two generations.
    assert status.get("observedGeneration") == (3 if ready == "True" else None)


def test_a_cluster_that_is_away_is_named_with_karmadas_reason(interpret: Any) -> None:
    status = aggregated(interpret, [item("east"), item("west", applied=False, appliedMessage="connection refused")])
    assert status["clusterStatuses"][1] == {"name": "west", "ready": False, "replicas": 1, "message": "connection refused"}
    assert status["conditions"][0]["message"] == "1 of 2 clusters ready; west: connection refused"


def test_an_unchanged_status_stays_the_same_to_the_last_byte(interpret: Any) -> None:
    first = aggregated(interpret, [item("east")])
    for each in first["conditions"]:
        each["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    assert aggregated(interpret, [item("east")], previous=first) == first


def test_an_earlier_version_keeps_its_observed_generation_until_the_new_one_is_ready(interpret: Any) -> None:
    status = aggregated(interpret, [item("east", generation=2)], previous={"observedGeneration": 2})
    assert status["observedGeneration"] == 2
    assert condition(status, "Ready") == "False"


def test_dependencies_are_secrets_claims_and_config_maps(interpret: Any) -> None:
    body = service(
        imagePullSecrets=[{"name": "registry"}],
        serviceAccountName="loader",
        volumes=[{"name": "settings", "configMap": {"name": "settings"}}],
    )
    model = body["spec"]["predictor"]["model"]
    model["env"] = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token"}}}]
    model["storage"] = {"key": "s3"}
    model["storageUri"] = "pvc://model-store/tiny-chat"
    (found,) = interpret("interpretDependency", observed=body).values()
    names = {(each["kind"], each["name"]) for each in found}
    assert names == {
        ("Secret", "registry"),
        ("ServiceAccount", "loader"),
        ("ConfigMap", "settings"),
        ("Secret", "hf-token"),
        ("Secret", "storage-config"),
        ("PersistentVolumeClaim", "model-store"),
    }


def test_the_id_of_a_policy_made_anew_does_not_reach_the_pods(interpret: Any) -> None:
    label = "propagationpolicy.karmada.io/permanent-id"
    desired, observed = service(), member()
    desired["metadata"]["labels"][label] = "new"
    observed["metadata"]["labels"][label] = "held"
    retained = interpret("Retain", desired=desired, observed=observed)["retained"]
    assert retained["metadata"]["labels"][label] == "held"
    assert retained["spec"] == desired["spec"], "what Pulumi declares still arrives"


def test_every_rule_that_karmada_asks_about_has_a_script() -> None:
    rules = interpreter.resource_interpreter()["spec"]["customizations"]
    assert set(rules) == {
        "replicaResource",
        "replicaRevision",
        "retention",
        "statusReflection",
        "statusAggregation",
        "healthInterpretation",
        "dependencyInterpretation",
    }
    scripts = {path.stem for path in (fleets.REPO / "components" / "federation" / "lua").glob("*.lua")}
    assert len(scripts) == len(rules)
