"""Previews of the example production stacks by the real engine against a real API server that holds the pinned CRDs.

The hub of a stack that does not exist yet has no API server to ask. Here every provider is given one, so that each object that
the program declares is a server-side dry run, in the same preview that the policies judge.
"""

from pathlib import Path

import pytest

from operations.preview.detached import Project
from operations.preview.result import Preview
from tests.conftest import ApiServer
from tests.policies import changes
from tests.policies.changes import AMERICAS, EUROPE

_PROVIDERS = """
import pulumi
def _standing(args):
    if args.type_ == "pulumi:providers:kubernetes":
        return pulumi.ResourceTransformationResult({{**args.props, "kubeconfig": {kubeconfig!r}}}, args.opts)
    {more}
pulumi.runtime.register_stack_transformation(_standing)
"""
_MISSPELT = """if args.type_ == "kubernetes:{kind}":
        return pulumi.ResourceTransformationResult({{**args.props, "spec": {{**args.props["spec"], "misspelt": 1}}}}, args.opts)"""


def _previewed(folder: Path, server: ApiServer, stack: str, more: str = "") -> Preview:
    project = Project(folder)
    program = project.folder / "stacks" / "__main__.py"
    text = program.read_text(encoding="utf-8")
    provided = _PROVIDERS.format(kubeconfig=server.kubeconfig.read_text(encoding="utf-8"), more=more)
    # After the docstring and the imports, before anything is declared.
    program.write_text(text.replace("\nconfig = ", f"{provided}\nconfig = ", 1), encoding="utf-8")
    return project.preview(stack, changes.read(stack))


@pytest.mark.parametrize("stack", [AMERICAS, EUROPE])
def test_an_example_passes_the_policies_and_the_api_server(members_and_hub: ApiServer, tmp_path: Path, stack: str) -> None:
    found = _previewed(tmp_path, members_and_hub, stack)
    assert not found.errors
    assert found.violations == ()


@pytest.mark.parametrize("kind", ["serving.kserve.io/v1beta1:InferenceService", "policy.karmada.io/v1alpha1:PropagationPolicy"])
def test_a_field_that_the_pinned_version_has_not_fails_the_preview(members_and_hub: ApiServer, tmp_path: Path, kind: str) -> None:
    found = _previewed(tmp_path, members_and_hub, AMERICAS, _MISSPELT.format(kind=kind))
    assert "misspelt" in "\n".join(found.errors)
