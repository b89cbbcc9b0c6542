"""Drivers: each answers for itself, and nothing else in the tree asks what kind one is."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

import pulumi
import pytest

from components import drivers
from components.control_planes.control_plane import INSTALLERS
from components.drivers import existing
from components.drivers.driver import ClusterArgs, Door, Made, MemberArgs
from components.fleet import Fleet, FleetArgs
from planning import rules
from specs.base import Problem, SpecError
from specs.drivers import ClusterDriver
from specs.drivers.driver import Capabilities, DriverSpec, Role
from specs.fleet import FleetSpec
from specs.gpu_pools import GpuPoolSpec, TaintSpec
from specs.types import ControlPlaneName, InstallerName
from tests.unit import engine, fleets
from tests.unit.fleets import parse_fleet

# The classes in the union of drivers, by their kind.
SPECS: dict[str, type[DriverSpec]] = {get_args(each.model_fields["kind"].annotation)[0]: each for each in get_args(get_args(ClusterDriver)[0])}

_PACKAGES = ("specs/drivers/", "components/drivers/")


# Nobody asks for a driver's kind


def kind_checks(source: str) -> Iterator[int]:
    """Lines that decide by the kind of a driver: by its class, its module, or its name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module)):
                named = {module, *(f"{module}.{each.name}" for each in node.names)}
                if named & {f"{package}.drivers.{kind}" for package in ("specs", "components") for kind in SPECS}:
                    yield node.lineno
            case ast.Import() if any(each.name.startswith(("specs.drivers.", "components.drivers.")) for each in node.names):
                yield node.lineno
            case ast.Compare() if any(map(_is_kind, [node.left, *node.comparators])):
                yield node.lineno
            case ast.Subscript() if _is_kind(node.slice):
                yield node.lineno
            case ast.Match() if _is_kind(node.subject):
                yield node.lineno
            case ast.Call(func=ast.Attribute(attr="get" | "startswith", value=asked), args=[*given]) if any(map(_is_kind, [asked, *given])):
                yield node.lineno
            case _:
                pass


def _is_kind(node: ast.expr) -> bool:
    """`….driver.kind`, or `…["driver"]` of a stack's outputs."""
    match node:
        case ast.Attribute(attr="kind", value=ast.Attribute(attr="driver") | ast.Name(id="driver")):
            return True
        case ast.Subscript(slice=ast.Constant(value="driver")):
            return True
        case ast.Subscript(slice=ast.Constant(value="kind"), value=ast.Name(id="driver")):
            return True
        case ast.Call(func=ast.Attribute(attr="get", value=ast.Name(id="driver")), args=[ast.Constant(value="kind"), *_]):
            return True
        case _:
            return False


@pytest.mark.parametrize(
    "source",
    [
        "if cluster.driver.kind == 'local': ...",
        "others = [each for each in clusters if each.driver.kind not in ('local',)]",
        "match cluster.driver.kind:\n    case 'local': ...",
        "make = {'local': 1}[cluster.driver.kind]",
        "make = {'local': 1}.get(driver.kind)",
        "real = outputs['clusters'][name]['driver'] != 'local'",
        "if driver.get('kind') == 'existing': ...",
        "if driver['kind'] == 'existing': ...",
        "from specs.drivers.local import LocalDriver",
        "from specs.drivers import existing",
        "import components.drivers.local",
    ],
)
def test_a_check_of_a_kind_would_be_noticed(source: str) -> None:
    assert list(kind_checks(source))


def test_nothing_outside_the_drivers_asks_for_a_kind() -> None:
    listed = subprocess.run(["git", "ls-files", "-z", "--", "*.py"], cwd=fleets.REPO, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [each for each in listed if each and not each.startswith((*_PACKAGES, "tests/"))]
    assert "components/fleet.py" in files
    found = [f"{each}:{line}" for each in files if (fleets.REPO / each).exists() for line in kind_checks((fleets.REPO / each).read_text(encoding="utf-8"))]
    assert found == [], "ask specs/drivers/driver.py (capabilities) or components/drivers/driver.py; see docs/drivers.md"


# The two halves fit


def test_every_driver_of_a_stack_file_has_its_other_half_and_a_module_of_its_name() -> None:
    assert set(drivers.DRIVERS) == set(SPECS)
    for kind in SPECS:
        assert all((fleets.REPO / package / f"{kind}.py").exists() for package in _PACKAGES)


def test_every_driver_names_an_installer_that_there_is_for_each_control_plane() -> None:
    assert set(INSTALLERS) == set(get_args(InstallerName))
    raw: dict[str, dict[str, Any]] = {"local": {}, "existing": {"kubeconfig_path": "kubeconfig"}}
    assert set(raw) == set(SPECS)
    for kind, fields in raw.items():
        assert set(SPECS[kind].model_construct(kind=kind, **fields).capabilities.installers) == set(get_args(ControlPlaneName))


# A driver that the tree has never seen


class RackDriver(DriverSpec):
    """Racks of a data centre that a program of their own installs. Its GPUs are reserved, never spot."""

    kind: Literal["rack"] = "rack"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            owned=True,
            on_this_machine=False,
            simulated_gpus=False,
            faults=None,
            external_authentication=True,
            failback=False,
            front_door_tls=True,
            installers={"karmada": "provided", "kserve": "provided", "istio": "provided"},
        )

    def problems(self, role: Role, pools: tuple[GpuPoolSpec, ...]) -> Iterator[Problem]:
        for place, pool in enumerate(pools):
            if "spot" in pool.capacity_types:
                yield Problem(("gpuPools", place, "capacityTypes"), "driver `rack` has no spot capacity", list(pool.capacity_types))

    def taints(self, pool: GpuPoolSpec) -> tuple[TaintSpec, ...]:
        return (*pool.taints, TaintSpec(key="rack.example.com/gpu", value=pool.name))


class Rack:
    def __init__(self, spec: RackDriver) -> None:
        self._spec = spec

    def cluster(self, name: str, args: ClusterArgs, parent: pulumi.Resource) -> Made:
        owner = Racked(f"{name}-rack", parent)
        return Made(kubeconfig=pulumi.Output.from_input(f"kubeconfig of rack {args.name}"), owner=owner)

    def gpu_pools(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> None:
        for pool in args.spec.gpu_pools:
            Racked(f"{args.spec.name}-{pool.name}", opts.parent)

    def gateways(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> Door:
        return Door(front_door_url=f"https://{args.spec.name}.example.com", address="192.0.2.7", port=443)

    def supplies(self, args: MemberArgs, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
        return [Racked(f"{args.spec.name}-images", opts.parent)]


class Racked(pulumi.CustomResource):
    def __init__(self, name: str, parent: pulumi.Resource | None) -> None:
        super().__init__("rack:index:Thing", name, {}, pulumi.ResourceOptions(parent=parent))


def on_racks(raw: dict[str, Any]) -> FleetSpec:
    """The fleet with every cluster, the hub too, on the new driver."""
    spec = parse_fleet(raw)
    driver = cast(Any, RackDriver())
    clusters = tuple(each.model_copy(update={"driver": driver}) for each in spec.clusters)
    # Not a copy: that takes along what was computed from the clusters before.
    fields: dict[str, Any] = {name: getattr(spec, name) for name in FleetSpec.model_fields}
    fields |= {"hub": spec.hub.model_copy(update={"driver": driver}), "clusters": clusters}
    return FleetSpec.model_construct(None, **fields)


def test_a_new_driver_is_two_halves_and_a_line_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "DRIVERS", {**drivers.DRIVERS, "rack": Rack})
    spec = on_racks({**fleets.small(), "hub": {"name": "control", "driver": {"kind": "local"}}})
    declared, outputs = engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec)).outputs())
    assert {each.name for each in declared.declared if each.type == "rack:index:Thing"} == {
        *("control-rack", "east-rack", "west-rack"),
        *("east-h100", "west-h100"),
        *("east-images", "west-images"),
    }
    # Nothing of this machine: members are joined by their kubeconfigs, and that is all.
    assert {each["create"] for each in declared.commands().values()} == {"fleet-driver member join", "fleet-driver control-plane verify"}
    assert declared.commands()["east-membership-join"]["stdin"]["hubKubeconfig"] == "kubeconfig of rack control"
    assert outputs["endpoints"]["frontDoors"]["east"] == "https://east.example.com"
    assert outputs["endpoints"]["regionalGateways"]["east"] == "http://192.0.2.7:443"
    assert outputs["clusters"]["east"]["driver"] == "rack"
    assert "east-images" in declared.all_before("chat-isvc")
    # All of it goes with the clusters that the driver owns.
    assert declared.named("east-membership-join").deleted_with == "control-rack"
    (overrides,) = [each.inputs["spec"] for each in declared.of_kind("OverridePolicy") if each.name == "chat-placement-overrides"]
    changed = {rule["targetCluster"]["clusterNames"][0]: rule["overriders"]["plaintext"] for rule in overrides["overrideRules"]}
    assert {"key": "rack.example.com/gpu", "operator": "Equal", "value": "h100", "effect": "NoSchedule"} in changed["east"][0]["value"]


def test_what_a_driver_cannot_do_is_refused_with_the_field() -> None:
    raw = fleets.small()
    raw["clusters"][1]["gpuPools"][0]["capacityTypes"] = ["reserved", "spot"]
    told = [str(each) for each in rules.drivers_can(on_racks(raw))]
    assert told == ['clusters[1].gpuPools[0].capacityTypes: driver `rack` has no spot capacity, got: `["reserved", "spot"]`']


# A hub that somebody else runs

_HUB_KUBECONFIG = "apiVersion: v1\nkind: Config\ncurrent-context: karmada\ncontexts: [{name: karmada}]\n"


def existing_hub(**more: Any) -> dict[str, Any]:
    return {**fleets.small(), "hub": {"name": "control", "driver": {"kind": "existing", "kubeconfigSecret": "karmada", **more}}}


def test_karmada_of_somebody_else_is_the_hub() -> None:
    spec = parse_fleet(existing_hub())
    declared, _ = engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs={"control": _HUB_KUBECONFIG})).outputs())
    commands = declared.commands()
    assert not [each for name, each in commands.items() if name.startswith("control") and each["create"].endswith(" apply")], "nothing is installed there"
    (provider,) = [each for each in declared.declared if each.type == "pulumi:providers:kubernetes"]
    assert provider.inputs["kubeconfig"] == _HUB_KUBECONFIG
    # Without it a renewed certificate authority in the kubeconfig would replace every model.
    assert provider.inputs["clusterIdentifier"] == "control"
    assert "kubeconfig" in provider.secrets
    assert commands["east-membership-join"]["stdin"]["hubKubeconfig"] == _HUB_KUBECONFIG
    # The hub stays: members leave it one by one, and what was declared on it is deleted there.
    assert declared.named("east-membership-join").deleted_with == ""
    assert not any(each.deleted_with for each in declared.declared if each.type.startswith("kubernetes:"))


def test_a_hub_has_no_gateways() -> None:
    gateways = {"frontDoor": {"url": "https://llm.example.com"}, "regionalGateway": {"address": "192.0.2.1", "port": 80}}
    with pytest.raises(SpecError) as caught:
        parse_fleet(existing_hub(**gateways))
    assert [str(each).splitlines()[0].partition(", got")[0] for each in caught.value.problems] == [
        "hub.driver.frontDoor: must not be set for the hub",
        "hub.driver.regionalGateway: must not be set for the hub",
    ]


def test_a_member_of_somebody_else_has_both_gateways() -> None:
    raw = fleets.small()
    raw["clusters"][1]["driver"] = {"kind": "existing", "kubeconfigPath": "west", "frontDoor": {"url": "https://llm.example.com"}}
    with pytest.raises(SpecError) as caught:
        parse_fleet(raw)
    (problem,) = caught.value.problems
    assert str(problem).startswith("clusters[1].driver.regionalGateway: is required for a member\n  hint: ")


def test_a_stack_of_existing_clusters_uses_no_process_of_this_machine() -> None:
    raw = existing_hub()
    for cluster in raw["clusters"]:
        fleets.make_existing(cluster)
    spec = parse_fleet(raw)
    assert not any(each.driver.capabilities.on_this_machine or each.driver.capabilities.owned for each in (spec.hub, *spec.clusters))
    kubeconfigs: dict[str, pulumi.Input[str]] = dict.fromkeys(("control", "east", "west"), _HUB_KUBECONFIG)
    declared, _ = engine.run(lambda: Fleet("fleet", FleetArgs(spec=spec, kubeconfigs=kubeconfigs)).outputs())
    assert {each["create"] for each in declared.commands().values()} == {"fleet-driver member join", "fleet-driver control-plane verify"}


def test_drivers_are_documented() -> None:
    text = Path(fleets.REPO / "docs" / "drivers.md").read_text(encoding="utf-8")
    for name in (*Capabilities.__dataclass_fields__, *(each for each in vars(drivers.Driver) if not each.startswith("_"))):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("text", ["users: [{token: secret-token", "secret-token", ""])
def test_a_kubeconfig_that_is_none_is_told_without_what_is_in_it(text: str) -> None:
    raw = existing_hub(context="karmada")
    with pytest.raises(pulumi.RunError, match="must be a YAML mapping") as failure:
        existing.with_context(text, raw["hub"]["driver"]["context"])
    assert "secret-token" not in str(failure.value)
    assert failure.value.__suppress_context__ or failure.value.__context__ is None
