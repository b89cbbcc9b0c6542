"""The fleet: composes hub, members, policies, mesh and models, and says what waits for what.

It decides nothing about any of them; each concern is a module of its own.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes import Provider

from components.control_planes import verification
from components.control_planes.control_plane import ControlPlane, ControlPlaneArgs, installer_for
from components.drivers import driver_of
from components.drivers.cluster import Cluster
from components.drivers.driver import ClusterArgs, Door, MemberArgs
from components.federation import failback
from components.federation.federation import Federation, FederationArgs
from components.federation.hub_objects import hub_object
from components.federation.membership import Membership, MembershipArgs
from components.federation.placement import Placement, PlacementArgs
from components.mesh import callers
from components.mesh.mesh import Mesh, MeshArgs, Routes, RoutesArgs
from components.mesh.regions import Endpoint
from components.mesh.routes import ModelRoutes
from components.serving.model_artifact import ModelArtifact, ModelArtifactArgs
from components.serving.models import Model, ModelArgs, cluster_overrides
from components.serving.network_policies import NetworkPolicies, NetworkPoliciesArgs
from components.serving.runtime_image import RuntimeImage, RuntimeImageArgs
from components.serving.serving_runtimes import Runtimes, RuntimesArgs
from planning import choice, failover_budget, fleet_plan
from planning.choice import Choice
from planning.division import division
from specs import labels, propagation
from specs.clusters import ClusterSpec, HubSpec
from specs.fleet import FleetSpec
from specs.models import ModelSpec
from specs.types import ControlPlaneName

# What each member runs before it joins: their kinds are what the hub sends.
MEMBER_CONTROL_PLANES: tuple[ControlPlaneName, ...] = ("kserve", "istio")


@dataclass(frozen=True, kw_only=True)
class FleetArgs:
    spec: FleetSpec
    # What of it the planner chose: told at the models.
    choices: tuple[Choice, ...] = ()
    # Kubeconfig of each cluster whose driver does not make one, by name; the hub's among them.
    kubeconfigs: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    # Of the cluster in which Karmada's own processes run, where it is another one and known.
    host_kubeconfig: pulumi.Input[str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Hub:
    cluster: Cluster
    karmada: pulumi.Resource
    objects: pulumi.ResourceOptions
    """Options of components whose children are objects on the hub."""
    kinds: tuple[propagation.Kind, ...]
    """Of what the fleet declares on it for members."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    spec: ClusterSpec
    cluster: Cluster
    door: Door
    ready: list[pulumi.Resource]
    """What must stand before a model can run there."""


class Fleet(pulumi.ComponentResource):
    """Everything one stack declares. The attributes are the stack's outputs."""

    hub: dict[str, str]
    endpoints: pulumi.Output[dict[str, Any]]
    clusters: dict[str, Any]
    placements: dict[str, Any]
    failover: dict[str, Any]
    runtime_image: dict[str, Any]
    plan: dict[str, Any]
    kubeconfigs: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, args: FleetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:fleet:Fleet", name, None, opts)
        spec = args.spec
        hub = self._hub(spec, args.kubeconfigs.get(spec.hub.name), args.host_kubeconfig)
        members = [self._member(each, spec, hub, args.kubeconfigs.get(each.name)) for each in spec.clusters]
        doors = {each.spec.name: each.door for each in members}

        ready = [each for member in members for each in member.ready]
        federation = Federation("federation", FederationArgs(clusters=sorted(doors), members=ready), hub.objects)
        shared: list[pulumi.Resource] = [federation.shared]
        failover = spec.failover
        mesh_args = MeshArgs(front_doors=spec.front_doors, failover=failover.requests, streams=failover.streams, doors=doors, requires=shared)
        mesh = Mesh("mesh", mesh_args, hub.objects)
        network = NetworkPolicies("network", NetworkPoliciesArgs(spec=spec.network_policies, requires=shared), hub.objects)
        own = spec.runtimes.image
        image = RuntimeImage("runtime-image", RuntimeImageArgs(spec=own), pulumi.ResourceOptions(parent=self)) if own else None
        images = image.images if image else {}
        runtimes = Runtimes("runtimes", RuntimesArgs(spec=spec.runtimes, failover=failover.requests, images=images), hub.objects)
        before_models = [*federation.rules, *network.objects, *runtimes.objects]
        plan = fleet_plan.plan(spec, dt.datetime.now(tz=dt.UTC).date())
        chosen = {each.model: each for each in args.choices}
        for model, planned, promise in zip(spec.models, plan.models, plan.promises, strict=True):
            served = self._model(model, spec, hub, doors, before_models, [*shared, *mesh.before_routes])
            pulumi.log.info(failover_budget.describe(promise), served)
            pulumi.log.info(fleet_plan.describe(planned), served)
            if model.name in chosen:
                _tell_choice(chosen[model.name], served)
        self._tell(spec.hub, plan)

        # `kubeconfigs` holds hub and members alike; this says which is the hub.
        self.hub = {"name": spec.hub.name}
        self.endpoints = pulumi.Output.from_input(
            {
                "frontDoors": {name: door.front_door_url for name, door in doors.items()},
                "regionalGateways": {name: _regional_url(door) for name, door in doors.items()},
                "models": {model.name: _model_endpoint(model, doors) for model in spec.models},
                "authentication": callers.output(spec.front_doors.authentication),
            }
        )
        self.clusters = {each.name: _cluster_output(each) for each in spec.clusters}
        self.placements = {model.name: _placement_output(model) for model in spec.models}
        self.failover = {each.model: failover_budget.output(each) for each in plan.promises}
        self.runtime_image = {"gpu": {"image": spec.runtimes.vllm.image}, "cpu": {"image": spec.runtimes.vllm_cpu.image}}
        if image:
            self.runtime_image.update(image.told)
        self.plan = fleet_plan.output(spec, plan)
        known: dict[str, pulumi.Input[str]] = {spec.hub.name: hub.cluster.kubeconfig, **{each.spec.name: each.cluster.kubeconfig for each in members}}
        self.kubeconfigs = pulumi.Output.secret(pulumi.Output.all(**known))
        self.register_outputs(self.outputs())

    def outputs(self) -> dict[str, pulumi.Input[Any]]:
        """The stack's outputs, by name."""
        return {
            "hub": self.hub,
            "endpoints": self.endpoints,
            "clusters": self.clusters,
            "placements": self.placements,
            "failover": self.failover,
            "runtimeImage": self.runtime_image,
            "plan": self.plan,
            "kubeconfigs": self.kubeconfigs,
        }

    def _hub(self, spec: FleetSpec, kubeconfig: pulumi.Input[str] | None, host_kubeconfig: pulumi.Input[str] | None) -> _Hub:
        name = spec.hub.name
        child = pulumi.ResourceOptions(parent=self)
        driver = driver_of(spec.hub.driver)
        cluster = Cluster(name, driver, ClusterArgs(name=name, role="hub", kubeconfig=kubeconfig, protect=spec.hub.protect), child)
        args = ControlPlaneArgs(
            cluster=name,
            control_plane="karmada",
            kubeconfig=cluster.kubeconfig,
            owner=cluster.owner,
            settings=verification.karmada_settings(spec),
            verification=verification.of_hub(spec, host_kubeconfig),
        )
        karmada = ControlPlane(f"{name}-karmada", args, installer_for(spec.hub.driver, "karmada"), child)
        # With members that stay, objects are deleted one by one, so that Karmada takes them off those members.
        all_go = all(each.driver.capabilities.owned for each in spec.clusters)
        gone_with = cluster.owner if all_go else None
        provider = Provider(
            name,
            # The hub holds what this program declares. An object that an interrupted run made is taken over, not an error.
            upsert_existing_objects=True,
            # ConfigMaps change in place: pods mount the engine watchdog's.
            enable_config_map_mutable=True,
            # The plugin takes a new address or authority in the kubeconfig for another cluster, and would replace every object: all
            # models of all regions. A hub that stays is itself for as long as the stack file calls it so.
            cluster_identifier=None if cluster.owner else name,
            kubeconfig=cluster.kubeconfig,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[karmada.ready], deleted_with=gone_with),
        )
        inherit = pulumi.ResourceOptions(parent=self, provider=provider, depends_on=[karmada.ready], deleted_with=gone_with)
        namespaces = [self._namespace(each, inherit) for each in propagation.NAMESPACES]
        objects = pulumi.ResourceOptions(parent=self, provider=provider, depends_on=namespaces, deleted_with=gone_with)
        return _Hub(cluster=cluster, karmada=karmada.ready, objects=objects, kinds=propagation.required_kinds(spec))

    def _namespace(self, name: str, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        metadata = labels.metadata(name, component="fleet", extra={labels.SKIP_AUTO_PROPAGATION: "true"})
        return hub_object(f"namespace-{name}", {**propagation.NAMESPACE.selector, "metadata": metadata}, opts)

    def _member(self, spec: ClusterSpec, fleet: FleetSpec, hub: _Hub, kubeconfig: pulumi.Input[str] | None) -> _Member:
        name = spec.name
        child = pulumi.ResourceOptions(parent=self)
        driver = driver_of(spec.driver)
        args = ClusterArgs(name=name, role="member", region=spec.region, zone=spec.zone or "", kubeconfig=kubeconfig, protect=spec.protect)
        cluster = Cluster(name, driver, args, child)
        planes = {
            plane: ControlPlane(
                f"{name}-{plane}",
                ControlPlaneArgs(
                    cluster=name, control_plane=plane, kubeconfig=cluster.kubeconfig, owner=cluster.owner, verification=verification.of_member(fleet)
                ),
                installer_for(spec.driver, plane),
                child,
            )
            for plane in MEMBER_CONTROL_PLANES
        }
        requires = [hub.karmada, *(each.ready for each in planes.values())]
        membership = Membership(
            f"{name}-membership",
            MembershipArgs(
                spec=spec,
                kinds=hub.kinds,
                hub_kubeconfig=hub.cluster.kubeconfig,
                member_kubeconfig=cluster.kubeconfig,
                requires=requires,
                hub_owner=hub.cluster.owner,
            ),
            child,
        )
        joined = MemberArgs(spec=spec, kubeconfig=cluster.kubeconfig, owner=cluster.owner, relay=fleet.failover.streams.relay, mesh=planes["istio"].ready)
        driver.gpu_pools(joined, child)
        door = driver.gateways(joined, child)
        ready = [membership.joined, *driver.supplies(joined, child)]
        return _Member(spec=spec, cluster=cluster, door=door, ready=ready)

    def _model(
        self,
        model: ModelSpec,
        fleet: FleetSpec,
        hub: _Hub,
        doors: Mapping[str, Door],
        before: list[pulumi.Resource],
        before_routes: list[pulumi.Resource],
    ) -> Model:
        taints = {each.name: fleet.by_name[each.name].taints(model.accelerator_in(each.name).type) for each in model.placement.clusters}
        overrides = cluster_overrides(model, fleet.runtimes, taints)
        if model.pack is not None:
            args = ModelArtifactArgs(directory=model.pack, source=model.source)
            artifact = ModelArtifact(f"{model.name}-artifact", args, pulumi.ResourceOptions(parent=self))
            before = [*before, artifact.published]
        placement = Placement(
            f"{model.name}-placement",
            PlacementArgs(model=model.name, owner=model.owner, spec=model.placement, failover=fleet.failover.capacity, overrides=overrides, requires=before),
            hub.objects,
        )
        endpoints = [Endpoint(region=fleet.by_name[each].region, address=doors[each].address, port=doors[each].port) for each in model.placement.order]
        routes = ModelRoutes(model=model.name, endpoints=endpoints, failover=fleet.failover.requests, streams=fleet.failover.streams)
        regions = {each.name: each.region for each in fleet.clusters}
        Routes(f"{model.name}-routes", RoutesArgs(routes=routes, clusters=regions, requires=before_routes), hub.objects)
        return Model(model.name, ModelArgs(spec=model, runtimes=fleet.runtimes, requires=[*before, *placement.policies]), hub.objects)

    def _tell(self, hub: HubSpec, plan: fleet_plan.FleetPlan) -> None:
        """What is true of the whole fleet, at the end of a preview."""
        if not hub.driver.capabilities.failback:
            pulumi.log.warn(failback.not_run_by_us(hub.name), self)
        pulumi.log.info(fleet_plan.describe_fleet(plan), self)
        for warning in plan.warnings:
            pulumi.log.warn(warning, self)


def _tell_choice(each: Choice, served: Model) -> None:
    """A choice that nobody has kept may be another one tomorrow."""
    tell = pulumi.log.info if each.kept else pulumi.log.warn
    tell(choice.describe(each), served)


def _model_endpoint(model: ModelSpec, doors: Mapping[str, Door]) -> dict[str, Any]:
    """Where an OpenAI client is pointed: the front door of the first cluster in failover order. Any other works too."""
    order = model.placement.order
    url = pulumi.Output.format("{0}/{1}/v1", doors[order[0]].front_door_url, model.name)
    return {"openaiBaseUrl": url, "clusters": [each.name for each in model.placement.clusters]}


def _regional_url(door: Door) -> pulumi.Output[str]:
    """Where the regional gateway of a cluster is reached: commands measure with it what the front door adds."""
    return pulumi.Output.all(door.address, door.port).apply(lambda at: f"http://{f'[{at[0]}]' if ':' in at[0] else at[0]}:{int(at[1])}")


def _cluster_output(spec: ClusterSpec) -> dict[str, Any]:
    pools = [{"name": pool.name, "accelerator": pool.accelerator, "nodes": pool.most_nodes, "gpus": pool.gpus} for pool in spec.gpu_pools]
    simulated = spec.driver.capabilities.simulated_gpus
    return {"region": spec.region, "zone": spec.zone or "", "driver": spec.driver.kind, "simulatedGpus": simulated, "gpuPools": pools}


def _placement_output(model: ModelSpec) -> dict[str, Any]:
    """Weights as the stack file has them, and the replicas that follow while every cluster is well."""
    weights = model.placement.weights
    return {name: {"weight": weights[name], "replicas": replicas} for name, replicas in division(model.placement, model.replicas).items()}
