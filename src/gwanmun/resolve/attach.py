"""Attachment of routes: which listeners each parentRef leads to, and under which hosts.

Reads a route's parentRefs, hostnames and age, never its rules, so that an edited rule stops here (a cell's value is
compared). Absent on purpose: conflicts between listeners (`listener`) and everything about rules (`httproute`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from gwanmun.api import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute, UDPRoute
from gwanmun.api.references import ParentReference
from gwanmun.memo import Query
from gwanmun.names import ListenerKey, NamespacedName, ObjectKey
from gwanmun.resolve.hostname import ANY_HOST, covers, wildcards_over
from gwanmun.resolve.listener import controller_of, gateway_of, listeners_of
from gwanmun.resolve.namespace import namespace_allowed
from gwanmun.resolve.status import Condition, ParentRef
from gwanmun.resolve.types import Attachment, RouteListener
from gwanmun.resolve.world import find, read

Route = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute
ROUTE_TYPES: Mapping[str, type[Route]] = {
    "HTTPRoute": HTTPRoute,
    "GRPCRoute": GRPCRoute,
    "TLSRoute": TLSRoute,
    "TCPRoute": TCPRoute,
    "UDPRoute": UDPRoute,
}
RIVAL_KINDS: Mapping[str, str] = {"HTTPRoute": "GRPCRoute", "GRPCRoute": "HTTPRoute"}
"""Two kinds that must not share a host on one listener (GRPCRoute spec.hostnames): the older route keeps it."""


@dataclass(frozen=True, slots=True)
class RouteHead:
    """What attachment needs of a route. `created` is empty where the API server has not said."""

    parents: tuple[ParentReference, ...]
    hostnames: tuple[str, ...]
    created: str
    generation: int


def read_route(q: Query, route: ObjectKey) -> Route | None:
    """The route object of any kind, or None."""
    kind = ROUTE_TYPES.get(route.kind)
    return None if kind is None else cast(Route | None, read(q, route, kind))


def route_head(q: Query, route: ObjectKey) -> RouteHead | None:
    """The part of a route that attachment depends on; hostnames in lower case without duplicates, sorted."""
    obj = read_route(q, route)
    if obj is None:
        return None
    hostnames = () if isinstance(obj, TCPRoute | UDPRoute) else obj.spec.hostnames
    return RouteHead(
        parents=obj.spec.parent_refs,
        hostnames=tuple(sorted({name.lower() for name in hostnames})),
        created=obj.metadata.creation_timestamp or "",
        generation=obj.metadata.generation,
    )


def attachments(q: Query, route: ObjectKey) -> tuple[Attachment, ...]:
    """Every parentRef of the route, judged, in the order of the spec; the same parentRef twice counts once."""
    first = q.get(claims, route)
    rival = RIVAL_KINDS.get(route.kind)
    if rival is None:
        return first
    return tuple(_without_lost(q, route, rival, attachment) for attachment in first)


def claims(q: Query, route: ObjectKey) -> tuple[Attachment, ...]:
    """Attachments before HTTPRoutes and GRPCRoutes that claim the same host are told apart."""
    head = q.get(route_head, route)
    if head is None:
        return ()
    judged: dict[ParentRef, Attachment] = {}
    for ref in head.parents:
        parent = ParentRef(ref.group, ref.kind, ref.name, ref.namespace or route.namespace, ref.section_name, ref.port)
        if parent not in judged:
            judged[parent] = _judge(q, route, head, ref)
    return tuple(judged.values())


def intersection(one: str, other: str) -> str | None:
    """The hosts that both names stand for, as the more specific of the two; None where there are none."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def _judge(q: Query, route: ObjectKey, head: RouteHead, ref: ParentReference) -> Attachment:
    target = ObjectKey(ref.group, ref.kind, ref.namespace or route.namespace, ref.name)
    parent = ParentRef(ref.group, ref.kind, ref.name, ref.namespace, ref.section_name, ref.port)
    gateway = q.get(gateway_of, target)
    if gateway is None:
        nobody = Condition("Accepted", False, "NoMatchingParent", f"{target} is not served by this controller")
        return Attachment(parent, target, None, "", nobody)
    controller = q.get(controller_of, gateway)
    listeners = [listener for listener in q.get(listeners_of, gateway) if listener.key.owner == target]
    accepted, attached = _accept(q, route, head, ref, listeners)
    return Attachment(parent, target, gateway, controller, accepted, attached)


Attached = tuple[tuple[ListenerKey, tuple[str, ...]], ...]


def _accept(
    q: Query, route: ObjectKey, head: RouteHead, ref: ParentReference, listeners: list[RouteListener]
) -> tuple[Condition, Attached]:
    """The tests that a listener has to pass, in the order in which their failure is most useful to hear of."""
    named = [
        listener
        for listener in listeners
        if (ref.section_name is None or listener.key.name == ref.section_name)
        and (ref.port is None or listener.port == ref.port)
    ]
    if not named:
        return _rejected("NoMatchingParent", _no_such_listener(ref, listeners)), ()
    of_kind = [listener for listener in named if (route.group, route.kind) in listener.kinds]
    if not of_kind:
        return _rejected("NotAllowedByListeners", _wrong_kind(route, named)), ()
    allowed = [listener for listener in of_kind if _lets_in(q, listener, route.namespace)]
    if not allowed:
        return _rejected("NotAllowedByListeners", _wrong_namespace(route, of_kind)), ()
    attached = tuple((listener.key, hosts) for listener in allowed if (hosts := _hosts(listener, head.hostnames)))
    if not attached:
        return _rejected("NoMatchingListenerHostname", _no_common_host(head.hostnames, allowed)), ()
    return Condition("Accepted", True, "Accepted"), attached


def _hosts(listener: RouteListener, hostnames: tuple[str, ...]) -> tuple[str, ...]:
    if listener.protocol in ("TCP", "UDP"):
        return (ANY_HOST,)
    if not hostnames:
        return (listener.hostname,)
    return tuple(sorted({host for name in hostnames if (host := intersection(listener.hostname, name)) is not None}))


def _lets_in(q: Query, listener: RouteListener, namespace: str) -> bool:
    return namespace_allowed(q, listener.namespaces, own=listener.key.owner.namespace, namespace=namespace)


def _without_lost(q: Query, route: ObjectKey, rival: str, attachment: Attachment) -> Attachment:
    """The attachment less the listeners where an older route of the other kind has the host."""
    if not attachment.listeners or not find(q, "rival", (attachment.target, rival)):
        return attachment
    lost = {
        listener: winner
        for listener, _ in attachment.listeners
        if q.get(_mixed, listener) and (winner := q.get(_lost, listener).get(route)) is not None
    }
    if not lost:
        return attachment
    kept = tuple(entry for entry in attachment.listeners if entry[0] not in lost)
    accepted = attachment.accepted
    if not kept:
        listener, winner = min(lost.items())
        accepted = _rejected(
            "HostnameConflict",
            f"{winner} {_precedence(q, winner, route)} and has one of these hostnames on listener {listener.name}; "
            "an HTTPRoute and a GRPCRoute cannot share one",
        )
    return Attachment(attachment.parent, attachment.target, attachment.gateway, attachment.controller_name, accepted, kept)


def _precedence(q: Query, winner: ObjectKey, loser: ObjectKey) -> str:
    """Why the winner goes first. In a folder routes have no age, and an API server may have made two in one second."""
    won, lost = q.get(route_head, winner), q.get(route_head, loser)
    if won is None or lost is None or won.created == lost.created:
        return "comes first by name"
    return "is older"


def _mixed(q: Query, listener: ListenerKey) -> bool:
    """Whether both kinds claim the listener. GRPCRoutes, being the fewer, are asked for first; HTTPRoutes seldom then."""
    return all(
        any(key == listener for route in find(q, "rival", (listener.owner, kind)) for key in q.get(_claimed, route))
        for kind in ("GRPCRoute", "HTTPRoute")
    )


def _claimed(q: Query, route: ObjectKey) -> tuple[ListenerKey, ...]:
    return tuple(key for claim in q.get(claims, route) for key, _ in claim.listeners)


def _lost(q: Query, listener: ListenerKey) -> dict[ObjectKey, ObjectKey]:
    """HTTPRoutes and GRPCRoutes that may not use the listener, with the route that has their host; oldest route first."""
    rivals = [route for kind in RIVAL_KINDS for route in find(q, "rival", (listener.owner, kind))]
    owners: dict[str, dict[str, ObjectKey]] = {kind: {} for kind in RIVAL_KINDS}  # kind -> host or a parent domain of it
    lost: dict[ObjectKey, ObjectKey] = {}
    for _, route, hosts in sorted(_claimants(q, listener, rivals)):
        other = owners[RIVAL_KINDS[route.kind]]
        winner = _owner(other, hosts)
        if winner is not None:
            lost[route] = winner
            continue
        for host in hosts:
            for name in (host, *(f"^{domain}" for domain in wildcards_over(host))):
                owners[route.kind].setdefault(name, route)
    return lost


def _claimants(
    q: Query, listener: ListenerKey, routes: Iterable[ObjectKey]
) -> Iterable[tuple[tuple[bool, str, str, str, str], ObjectKey, tuple[str, ...]]]:
    for route in routes:
        hosts = {host for claim in q.get(claims, route) for key, hosts in claim.listeners if key == listener for host in hosts}
        head = q.get(route_head, route)
        if hosts and head is not None:
            age = (head.created == "", head.created, route.namespace, route.name, route.kind)
            yield age, route, tuple(sorted(hosts))


def _owner(owners: Mapping[str, ObjectKey], hosts: tuple[str, ...]) -> ObjectKey | None:
    """Who has a host that intersects one of these: the same, a wildcard over it, or one below it (marked `^`)."""
    for host in hosts:
        for name in (host, f"^{host}", *wildcards_over(host)):
            if name in owners:
                return owners[name]
    return None


def _rejected(reason: str, message: str) -> Condition:
    return Condition("Accepted", False, reason, message)


def _no_such_listener(ref: ParentReference, listeners: list[RouteListener]) -> str:
    wanted = " and ".join(
        text
        for text, given in ((f'sectionName "{ref.section_name}"', ref.section_name), (f"port {ref.port}", ref.port))
        if given is not None
    )
    there = ", ".join(f"{listener.key.name} (port {listener.port})" for listener in listeners) or "none"
    return f"{ref.kind} {ref.name} has no listener with {wanted or 'any name'}; it has {there}"


def _wrong_kind(route: ObjectKey, listeners: list[RouteListener]) -> str:
    there = "; ".join(
        f"{listener.key.name} ({listener.protocol}) takes {', '.join(kind for _, kind in listener.kinds) or 'no kind of route'}"
        for listener in listeners
    )
    return f"no listener takes a {route.kind}: {there}"


def _wrong_namespace(route: ObjectKey, listeners: list[RouteListener]) -> str:
    there = "; ".join(f"{listener.key.name} allows {_allowed_from(listener)}" for listener in listeners)
    return f"no listener allows routes of namespace {route.namespace}: {there} (allowedRoutes.namespaces)"


def _allowed_from(listener: RouteListener) -> str:
    match listener.namespaces.kind:
        case "Same":
            return f"those of {listener.key.owner.namespace} (Same)"
        case "Selector":
            return "those that its selector takes"
        case other:
            return f"from: {other}"


def _no_common_host(hostnames: tuple[str, ...], listeners: list[RouteListener]) -> str:
    there = ", ".join(f"{listener.key.name} has {listener.hostname}" for listener in listeners)
    return f"no hostname of {', '.join(hostnames)} is among those of a listener: {there}"


def gateways_of(q: Query, route: ObjectKey) -> tuple[NamespacedName, ...]:
    """The Gateways on which the route is accepted, sorted."""
    return tuple(sorted({a.gateway for a in q.get(attachments, route) if a.gateway is not None and a.listeners}))
