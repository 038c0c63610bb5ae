"""Members of a listener: the routes attached to it, by what attachment says and without a look at their rules."""

from collections.abc import Mapping
from typing import NamedTuple

from gwanmun.memo import Query
from gwanmun.names import ListenerKey, NamespacedName, ObjectKey
from gwanmun.resolve.attach import attachments, route_head
from gwanmun.resolve.listener import verdicts
from gwanmun.resolve.types import RouteListener
from gwanmun.resolve.verdict import NAMED_PROTOCOLS
from gwanmun.resolve.world import find


class Place(NamedTuple):
    """A listener and the Gateway that serves it (for a ListenerSet's listener, the Gateway that the set extends)."""

    gateway: NamespacedName
    listener: ListenerKey


def listener_at(q: Query, place: Place) -> RouteListener | None:
    """The listener, None where it has gone."""
    verdict = q.get(verdicts, place.gateway).get(place.listener)
    return verdict.listener if verdict is not None else None


def port_names(q: Query, gateway: NamespacedName, port: int) -> Mapping[str, ListenerKey]:
    """Whose each hostname of a port is, of listeners told apart by it; those that cannot serve keep theirs."""
    return {
        verdict.listener.hostname: key
        for key, verdict in q.get(verdicts, gateway).items()
        if verdict.standing and verdict.listener.port == port and verdict.listener.protocol in NAMED_PROTOCOLS
    }


def routes_of(q: Query, owner: ObjectKey) -> tuple[ObjectKey, ...]:
    """The routes that name the Gateway or ListenerSet as a parent, sorted."""
    return find(q, "parent", owner)


def members_of(q: Query, owner: ObjectKey) -> Mapping[ListenerKey, Mapping[ObjectKey, tuple[str, ...]]]:
    """The routes attached to each listener of a Gateway or ListenerSet, with the hosts that they have there."""
    found: dict[ListenerKey, dict[ObjectKey, tuple[str, ...]]] = {}
    for route, attached in q.collect(attachments, routes_of, owner).items():
        for attachment in attached:
            if attachment.target == owner:
                for listener, domains in attachment.listeners:
                    routes = found.setdefault(listener, {})
                    routes[route] = _union(routes.get(route), domains)
    return found


def domains_of(q: Query, route: ObjectKey, listener: ListenerKey) -> tuple[str, ...]:
    """The hosts that one route has on a listener; without a look at other routes."""
    domains: tuple[str, ...] | None = None
    for attachment in q.get(attachments, route):
        for key, more in attachment.listeners:
            if key == listener:
                domains = _union(domains, more)
    return domains or ()


def _union(domains: tuple[str, ...] | None, more: tuple[str, ...]) -> tuple[str, ...]:
    """Several parentRefs may lead to one listener."""
    return more if domains is None else tuple(sorted({*domains, *more}))


def members(q: Query, listener: ListenerKey) -> Mapping[ObjectKey, tuple[str, ...]]:
    """The routes attached to a listener with the hosts that they have there."""
    return q.get(members_of, listener.owner).get(listener, {})


def listener_domains(q: Query, listener: ListenerKey) -> frozenset[str]:
    """All hosts that attached routes have on a listener."""
    return frozenset(domain for domains in q.get(members, listener).values() for domain in domains)


def by_age(q: Query, routes: Mapping[ObjectKey, tuple[str, ...]]) -> list[ObjectKey]:
    """Routes, oldest first (unknown age last), then by name: the order in which they win what cannot be shared."""

    def age(route: ObjectKey) -> tuple[bool, str, str, str]:
        head = q.get(route_head, route)
        created = head.created if head is not None else ""
        return created == "", created, route.namespace, route.name

    return sorted(routes, key=age)
