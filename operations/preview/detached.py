"""A preview of a stack file on a state of its own: real engine, real program, real policies, no credential and no cluster.

The program runs as in `pulumi preview -s ENV` of a stack that does not exist yet. Kubeconfigs of clusters that stand already are
placeholders: nobody is asked in the preview of a new stack.
"""

import copy
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation
from pulumi.automation import errors as pulumi_errors
from pulumi.automation import events

from operations.preview.result import Preview, Violation
from policies.pack import COST_CHANGE, DEPLOYED_COST, FILES, NOTED
from specs import yaml_file
from toolchain import env, paths
from toolchain.backend import BACKEND_URL

_PLACEHOLDER = "placeholder.{cluster}.kubeconfig"
# The engine's marks for colours in texts of policies.
_COLOURS = re.compile(r"<\{%.*?%\}>")
# The engine's own remarks that something failed; who failed has said why.
_REMARKS = ("an unhandled error occurred: program exited with non-zero exit code", "preview failed")


class Project:
    """A copy of the program in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stacks: dict[str, automation.Stack] = {}
        os.environ.update(env.tooling())
        # Not the clone itself: making a stack writes to its file.
        shutil.copytree(paths.REPO / "stacks", folder / "stacks", ignore=shutil.ignore_patterns("Pulumi.*.yaml", "examples", "__pycache__"))
        description = (paths.REPO / "Pulumi.yaml").read_text(encoding="utf-8").replace("virtualenv: .venv", f"virtualenv: {paths.REPO / '.venv'}")
        (folder / "Pulumi.yaml").write_text(description, encoding="utf-8")

    def preview(self, stack: str, spec: Mapping[str, Any], deployed_cost: float | None = None) -> Preview:
        """What the stack with this `fleet:spec` declares, and what the policies say of it.

        `deployed_cost`: what the stack costs in a month before the change, for the rule that limits it.
        """
        started = time.monotonic()
        _write(self.folder, stack, spec)
        configuration = self.folder / "policies.json"
        told = {COST_CHANGE: {DEPLOYED_COST: deployed_cost}} if deployed_cost is not None else {}
        configuration.write_text(json.dumps(told), encoding="utf-8")
        seen = _Seen()
        try:
            self._stack(stack).preview(
                on_event=seen, color="never", suppress_progress=True, policy_packs=[str(paths.REPO / "policies")], policy_pack_configs=[str(configuration)]
            )
        except pulumi_errors.CommandError as error:
            if not seen.errors and not any(each.mandatory for each in seen.violations):
                seen.errors += seen.stderr or [str(error)[-2000:]]
        violations = sorted(dict.fromkeys(seen.violations), key=lambda each: (not each.mandatory, each.policy, each.resource, each.message))
        return Preview(
            stack=stack,
            spec=spec,
            resources=seen.resources,
            violations=tuple(violations),
            errors=tuple(dict.fromkeys(seen.errors)),
            seconds=round(time.monotonic() - started, 1),
        )

    def _stack(self, name: str) -> automation.Stack:
        if name not in self._stacks:
            # Before any that the caller has for a stack of theirs.
            backend = {BACKEND_URL: f"file://{self.folder}", "PULUMI_CONFIG_PASSPHRASE": "preview"}
            options = automation.LocalWorkspaceOptions(work_dir=str(self.folder), env_vars={**env.tooling(), **backend})
            self._stacks[name] = automation.create_stack(stack_name=name, work_dir=str(self.folder), opts=options)
        return self._stacks[name]


@contextmanager
def project() -> Generator[Project]:
    """A project whose folder goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="fleet-preview-") as folder:
        yield Project(Path(folder))


def _write(folder: Path, stack: str, spec: Mapping[str, Any]) -> None:
    file = folder / "stacks" / f"Pulumi.{stack}.yaml"
    written: dict[str, Any] = yaml_file.read(file) if file.exists() else {}
    held = copy.deepcopy(dict(spec))
    # The file may be wrong in any way: what does not look like a kubeconfig's place is left for the parser to refuse.
    for cluster in (held.get("hub"), *(held.get("clusters") or ())):
        if not isinstance(cluster, dict):
            continue
        driver = cluster.get("driver")
        # A hub may name a second cluster, in which Karmada's processes run.
        for place, suffix in ((driver, ""), (driver.get("host") if isinstance(driver, dict) else None, "-host")):
            if isinstance(place, dict) and ("kubeconfigSecret" in place) != ("kubeconfigPath" in place):
                place.pop("kubeconfigSecret", None)
                place["kubeconfigPath"] = _PLACEHOLDER.format(cluster=f"{cluster.get('name', 'hub')}{suffix}")
                (folder / "stacks" / place["kubeconfigPath"]).write_text(_kubeconfig(place.get("context") or "placeholder"), encoding="utf-8")
    file.write_text(yaml_file.dump({**written, "config": {"fleet:spec": held}}), encoding="utf-8")


def _kubeconfig(context: str) -> str:
    # Port 0 is nobody's.
    cluster = {"name": "placeholder", "cluster": {"server": "https://127.0.0.1:0"}}
    there = {"name": context, "context": {"cluster": "placeholder", "user": "placeholder"}}
    users = [{"name": "placeholder", "user": {}}]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": users, "contexts": [there], "current-context": context})


class _Seen:
    """What the engine's events tell."""

    def __init__(self) -> None:
        self.resources: dict[str, Mapping[str, Any]] = {}
        self.violations: list[Violation] = []
        self.errors: list[str] = []
        self.stderr: list[str] = []
        """What else was written, libraries' remarks too: told where nothing else says why there is no preview."""

    def __call__(self, event: events.EngineEvent) -> None:
        if event.resource_pre_event:
            step = event.resource_pre_event.metadata
            if step.new is not None and step.new.custom:
                self.resources[f"{step.type} {_name(step.urn)}"] = step.new.inputs or {}
        if event.policy_event and event.policy_event.policy_name != NOTED:
            told = event.policy_event
            message = _COLOURS.sub("", told.message).strip()
            resource = "" if told.policy_name == FILES or "pulumi:pulumi:Stack" in (told.resource_urn or "") else _name(told.resource_urn or "")
            self.violations.append(Violation(policy=told.policy_name, mandatory=told.enforcement_level == "mandatory", resource=resource, message=message))
        if event.diagnostic_event:
            text = _COLOURS.sub("", event.diagnostic_event.message).strip()
            holder = {"error": self.errors, "info#err": self.stderr}.get(event.diagnostic_event.severity)
            if holder is not None and text and not text.startswith(_REMARKS):
                holder.append(text)


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]
