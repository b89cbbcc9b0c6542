"""`pulumi preview --policy-pack policies` with the real engine, the real program and the real pack, on the example stacks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from operations import stack_file
from operations.preview.detached import Project
from operations.preview.result import Preview
from policies.rules import RULES
from tests.policies import changes
from tests.policies.changes import AMERICAS, EUROPE, Change

# What a pull request may add to the program: objects on the hub, beside the fleet.
_BESIDE = """
import json
from pulumi import CustomResource, ResourceOptions
from pulumi_kubernetes import Provider
hub = Provider("beside", kubeconfig=fleet.kubeconfigs.apply(lambda each: each["hub"]))
for token, name, body in json.loads((Path(__file__).parent / "beside.json").read_text()):
    CustomResource(token, name, body, ResourceOptions(provider=hub))
"""
# One of each way in which a change reaches the pack: the stack file, an object beside the fleet, and what overrides make of one.
# test_rules.py judges every change in this process; the engine adds nothing to what a rule says.
_BAD = [each for each in changes.by_rule() if each.rule in ("failover-partner", "rbac-wildcard", "override-readable")]

pytestmark = pytest.mark.integration

Tried = Callable[..., Preview]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """Previews a stack with this spec, and with objects beside the fleet."""
    project = Project(tmp_path_factory.mktemp("preview"))
    program = project.folder / "stacks" / "__main__.py"
    program.write_text(program.read_text() + _BESIDE)

    def run(stack: str, spec: Any, objects: Sequence[dict[str, Any]] = (), deployed_cost: float | None = None) -> Preview:
        beside = [(f"kubernetes:{_group(each['apiVersion'])}:{each['kind']}", each["metadata"]["name"], each) for each in objects]
        (project.folder / "stacks" / "beside.json").write_text(json.dumps(beside))
        return project.preview(stack, spec, deployed_cost)

    return run


def _group(version: str) -> str:
    return version if "/" in version else f"core/{version}"


def _refusing(found: Preview) -> set[str]:
    return {each.policy for each in found.violations if each.mandatory}


@pytest.mark.parametrize("stack", [AMERICAS, EUROPE])
def test_an_example_passes(tried: Tried, stack: str) -> None:
    found = tried(stack, changes.read(stack))
    assert not found.errors
    assert found.violations == ()
    assert any(name.startswith("kubernetes:serving.kserve.io/v1beta1:InferenceService ") for name in found.resources)


def test_a_good_change_passes(tried: Tried) -> None:
    spec = changes.read(AMERICAS)
    changes.model(spec, "llama-3-8b")["replicas"] = 6
    found = tried(AMERICAS, spec, [changes.deployment("exporter")], deployed_cost=100_000)
    assert not found.errors
    assert _refusing(found) == set()


@pytest.mark.parametrize("change", _BAD, ids=str)
def test_a_bad_change_is_refused_by_its_rule_alone(tried: Tried, change: Change) -> None:
    found = tried(change.stack, changes.edited(change), change.objects)
    assert _refusing(found) == {change.rule}, found.errors
    said = [each for each in found.violations if each.policy == change.rule]
    assert any(change.told in each.message and "\nwhy: " in each.message and "\nfix: " in each.message for each in said)
    assert change.about in {each.resource or "stack" for each in said}
    assert not found.errors


def test_a_change_that_costs_too_much_is_refused_where_the_cost_before_is_known(tried: Tried) -> None:
    spec = changes.read(AMERICAS)
    assert _refusing(tried(AMERICAS, spec, deployed_cost=80_000)) == {"cost-change"}


def test_the_local_stack_is_told_and_never_refused(tried: Tried) -> None:
    found = tried("local", stack_file.read_spec(stack_file.path("local")))
    assert not found.errors
    assert _refusing(found) == set()
    # A model in one region, images by tag: of value on one machine, and no reason to stop.
    assert {"failover-partner", "image-by-digest"} <= {each.policy for each in found.violations}
    assert not {rule.name for rule in RULES if not rule.local} & {each.policy for each in found.violations}


def test_a_stack_that_nobody_named_is_production(tried: Tried) -> None:
    found = tried("unheard-of", changes.read(AMERICAS))
    # It allows no registry until someone says which.
    assert _refusing(found) == {"image-registry"}


def test_a_wrong_stack_file_is_told_in_the_programs_words(tried: Tried) -> None:
    spec = changes.read(AMERICAS)
    spec["models"][0]["replicas"] = "four"
    found = tried(AMERICAS, spec)
    assert found.errors == ("1 error in the stack file\nstacks/Pulumi.prod-americas.yaml: models[0].replicas: must be a whole number, got: `four`",)


def test_the_clone_is_left_as_it_was(tried: Tried) -> None:
    before = {file: file.read_bytes() for file in Path(changes.EXAMPLES).glob("*")}
    tried(EUROPE, changes.read(EUROPE))
    assert {file: file.read_bytes() for file in Path(changes.EXAMPLES).glob("*")} == before
