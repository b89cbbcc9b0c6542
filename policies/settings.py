"""How strictly each environment is judged, and by which limits: environments.yaml.

It lies here and not in the stack file, so that who changes a fleet is not who changes what it is held to; give the folder owners
of its own in CODEOWNERS.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from specs import yaml_file
from specs.base import Spec, parse
from specs.types import Jurisdiction

FILE = Path(__file__).with_name("environments.yaml")


class Settings(Spec):
    """What one environment is held to."""

    kind: Literal["local", "development", "production"] = "production"
    """`production`: a breach fails the preview. `development`: it is advisory. `local`: advisory too, and rules about what one machine
    has not are left out."""
    allowed_registries: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Where images may come from: hosts with or without a path, such as `registry.example.com/llm`. None are allowed without."""
    signed: bool = False
    """Whether a policy that verifies signatures must stand in every cluster."""
    storage: dict[str, Jurisdiction] = Field(default_factory=dict[str, Jurisdiction])
    """Where model stores are: the beginning of a source → the law that governs it."""
    monthly_budget: Annotated[float, Field(gt=0)] | None = None
    """The most that the GPU pools at their largest may cost in a month of 730 hours, in dollars."""
    monthly_change: Annotated[float, Field(gt=0)] | None = None
    """The most that one change may add to it."""


class _File(Spec):
    environments: dict[str, Settings] = Field(default_factory=dict[str, Settings])
    """Stacks by name."""
    others: Settings = Settings()
    """Stacks that are not named."""


def read() -> Any:
    """The file as YAML has it. Raises SpecError."""
    return yaml_file.read(FILE)


def settings(stack: str, raw: Any) -> Settings:
    """What `stack` is held to; a stack that is not named is production. Raises SpecError with everything that is wrong."""
    whole = parse(_File, raw, lambda _: ())
    return whole.environments.get(stack, whole.others)
