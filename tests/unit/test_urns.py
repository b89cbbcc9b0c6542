"""Names, types and parents of everything that stacks declare: another URN is another resource, and the old one is deleted.

`python -m tests.unit.test_urns` writes the list anew, once each change in it is meant: a renamed resource needs an alias.
"""

from pathlib import Path

import pulumi

from components.fleet import Fleet, FleetArgs
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet

LIST = Path(__file__).with_name("urns.txt")
_KUBECONFIG = "apiVersion: v1\nkind: Config\n"


def urns() -> str:
    """One line each: stack, chain of parents, type and name."""
    lines: list[str] = []
    for file in (fleets.REPO / "stacks" / "Pulumi.local.yaml", fleets.REPO / "stacks" / "examples" / "Pulumi.prod-europe.yaml"):
        spec = parse_fleet(fleets.read(file))
        kubeconfigs: dict[str, pulumi.Input[str]] = {each.name: _KUBECONFIG for each in spec.clusters}
        recorded, _ = engine.run(lambda spec=spec, kubeconfigs=kubeconfigs: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs=kubeconfigs)).outputs())
        lines += sorted(f"{file.stem.removeprefix('Pulumi.')}: {each.parent or '-'} > {each.type} {each.name}" for each in recorded.declared)
    return "\n".join(lines) + "\n"


def test_no_resource_of_a_running_stack_gets_another_urn() -> None:
    assert urns() == LIST.read_text(encoding="utf-8")


if __name__ == "__main__":
    LIST.write_text(urns(), encoding="utf-8")
