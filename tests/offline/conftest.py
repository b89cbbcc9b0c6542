"""Pulumi projects in temporary folders, run by the real engine with the offline plugins."""

import json
import os
import subprocess
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pulumi_offline import install
from toolchain import plugins, tools


@dataclass(frozen=True)
class Done:
    code: int
    output: str

    def ok(self) -> "Done":
        assert self.code == 0, self.output
        return self


@dataclass
class Project:
    """One project with one stack `test` and a backend of its own."""

    folder: Path
    environment: dict[str, str] = field(repr=False)

    def write(self, program: str, runtime: dict[str, Any] | None = None) -> None:
        """`program` runs with `pulumi`, `command` and `k8s` (pulumi_kubernetes) imported."""
        imports = "import pulumi\nimport pulumi_command as command\nimport pulumi_kubernetes as k8s\n"
        (self.folder / "__main__.py").write_text(imports + textwrap.dedent(program))
        description = {"name": "proj", "runtime": {"name": "python", **({"options": runtime} if runtime else {})}}
        (self.folder / "Pulumi.yaml").write_text(json.dumps(description))

    def pulumi(self, *arguments: str, **environment: str) -> Done:
        command = [str(tools.path("pulumi")), *arguments, "--non-interactive", "--color", "never"]
        variables = {**self.environment, **environment}
        done = subprocess.run(command, cwd=self.folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)
        return Done(done.returncode, done.stdout + done.stderr)

    def up(self, *arguments: str, **environment: str) -> Done:
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", "test", *arguments, **environment)

    def preview(self, *arguments: str, **environment: str) -> Done:
        return self.pulumi("preview", "--diff", "--stack", "test", *arguments, **environment)

    def quiet(self) -> None:
        """Fails unless a preview finds nothing to do."""
        self.preview("--expect-no-changes").ok()

    def destroy(self) -> Done:
        return self.pulumi("destroy", "--yes", "--skip-preview", "--stack", "test")

    def steps(self, **environment: str) -> dict[str, str]:
        """Name of each resource that a preview would touch → operation. Providers and the stack are left out."""
        done = self.pulumi("preview", "--json", "--stack", "test", **environment)
        parsed = json.loads(done.output[done.output.index("{") :].rpartition("}")[0] + "}")
        steps = {step["urn"].rpartition("::")[2]: step["op"] for step in parsed["steps"] if "pulumi:" not in step["urn"].split("::")[2]}
        return {name: operation for name, operation in steps.items() if operation != "same"}

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.pulumi("stack", "output", "--json", "--show-secrets", "--stack", "test").ok().output)

    def resources(self) -> list[dict[str, Any]]:
        """Resources in the state, without the stack and the providers."""
        state = json.loads(self.pulumi("stack", "export", "--stack", "test").ok().output)
        return [entry for entry in state["deployment"].get("resources", []) if not entry["type"].startswith("pulumi:")]


@pytest.fixture(scope="session")
def pulumi_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pulumi-home")
    install.install(tools.path("pulumi"), home, official=False)
    plugins.link_kubernetes(home)
    return home


@pytest.fixture
def project(tmp_path: Path, pulumi_home: Path) -> Project:
    backend = tmp_path / "backend"
    backend.mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "KUBECONFIG"))},
        "PULUMI_HOME": str(pulumi_home),
        "PULUMI_BACKEND_URL": f"file://{backend}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # No plugin may be looked for in the network.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    made = Project(folder, environment)
    made.write("")
    made.pulumi("stack", "init", "test").ok()
    return made
