"""What the whole program declares: which resources, in which order, how many, and what it hands out."""

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.fleet import Fleet, FleetArgs
from federation import rights
from specs import labels
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet
from toolchain.pins import PINS


def declare(raw: dict[str, Any], *, preview: bool = False, host_kubeconfig: str | None = None, **kubeconfigs: str) -> tuple[engine.Engine, dict[str, Any]]:
    spec = parse_fleet(raw)
    return engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs=kubeconfigs, host_kubeconfig=host_kubeconfig)).outputs(), preview=preview)


@pytest.fixture(scope="module")
def local() -> tuple[engine.Engine, dict[str, Any]]:
    return declare(fleets.read(fleets.REPO / "stacks" / "Pulumi.local.yaml"))


def test_outputs_are_the_contract(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    _, outputs = local
    doors = outputs["endpoints"]["frontDoors"]
    assert set(outputs) == {"hub", "endpoints", "clusters", "placements", "failover", "runtimeImage", "plan", "kubeconfigs"}
    assert set(outputs["failover"]) == set(outputs["placements"])
    assert set(doors) == {"us-east", "us-west", "eu-west"}
    assert outputs["endpoints"]["models"]["tiny-chat"] == {"openaiBaseUrl": f"{doors['us-east']}/tiny-chat/v1", "clusters": ["us-east", "us-west"]}
    assert outputs["clusters"]["us-west"] == {
        "region": "us-west",
        "zone": "us-west-1",
        "driver": "local",
        "simulatedGpus": True,
        "gpuPools": [{"name": "a100", "accelerator": "A100", "nodes": 4, "gpus": 32}],
    }
    assert outputs["placements"]["llama-3-70b"] == {
        "us-east": {"weight": 3, "replicas": 3},
        "us-west": {"weight": 2, "replicas": 2},
        "eu-west": {"weight": 1, "replicas": 1},
    }
    assert outputs["plan"]["models"]["qwen-eu"] == {"eu-west": {"accelerator": "H100", "count": 2, "replicas": 2}}
    assert outputs["plan"]["pools"][2] == {
        "cluster": "us-west",
        "name": "a100",
        "accelerator": "A100",
        "capacityType": "reserved",
        "provider": "",
        "region": "us-west",
        "gpusPerNode": 8,
        "leastNodes": 4,
        "mostNodes": 4,
        "usedGpus": 16,
    }
    assert set(outputs["kubeconfigs"]) == {"hub", "us-east", "us-west", "eu-west"}


def test_kubeconfigs_are_secrets() -> None:
    spec = parse_fleet(fleets.small())
    seen: list[bool] = []

    def program() -> dict[str, pulumi.Input[Any]]:
        fleet = Fleet("fleet", FleetArgs(spec=spec))
        secret = pulumi.Output.from_input(fleet.kubeconfigs.is_secret())
        secret.apply(seen.append)
        return {}

    engine.run(program)
    assert seen == [True]


def test_there_is_one_kubernetes_provider_and_it_is_the_hubs(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    declared, _ = local
    (provider,) = [each for each in declared.declared if each.type == "pulumi:providers:kubernetes"]
    assert provider.inputs["kubeconfig"] == "kubeconfig of hub"
    # One that this program makes may be made anew under its name, and is then empty.
    assert "clusterIdentifier" not in provider.inputs
    assert all(provider.name in each.provider for each in declared.declared if each.type.startswith("kubernetes:"))


def test_what_a_command_prints_is_secret_where_its_input_is(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    commands = [each for each in local[0].declared if each.type == "command:local:Command"]
    secret = [each for each in commands if "stdin" in each.secrets]
    assert secret
    # The official command plugin does not carry the mark from stdin to stdout.
    assert [each.name for each in secret if not each.secret_outputs >= {"stdout", "stderr"}] == []


@pytest.mark.parametrize("file", fleets.stack_files(), ids=lambda file: file.stem)
def test_no_object_declares_empty_annotations(file: Path) -> None:
    # The official kubernetes plugin would update a custom resource with `annotations: {}` at every preview, for ever.
    raw = fleets.read(file)
    spec = parse_fleet(raw)
    given = {each.name: "apiVersion: v1\nkind: Config\n" for each in (spec.hub, *spec.clusters)}
    declared, _ = declare(raw, preview=False, **given)
    objects = [each for each in declared.declared if each.type.startswith("kubernetes:")]
    assert objects
    assert [each.name for each in objects if _empty_annotations(each.inputs)] == []


def _empty_annotations(value: Any) -> bool:
    if isinstance(value, dict):
        return any((key == "annotations" and not each) or _empty_annotations(each) for key, each in value.items())
    return isinstance(value, list) and any(map(_empty_annotations, value))


def test_members_are_changed_by_the_driver_only(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    declared, _ = local
    commands = declared.commands()
    verbs = sorted(each["create"] for name, each in commands.items() if name.startswith("us-east"))
    assert verbs == [
        "fleet-driver cluster apply",
        "fleet-driver control-plane apply",
        "fleet-driver control-plane apply",
        "fleet-driver gateways apply",
        "fleet-driver gpu-pools apply",
        "fleet-driver member join",
        "fleet-driver model-store apply",
    ]
    for each in commands.values():
        assert each["delete"].split()[1] == each["create"].split()[1]
        # Stdout of `cluster apply` is a kubeconfig: neither logged nor handed on in the environment.
        assert each["logging"] == "stderr"
        assert each["addPreviousOutputInEnv"] is False


def test_the_driver_gets_what_it_reads(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    given = {name: each["stdin"] for name, each in local[0].commands().items()}
    assert given["us-east-cluster"] == {"name": "us-east", "role": "member", "region": "us-east", "zone": "us-east-1"}
    assert given["hub-cluster"]["role"] == "hub"
    assert given["us-west-gpu-pools-nodes"] == {
        "cluster": "us-west",
        "pools": [{"name": "a100", "accelerator": "A100", "nodes": 4, "gpusPerNode": 8, "capacityTypes": ["reserved"], "taints": []}],
        "cpuNode": True,
    }
    assert given["us-east-gateways-processes"] == {"cluster": "us-east", "region": "us-east", "zone": "us-east-1", "relay": True}
    flags = given["hub-karmada-processes"]["settings"]["flags"]
    assert flags["karmada-controller-manager"]["cluster-failure-threshold"] == "4s", "the stack file's, not a default"
    assert flags["karmada-webhook"] == {"allow-no-execute-taint-policy": "true"}


def test_a_new_pin_is_a_change_that_pulumi_sees(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    given = {name: each["stdin"] for name, each in local[0].commands().items()}
    assert given["us-east-kserve-processes"]["version"] == PINS.kserve
    assert given["hub-karmada-processes"]["version"] == PINS.karmada


def test_the_join_carries_both_kubeconfigs_as_a_secret(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    joined = local[0].named("us-east-membership-join")
    assert "stdin" in joined.secrets, "a kubeconfig in plain text would lie in the state"
    assert json.loads(joined.inputs["stdin"]) == {
        "cluster": "us-east",
        "hubKubeconfig": "kubeconfig of hub",
        "memberKubeconfig": "kubeconfig of us-east",
        "region": "us-east",
        "zone": "us-east-1",
        "provider": "",
        "labels": {},
        # Which: test_propagation.py.
        "kinds": json.loads(joined.inputs["stdin"])["kinds"],
        "rights": rights.digest(),
    }


def test_a_packed_model_is_in_the_registry_before_it_is_served() -> None:
    raw = fleets.small()
    source = "oci://registry.example.com/models/mine@sha256:" + "5" * 64
    raw["models"][0] |= {"source": source, "pack": "../my models/mine"}
    name = raw["models"][0]["name"]
    declared, _ = declare(raw)
    pushed = declared.named(f"{name}-artifact-push")
    assert pushed.inputs["create"] == f"fleet model ensure '../my models/mine' {source}"
    # Another digest is another artifact; nothing is removed from a registry that other stacks use.
    assert pushed.inputs["triggers"] == [source]
    assert "delete" not in pushed.inputs
    assert pushed.name in declared.all_before(f"{name}-isvc")


@pytest.mark.parametrize(("clusters", "models"), [(8, 2), (5, 4)])
def test_resources_grow_with_clusters_and_models_not_with_their_product(clusters: int, models: int) -> None:
    def count(clusters: int, models: int) -> int:
        return declare(fleets.generated(clusters, models))[0].counted()

    base = count(4, 1)
    per_cluster, per_model = count(5, 1) - base, count(4, 2) - base
    assert count(clusters, models) == base + per_cluster * (clusters - 4) + per_model * (models - 1)


def test_the_edges_of_the_graph_grow_no_faster() -> None:
    def edges(clusters: int, models: int) -> int:
        return sum(len(each.dependencies) for each in declare(fleets.generated(clusters, models))[0].declared)

    assert edges(12, 12) <= 2.2 * edges(6, 6)


def test_a_preview_knows_as_much_as_it_can_before_the_first_update() -> None:
    declared, _ = declare(fleets.small(), preview=True)
    assert {each.inputs["metadata"]["name"] for each in declared.of_kind("InferenceService")} == {"chat"}


def test_namespaces_and_the_engine_guard_stand_on_the_hub_and_nothing_else_of_core(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    core = [each for each in local[0].declared if each.type.startswith("kubernetes:core/")]
    assert {each.inputs["metadata"]["name"] for each in core} == {labels.NAMESPACE_MODELS, labels.NAMESPACE_INGRESS, "engine-guard"}


def test_a_model_comes_after_its_policies_its_runtime_and_its_members(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    before = local[0].all_before("llama-3-70b-isvc")
    assert before >= {
        "llama-3-70b-placement-propagation",
        "llama-3-70b-placement-overrides",
        "federation-interpreter",
        "federation-annotations",
        "federation-taints",
        "runtimes-vllm",
        "runtimes-vllm-cpu",
        "us-east-membership-join",
        "eu-west-membership-join",
        "us-east-model-store-seed",
    }


def test_a_gateway_comes_after_its_listener_is_moved(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    declared, _ = local
    assert "mesh-front-door-listener" in declared.all_before("mesh-front-door")
    assert "mesh-regional-listener" in declared.all_before("mesh-regional-gateway")
    assert "mesh-cluster-header" in declared.all_before("tiny-chat-routes-regional")
    assert "mesh-egress-listener" in declared.all_before("mesh-egress")
    assert "mesh-relay-ports" in declared.all_before("mesh-relay")


def test_a_route_comes_after_what_it_leads_to(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    declared, _ = local
    assert {"mesh-relay", "mesh-relay-rule", "mesh-egress"} <= declared.all_before("tiny-chat-routes-front-door")
    # The order of another region would hold for a moment.
    assert "tiny-chat-routes-order" in declared.all_before("tiny-chat-routes-failover")


def test_without_a_relay_there_is_nothing_of_it() -> None:
    declared, _ = declare(fleets.small())
    assert not [each.name for each in declared.declared if "relay" in each.name or "egress" in each.name]
    assert not any(each["stdin"]["relay"] for each in declared.commands().values() if "relay" in each["stdin"])


def test_a_front_door_prefers_its_own_region_also_in_a_cluster_without_the_model() -> None:
    raw = fleets.small()
    raw["clusters"].append(fleets.cluster("west-2", region="west"))
    declared, _ = declare(raw)
    (order,) = [each.inputs for each in declared.of_kind("OverridePolicy") if each.inputs["metadata"]["name"] == "chat.order"]
    targets = {each["targetCluster"]["clusterNames"][0]: each["overriders"]["plaintext"][0]["value"] for each in order["spec"]["overrideRules"]}
    assert targets == {name: ["not.inference-fleet.dev/east=true"] for name in ("west", "west-2")}


def test_a_member_joins_after_its_control_planes(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    before = local[0].all_before("us-east-membership-join")
    assert before >= {"us-east-cluster", "us-east-kserve-processes", "us-east-istio-processes", "hub-karmada-processes"}
    # The other regions have no part in it: one that is slow must not delay the rest.
    assert not {name for name in before if name.startswith(("us-west", "eu-west"))}


def test_what_lies_in_a_cluster_goes_with_it(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    declared, _ = local
    for noun in ("kserve-processes", "istio-processes", "gpu-pools-nodes", "gateways-processes", "model-store-seed"):
        assert declared.named(f"us-east-{noun}").deleted_with == "us-east-cluster"
    # The hub has to forget the cluster, whatever becomes of it.
    assert declared.named("us-east-membership-join").deleted_with == "hub-cluster"


def existing(**more: Any) -> dict[str, Any]:
    driver = {
        "kind": "existing",
        "kubeconfigSecret": "kubeconfig-west",
        "frontDoor": {"url": "https://llm.west.example.com"},
        "regionalGateway": {"address": "192.0.2.1", "port": 8443},
        **more,
    }
    raw = fleets.small()
    raw["clusters"][1]["driver"] = driver
    return raw


KUBECONFIG = "apiVersion: v1\nkind: Config\ncurrent-context: one\ncontexts: [{name: one}, {name: two}]\n"


def test_an_existing_cluster_is_joined_and_otherwise_left_alone() -> None:
    declared, outputs = declare(existing(), west=KUBECONFIG)
    commands = {name: each["create"] for name, each in declared.commands().items() if name.startswith("west")}
    assert commands == {
        "west-kserve-verified": "fleet-driver control-plane verify",
        "west-istio-verified": "fleet-driver control-plane verify",
        "west-membership-join": "fleet-driver member join",
    }
    assert outputs["endpoints"]["frontDoors"]["west"] == "https://llm.west.example.com"
    assert outputs["clusters"]["west"]["driver"] == "existing"
    assert outputs["clusters"]["west"]["simulatedGpus"] is False
    assert outputs["endpoints"]["regionalGateways"]["west"] == "http://192.0.2.1:8443"
    (entry,) = declared.of_kind("ServiceEntry")
    assert entry.inputs["spec"]["endpoints"][1] == {
        "address": "192.0.2.1",
        "ports": {"http2": 8443},
        "locality": "west",
        "labels": {"not.inference-fleet.dev/east": "true"},
    }
    # Its gateways have addresses of their own; only the local ones are moved to loopback.
    for policy in declared.of_kind("ClusterOverridePolicy"):
        if policy.inputs["metadata"]["name"].endswith("-listener"):
            assert [each["targetCluster"]["clusterNames"] for each in policy.inputs["spec"]["overrideRules"]] == [["east"]]


def only_existing() -> dict[str, Any]:
    raw = existing()
    raw["clusters"] = [raw["clusters"][1]]
    raw["models"][0]["placement"] = {"clusters": [{"name": "west"}], "minimumClusters": 1}
    raw["models"][0]["replicas"] = 1
    return raw


def test_what_somebody_else_installed_is_verified_before_the_join_and_again_when_it_matters() -> None:
    raw = only_existing()
    raw["frontDoors"] = {"authentication": {"kind": "external", "provider": "opa"}}
    declared, _ = declare(raw, west=KUBECONFIG)
    assert declared.all_before("west-membership-join") >= {"west-kserve-verified", "west-istio-verified"}
    for plane in ("kserve", "istio"):
        command = declared.commands()[f"west-{plane}-verified"]
        assert "delete" not in command, "nothing was made"
        assert "triggers" not in command, "it runs when what it reads changes, not at every update"
        given = command["stdin"]
        assert (given["cluster"], given["controlPlane"], given["kubeconfig"]) == ("west", plane, KUBECONFIG)
        assert "serving.kserve.io/v1beta1/InferenceService" in given["kinds"]
        assert given["provider"] == "opa"
        assert "stdin" in declared.named(f"west-{plane}-verified").secrets


def test_a_provided_hub_is_verified_before_anything_is_declared_on_it() -> None:
    raw = only_existing()
    host = {"kubeconfigSecret": "kubeconfig-host", "context": "management", "namespace": "karmada"}
    raw["hub"] = {"name": "control", "driver": {"kind": "existing", "kubeconfigSecret": "kubeconfig-hub", "host": host}}
    raw["failover"] = {"capacity": {"failureThresholdSeconds": 20}}
    declared, _ = declare(raw, host_kubeconfig="of the host", control=KUBECONFIG, west=KUBECONFIG)
    given = declared.commands()["control-karmada-verified"]["stdin"]
    assert (given["cluster"], given["controlPlane"]) == ("control", "karmada")
    assert (given["hostKubeconfig"], given["hostContext"], given["hostNamespace"]) == ("of the host", "management", "karmada")
    assert given["settings"]["flags"]["karmada-controller-manager"]["cluster-failure-threshold"] == "20s"
    for each in declared.declared:
        if each.type.startswith("kubernetes:"):
            assert "control-karmada-verified" in declared.all_before(each.name), each.name


def test_with_a_member_that_stays_objects_are_deleted_one_by_one() -> None:
    declared, _ = declare(existing(), west=KUBECONFIG)
    assert declared.named("west-membership-join").deleted_with == ""
    assert not any(each.deleted_with for each in declared.declared if each.type.startswith("kubernetes:"))


def test_the_chosen_context_becomes_the_current_one_and_exec_plugins_stay() -> None:
    user = {"name": "cloud", "user": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "get-token", "interactiveMode": "Never"}}}
    declared, _ = declare(existing(context="two"), west=KUBECONFIG + yaml.safe_dump({"users": [user]}))
    joined = yaml.safe_load(declared.commands()["west-membership-join"]["stdin"]["memberKubeconfig"])
    assert joined["current-context"] == "two"
    assert joined["users"] == [user]


def test_a_cluster_that_leaves_the_stack_file_is_in_no_policy() -> None:
    raw = fleets.generated(4, 2)
    raw["clusters"].pop()
    for model in raw["models"]:
        model["placement"]["clusters"] = [each for each in model["placement"]["clusters"] if each["name"] != "region-3"]
        model["replicas"] = 3
    declared, _ = declare(raw)
    assert not any("region-3" in json.dumps(each.inputs) for each in declared.declared)


def test_the_type_tokens_are_a_public_interface(local: tuple[engine.Engine, dict[str, Any]]) -> None:
    """Renaming one replaces every child of it in every stack: that wants an alias."""
    assert {each.type for each in local[0].declared if each.type.startswith("fleet:")} == {
        "fleet:fleet:Fleet",
        "fleet:clusters:Cluster",
        "fleet:gpu_pools:GpuPools",
        "fleet:control_planes:ControlPlane",
        "fleet:membership:Membership",
        "fleet:placement:Federation",
        "fleet:placement:Placement",
        "fleet:serving:Runtimes",
        "fleet:serving:ModelStore",
        "fleet:serving:Model",
        "fleet:network_policies:NetworkPolicies",
        "fleet:mesh:Gateways",
        "fleet:mesh:Mesh",
        "fleet:mesh:Routes",
    }
