"""Mesh: how a request finds a region, and in it a pod.

caller → front door (its own region first) → regional gateway of a region → KServe's Service → vLLM. The paths of a model are
`/<model>/v1/…` at both doors. A regional gateway never leads to another region, so there are no loops. Everything is
declared once on the hub; only addresses, names and the order of regions differ, by override policies.

This module declares; what it declares is doors.py, callers.py, regions.py, routes.py,
envoy_filters.py and stream_relay.py. The numbers
of a failover are failover.py; which clusters serve a model is placement.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.drivers.driver import Door
from components.federation.hub_objects import hub_object
from components.mesh import callers
from components.mesh.envoy_filters import front_door_filter, regional_filter
from components.mesh.gateways import EGRESS, FRONT_DOOR, REGIONAL_GATEWAY, egress_gateway, front_door_gateway, listener_overrides, regional_gateway
from components.mesh.regions import MOST_REQUESTS, order_overrides
from components.mesh.routes import ModelRoutes, cluster_header_overrides, predictors_rule
from components.mesh.stream_relay import port_overrides, relay_entry, relay_rule
from specs.callers import FrontDoorsSpec
from specs.failover import RequestFailoverSpec, StreamsSpec


@dataclass(frozen=True, kw_only=True)
class MeshArgs:
    front_doors: FrontDoorsSpec
    failover: RequestFailoverSpec
    streams: StreamsSpec
    doors: Mapping[str, Door]
    # Policy that carries the objects to the members: it must be deleted after them.
    requires: list[pulumi.Resource]


class Mesh(pulumi.ComponentResource):
    """The doors of every cluster. Routes of models depend on `before_routes`."""

    def __init__(self, name: str, args: MeshArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Mesh", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, depends_on=args.requires)
        overrides: list[pulumi.Resource] = [hub_object(f"{name}-cluster-header", cluster_header_overrides(list(args.doors)), child)]
        local = {cluster: door.override for cluster, door in args.doors.items() if door.override}
        if local:
            front = listener_overrides(FRONT_DOOR, {cluster: each.front_door for cluster, each in local.items()})
            regional = listener_overrides(REGIONAL_GATEWAY, {cluster: each.regional_gateway for cluster, each in local.items()})
            overrides += [hub_object(f"{name}-front-door-listener", front, child), hub_object(f"{name}-regional-listener", regional, child)]
        relays = {cluster: (each.stream_relay, each.egress) for cluster, each in local.items() if each.stream_relay is not None and each.egress is not None}
        if relays:
            egress = listener_overrides(EGRESS, {cluster: port for cluster, (_, port) in relays.items()})
            overrides += [hub_object(f"{name}-egress-listener", egress, child), hub_object(f"{name}-relay-ports", port_overrides(relays), child)]
            if args.front_doors.authentication:
                ports = {cluster: pulumi.Output.from_input(port).apply(str) for cluster, (_, port) in relays.items()}
                overrides.append(hub_object(f"{name}-callers-egress", callers.egress_overrides(ports), child))
        # After the overrides: a gateway that came first would listen on the wrong port until Karmada looks again.
        after = pulumi.ResourceOptions(parent=self, depends_on=[*args.requires, *overrides])
        before_door: list[pulumi.Resource] = [*args.requires, *overrides]
        if args.front_doors.authentication:
            # Before the door itself, and one after the other, so that a new fleet is never open.
            for purpose, body in callers.objects(args.front_doors.authentication).items():
                before_door.append(hub_object(f"{name}-{purpose}", body, pulumi.ResourceOptions(parent=self, depends_on=list(before_door))))
        hub_object(f"{name}-front-door", front_door_gateway(), pulumi.ResourceOptions(parent=self, depends_on=before_door))
        hub_object(f"{name}-regional-gateway", regional_gateway(), after)
        hub_object(f"{name}-predictors", predictors_rule(args.failover), after)
        hub_object(f"{name}-front-door-filter", front_door_filter(args.failover, args.streams), after)
        hub_object(f"{name}-regional-filter", regional_filter(args.failover), after)
        self.before_routes = overrides
        if args.streams.relay:
            # The way must stand before a route leads there.
            self.before_routes = [
                *overrides,
                hub_object(f"{name}-egress", egress_gateway(), after),
                hub_object(f"{name}-relay", relay_entry(), after),
                hub_object(f"{name}-relay-rule", relay_rule(MOST_REQUESTS), after),
            ]
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class RoutesArgs:
    routes: ModelRoutes
    # Every cluster that has a front door, {cluster: region}.
    clusters: Mapping[str, str]
    requires: list[pulumi.Resource]


class Routes(pulumi.ComponentResource):
    """The way of one model's requests, from every front door to its pods."""

    def __init__(self, name: str, args: RoutesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:mesh:Routes", name, None, opts)
        requires = list(args.requires)
        order = order_overrides(args.routes.model, args.routes.endpoints, args.clusters)
        if order:
            # First: for a moment the order of another region would hold.
            requires.append(hub_object(f"{name}-order", order, pulumi.ResourceOptions(parent=self, depends_on=args.requires)))
        child = pulumi.ResourceOptions(parent=self, depends_on=requires)
        for purpose, body in args.routes.objects().items():
            hub_object(f"{name}-{purpose}", body, child)
        self.register_outputs({})
