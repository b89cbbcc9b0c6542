"""The offline language host under the real engine."""

import json
import sys
from pathlib import Path

from tests.offline.conftest import Project

PACK = """
import pulumi
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy

def check(args, report):
    if args.resource_type == "command:local:Command" and "forbidden" in args.props["create"]:
        report(f"{pulumi.get_stack()} of {pulumi.get_project()} must not say this: {pulumi.Config('proj').get('word')}")

PolicyPack(name="pack", enforcement_level=EnforcementLevel.MANDATORY, policies=[
    ResourceValidationPolicy(name="no-forbidden-words", description="Words are checked.", validate=check),
])
"""


def test_a_program_sees_its_configuration_stack_and_folder(project: Project) -> None:
    project.write(
        """
        import os
        config = pulumi.Config()
        pulumi.export("word", config.require("word"))
        pulumi.export("token", config.require_secret("token"))
        pulumi.export("where", [os.path.basename(os.getcwd()), pulumi.get_stack(), pulumi.get_project(), os.path.basename(pulumi.get_root_directory())])
        """
    )
    project.pulumi("config", "set", "word", "hello", "--stack", "test").ok()
    project.pulumi("config", "set", "--secret", "token", "hunter2secret", "--stack", "test").ok()
    done = project.up().ok()
    assert "hunter2secret" not in done.output
    assert project.outputs() == {"word": "hello", "token": "hunter2secret", "where": ["project", "test", "proj", "project"]}
    assert "command" in project.pulumi("about").output


def test_errors_of_a_program_are_shown_as_its_author_needs_them(project: Project) -> None:
    project.write('raise pulumi.RunError("stack file: models[0]: must be given")')
    refused = project.preview()
    assert refused.code != 0
    assert "stack file: models[0]: must be given" in refused.output
    assert "Traceback" not in refused.output
    project.write("def broken():\n    return 1 / 0\n\nbroken()")
    broken = project.preview()
    assert broken.code != 0
    assert "ZeroDivisionError" in broken.output
    assert "line 5, in broken" in broken.output
    assert "pulumi_offline" not in broken.output
    assert "runpy" not in broken.output
    (project.folder / "__main__.py").unlink()
    missing = project.preview()
    assert missing.code != 0
    assert "__main__.py" in missing.output
    project.write("import sys\nsys.exit(7)")
    assert "exit code: 7" in project.preview().output


def test_the_virtualenv_option_chooses_the_python(project: Project, tmp_path: Path) -> None:
    # Not a copy of this environment: only its name differs, which is what the program prints.
    other = project.folder / "other-venv"
    other.mkdir()
    (other / "pyvenv.cfg").write_text(Path(sys.prefix, "pyvenv.cfg").read_text())
    (other / "bin").mkdir()
    (other / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (other / "lib").symlink_to(Path(sys.prefix) / "lib")
    project.write("import os, sys\npulumi.export('prefix', sys.prefix)\npulumi.export('venv', os.environ['VIRTUAL_ENV'])", {"virtualenv": "other-venv"})
    project.up().ok()
    assert project.outputs() == {"prefix": str(other), "venv": str(other)}
    project.write("", {"virtualenv": "missing"})
    refused = project.preview()
    assert refused.code != 0
    assert f"holds no bin/python: `{project.folder / 'missing'}`" in refused.output
    project.write("", {"typechecker": "mypy"})
    refused = project.preview()
    assert refused.code != 0
    assert "runtime.options.typechecker: is not covered" in refused.output


def test_a_policy_pack_passes_and_fails_previews(project: Project, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text(json.dumps({"runtime": "python", "version": "0.0.1"}))
    (pack / "__main__.py").write_text(PACK)
    project.pulumi("config", "set", "word", "hush", "--stack", "test").ok()
    project.write('command.local.Command("fine", create="echo allowed")')
    passed = project.preview("--policy-pack", str(pack)).ok()
    assert "pack@v0.0.1" in passed.output or "pack" in passed.output
    project.write('command.local.Command("bad", create="echo forbidden")')
    failed = project.preview("--policy-pack", str(pack))
    assert failed.code != 0
    assert "no-forbidden-words" in failed.output
    assert "test of proj must not say this: hush" in failed.output
    assert failed.code != 0
    assert project.up("--policy-pack", str(pack)).code != 0
    (pack / "__main__.py").write_text("raise ValueError('broken pack')")
    broken = project.preview("--policy-pack", str(pack))
    assert broken.code != 0
    assert "broken pack" in broken.output
