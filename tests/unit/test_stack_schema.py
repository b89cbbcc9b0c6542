"""The generated files are what the Specs say now, and an editor that uses the schema agrees with the program."""

from typing import Any

import pytest

from specs import yaml_file
from stacks import schema
from tests.unit import fleets


def test_the_json_schema_is_current() -> None:
    assert schema.SCHEMA.read_text(encoding="utf-8") == schema.schema_text(), "run: make generate"


def test_the_reference_is_current() -> None:
    written = schema.REFERENCE.read_text(encoding="utf-8").split(schema.MARK, 1)[1]
    assert written == f"\n{schema.reference()}\n", "run: make generate"


@pytest.mark.parametrize("stack_file", fleets.stack_files(), ids=lambda path: path.stem)
def test_every_stack_file_names_the_schema(stack_file: Any) -> None:
    assert stack_file.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")


def test_every_field_of_a_stack_file_is_in_the_schema() -> None:
    definitions = schema.schema()["$defs"]
    root = schema.schema()["properties"]["config"]["properties"]["fleet:spec"]

    def missing(value: Any, spec: dict[str, Any], path: str) -> list[str]:
        variants = [definitions[each["$ref"].rsplit("/", 1)[-1]] if "$ref" in each else each for each in [spec, *spec.get("anyOf", []), *spec.get("oneOf", [])]]
        if isinstance(value, list):
            items = next(each["items"] for each in variants if "items" in each)
            return [found for place, each in enumerate(value) for found in missing(each, items, f"{path}[{place}]")]
        if isinstance(value, dict):
            fields: dict[str, Any] = {}
            for each in variants:
                fields |= each.get("properties", {})
            return [found for key, each in value.items() for found in (missing(each, fields[key], f"{path}.{key}") if key in fields else [f"{path}.{key}"])]
        return []

    for stack_file in fleets.stack_files():
        assert missing(fleets.read(stack_file), root, stack_file.name) == []


def test_the_example_of_the_documentation_is_valid() -> None:
    text = schema.REFERENCE.read_text(encoding="utf-8").split("```yaml\n", 1)[1].split("```", 1)[0]
    fleets.parse_fleet(yaml_file.parse(text)["config"]["fleet:spec"])
