"""Policies on the hub: division, eviction, what reaches every member, what stays on the hub."""

from typing import Any

from components.federation import federation, placement
from planning import division
from specs import labels
from specs.failover import CapacityFailoverSpec
from specs.placement import PlacementSpec
from tests.unit import fleets
from tests.unit.fleets import parse_fleet


def spec(**more: Any) -> PlacementSpec:
    raw = fleets.small()
    raw["models"][0]["replicas"] = 6
    raw["models"][0]["placement"].update(more)
    return parse_fleet(raw).models[0].placement


def test_the_policy_of_a_model_as_a_whole() -> None:
    clusters = [{"name": "west", "weight": 2}, {"name": "east", "weight": 1}]
    assert placement.propagation_policy("chat", spec(clusters=clusters), CapacityFailoverSpec()) == {
        "apiVersion": "policy.karmada.io/v1alpha1",
        "kind": "PropagationPolicy",
        "metadata": {
            "name": "chat",
            "namespace": "models",
            "labels": {
                "app.kubernetes.io/part-of": "inference-fleet",
                "app.kubernetes.io/component": "placement",
                "inference-fleet.dev/model": "chat",
            },
        },
        "spec": {
            "resourceSelectors": [{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "namespace": "models", "name": "chat"}],
            "propagateDeps": True,
            "conflictResolution": "Overwrite",
            "placement": {
                "clusterAffinity": {"clusterNames": ["east", "west"]},
                "clusterTolerations": [
                    {"key": "inference-fleet.dev/cluster-lost", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
                ],
                "replicaScheduling": {
                    "replicaSchedulingType": "Divided",
                    "replicaDivisionPreference": "Weighted",
                    "weightPreference": {
                        "staticWeightList": [
                            {"targetCluster": {"clusterNames": ["east"]}, "weight": 1_000_000_001},
                            {"targetCluster": {"clusterNames": ["west"]}, "weight": 2_000_000_002},
                        ]
                    },
                },
            },
            "failover": {"cluster": {"purgeMode": "Gracefully"}},
        },
    }


def test_models_tolerate_a_lost_cluster_for_a_while_and_no_new_work_goes_there() -> None:
    policy = placement.propagation_policy("chat", spec(), CapacityFailoverSpec())
    tolerated = {each["key"]: each for each in policy["spec"]["placement"]["clusterTolerations"]}
    assert tolerated[labels.TAINT_LOST]["tolerationSeconds"] == 60
    assert not {*federation.KARMADA_TAINTS, labels.TAINT_CORDONED} & set(tolerated)


def test_a_model_may_wait_longer_than_the_fleet_or_not_at_all() -> None:
    for own in (300, 0):
        policy = placement.propagation_policy("chat", spec(evictAfterSeconds=own), CapacityFailoverSpec())
        (lost,) = policy["spec"]["placement"]["clusterTolerations"]
        assert lost["tolerationSeconds"] == own


def test_the_taint_of_a_lost_cluster_comes_and_goes() -> None:
    body = federation.cluster_taint_policy()["spec"]
    assert body["taints"] == [{"key": labels.TAINT_LOST, "effect": "NoExecute"}]
    assert body["addOnConditions"] == [{"conditionType": "Ready", "operator": "NotIn", "statusValues": ["True"]}]
    # Karmada never takes it off by itself.
    assert body["removeOnConditions"] == [{"conditionType": "Ready", "operator": "In", "statusValues": ["True"]}]


def test_no_setting_is_used_that_karmada_deprecated_or_refuses() -> None:
    policy = placement.propagation_policy("chat", spec(), CapacityFailoverSpec())["spec"]
    assert policy["failover"]["cluster"]["purgeMode"] == "Gracefully"
    # Ignored beside static weights: it would promise a spread that nobody keeps.
    assert "spreadConstraints" not in policy["placement"]


def test_what_members_share_reaches_them_even_if_they_are_away() -> None:
    body = federation.shared_policy(["west", "east"])["spec"]
    assert body["placement"]["clusterAffinity"]["clusterNames"] == ["east", "west"]
    assert {each["key"] for each in body["placement"]["clusterTolerations"]} == {*federation.KARMADA_TAINTS, labels.TAINT_LOST, labels.TAINT_CORDONED}
    # Without a number of seconds: routes of a region that is only cut off from the hub must stay.
    assert all("tolerationSeconds" not in each and "effect" not in each for each in body["placement"]["clusterTolerations"])
    assert {each["kind"] for each in body["resourceSelectors"]} == {
        "ConfigMap",
        "ClusterServingRuntime",
        "Gateway",
        "ServiceEntry",
        "DestinationRule",
        "VirtualService",
        "EnvoyFilter",
        "RequestAuthentication",
        "AuthorizationPolicy",
        "NetworkPolicy",
    }


def test_pulumis_annotations_stay_on_the_hub() -> None:
    (rule,) = federation.strip_pulumi_annotations()["spec"]["overrideRules"]
    (overrider,) = rule["overriders"]["annotationsOverrider"]
    assert overrider["operator"] == "remove"
    assert set(overrider["value"]) == {placement.WAIT_FOR, placement.TIMEOUT_SECONDS}
    # No target: every cluster.
    assert "targetCluster" not in rule


def test_of_two_equal_clusters_the_first_in_failover_order_gets_the_odd_replica() -> None:
    even = spec(clusters=[{"name": "east", "weight": 1}, {"name": "west", "weight": 1}])
    assert division.division(even, 5) == {"east": 3, "west": 2}
    first_west = even.model_copy(update={"failover_order": ("west",)})
    assert division.division(first_west, 5) == {"east": 2, "west": 3}


def test_overrides_are_one_policy_with_a_rule_for_each_cluster() -> None:
    body = placement.override_policy("chat", {"west": {"/spec/a": 1}, "east": {"/spec/a": 2, "/spec/b": 3}})["spec"]
    assert body["overrideRules"] == [
        {
            "targetCluster": {"clusterNames": ["east"]},
            "overriders": {"plaintext": [{"path": "/spec/a", "operator": "replace", "value": 2}, {"path": "/spec/b", "operator": "replace", "value": 3}]},
        },
        {"targetCluster": {"clusterNames": ["west"]}, "overriders": {"plaintext": [{"path": "/spec/a", "operator": "replace", "value": 1}]}},
    ]
