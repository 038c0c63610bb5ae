"""Gateways of the model: their ports and the listeners on them, with the routes attached to those."""

from dataclasses import replace
from typing import NamedTuple

from gwanmun import ir
from gwanmun.memo import Query
from gwanmun.names import ClusterKey, NamespacedName, ObjectKey
from gwanmun.resolve.acceptance import addresses, gateway_spec, refusal
from gwanmun.resolve.gatewayclass import parameters_of
from gwanmun.resolve.host import holder, hosts
from gwanmun.resolve.hostname import covers
from gwanmun.resolve.httproute import resolved_http
from gwanmun.resolve.l4route import l4_rules
from gwanmun.resolve.listener import verdicts
from gwanmun.resolve.member import Place, by_age, members, port_names
from gwanmun.resolve.types import RouteListener
from gwanmun.resolve.verdict import Verdict
from gwanmun.resolve.world import find
from gwanmun.resources.snapshot import GATEWAY_GROUP


class Member(NamedTuple):
    """A route on a Gateway."""

    route: ObjectKey
    gateway: NamespacedName


def served_gateways(q: Query) -> tuple[NamespacedName, ...]:
    """The Gateways that are ours and taken on, sorted."""
    return tuple(
        key.namespaced_name for key in find(q, "kind", (GATEWAY_GROUP, "Gateway")) if q.get(is_served, key.namespaced_name)
    )


def is_served(q: Query, gateway: NamespacedName) -> bool:
    """Whether the Gateway has a place in the model; one that asks only for addresses that are none can have none."""
    if q.get(gateway_spec, gateway) is None or q.get(refusal, gateway) is not None:
        return False
    usable, unusable = q.get(addresses, gateway)
    return bool(usable) or not unusable


def resolve_gateway(q: Query, gateway: NamespacedName) -> ir.Gateway:
    """A Gateway with all of its listeners that can serve, and those of its ListenerSets."""
    parameters = q.get(parameters_of, gateway)
    ports: dict[tuple[int, bool], list[ir.Listener]] = {}
    for place in q.get(served_places, gateway):
        listener = q.get(resolve_listener, place)
        if listener is not None:
            number = q.get(verdicts, gateway)[place.listener].listener.port
            ports.setdefault((number, isinstance(listener, ir.UdpListener)), []).append(listener)
    return ir.Gateway(
        key=gateway,
        ports=tuple(ir.Port(number, "udp" if udp else "tcp", tuple(ports[number, udp])) for number, udp in sorted(ports)),
        addresses=q.get(addresses, gateway)[0],
        connections=parameters.connections,
        inference=parameters.inference,
    )


def served_places(q: Query, gateway: NamespacedName) -> tuple[Place, ...]:
    """The listeners that can serve, in order of precedence."""
    return tuple(Place(gateway, key) for key, verdict in q.get(verdicts, gateway).items() if verdict.listener.valid)


def verdict_at(q: Query, place: Place) -> Verdict | None:
    """The listener's verdict, None where the listener has gone."""
    return q.get(verdicts, place.gateway).get(place.listener)


def resolve_listener(q: Query, place: Place) -> ir.Listener | None:
    """A listener with its routes; None where it cannot serve."""
    verdict = q.get(verdict_at, place)
    if verdict is None or not verdict.listener.valid:
        return None
    listener = verdict.listener
    match listener.protocol:
        case "HTTP" | "HTTPS":
            settings = q.get(parameters_of, place.gateway).inference
            return ir.HttpListener(
                key=listener.key,
                hostname=listener.hostname,
                hosts=q.get(hosts, place),
                tls=verdict.tls,
                misdirected=_misdirected(q, place, listener) if listener.protocol == "HTTPS" else (),
                inference=settings if q.get(place_needs, place).model else None,
                max_request_bytes=settings.max_request_bytes,
            )
        case "TLS":
            return ir.TlsListener(listener.key, listener.hostname, q.get(tls_rules, place), verdict.tls)
        case "TCP":
            return ir.TcpListener(listener.key, q.get(only_rule, place))
        case _:
            return ir.UdpListener(listener.key, q.get(only_rule, place))


def attached_routes(q: Query, place: Place) -> tuple[Member, ...]:
    """The routes attached to a listener, oldest first where they compete; where only one can be (TCP, UDP), the oldest."""
    verdict = q.get(verdict_at, place)
    if verdict is None:
        return ()
    attached = q.get(members, place.listener)
    match verdict.listener.protocol:
        case "HTTP" | "HTTPS":
            routes = list(attached)  # their order is that of their rules
        case "TLS":
            routes = by_age(q, attached)
        case _:
            routes = by_age(q, attached)[:1]
    return tuple(Member(route, place.gateway) for route in routes)


class Needs(NamedTuple):
    """What routes need beyond themselves: backends, and (`model`) the model's name out of the body."""

    targets: frozenset[ClusterKey]
    model: bool


def needs(q: Query, member: Member) -> Needs:
    """What a route on a Gateway needs."""
    if member.route.kind not in ("HTTPRoute", "GRPCRoute"):
        rules = q.get(l4_rules, member.route, member.gateway)
        return Needs(frozenset(t.target for rule in rules for t in rule.targets if t.target is not None), model=False)
    header = q.get(parameters_of, member.gateway).inference.model_header
    http = q.get(resolved_http, member.route, member.gateway).rules
    return Needs(
        frozenset(target for rule in http for target in _targets(rule.action)),
        model=any(match.name == header for rule in http for match in rule.match.headers),
    )


def place_needs(q: Query, place: Place) -> Needs:
    """What all routes on a listener need."""
    each = q.collect(needs, attached_routes, place).values()
    return Needs(frozenset[ClusterKey]().union(*{need.targets for need in each}), model=any(need.model for need in each))


def tls_rules(q: Query, place: Place) -> tuple[ir.L4Rule, ...]:
    """The rules of TLSRoutes with the server names that are theirs: not those of a more specific listener or older route."""
    verdict = q.get(verdict_at, place)
    if verdict is None:
        return ()
    names = q.get(port_names, place.gateway, verdict.listener.port)
    attached = q.get(members, place.listener)
    taken: set[str] = set()
    rules = []
    for route, gateway in q.get(attached_routes, place):
        own = tuple(name for name in attached.get(route, ()) if name not in taken and holder(names, name) == place.listener)
        first = q.get(l4_rules, route, gateway)[:1]  # a TLSRoute's rules cannot be told apart: the first one serves
        if own and first:
            rules.append(replace(first[0], hosts=own))
            taken.update(own)
    return tuple(rules)


def only_rule(q: Query, place: Place) -> ir.L4Rule | None:
    """The rule of a listener whose connections (or datagrams) all go one way."""
    for route, gateway in q.get(attached_routes, place):
        for rule in q.get(l4_rules, route, gateway):
            return rule
    return None


def _misdirected(q: Query, place: Place, listener: RouteListener) -> tuple[str, ...]:
    """The hosts of the port's other listeners. Where one takes every host, names outside this listener's are among them."""
    others = [name for name in q.get(port_names, place.gateway, listener.port) if name != listener.hostname]
    if "*" in others:
        others = [name for name in others if name == "*" or covers(listener.hostname, name)]
    return tuple(sorted(others))


def _targets(action: ir.Action) -> list[ClusterKey]:
    if not isinstance(action, ir.Forward):
        return []
    return [
        *(target.target for target in action.targets if target.target is not None),
        *(target.picker.target for target in action.targets if target.picker is not None),
        *(mirror.target for mirror in action.mirrors),
    ]
