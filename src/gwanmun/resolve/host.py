"""Hosts of HTTP listeners: which routes answer for a host, and their rules in order of precedence.

Listener isolation is decided here: a host belongs to the most specific listener of its port alone. Within a listener the
Gateway API asks that a more specific hostname of a route go first and that the others be tried after it. A proxy looks at
one host only, so a host's rules include those of all wider hostnames, up to the first level that takes every request.

Cells are as small as the edits that users make: an edited rule recomputes its route's hosts, a new route those it names.
"""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from gwanmun import ir
from gwanmun.memo import Query
from gwanmun.names import ListenerKey, NamespacedName, ObjectKey
from gwanmun.resolve.attach import route_head
from gwanmun.resolve.hostname import covers, wildcards_over
from gwanmun.resolve.httproute import resolved_http
from gwanmun.resolve.match import rule_order
from gwanmun.resolve.member import Place, domains_of, listener_at, listener_domains, members, port_names
from gwanmun.resolve.world import find
from gwanmun.resources.snapshot import ANY_HOSTNAME

CATCH_ALL = ir.HttpMatch()
CROWD = 100  # routes
Ordered = tuple[tuple[tuple[Any, ...], ir.Rule], ...]
"""Rules with what they sort by: the rank of the hostname, then the order of matches."""


class HostKey(NamedTuple):
    place: Place
    domain: str


class _Ranked(NamedTuple):
    """A route that answers for a host; `rank` 0 is the most specific of the hostnames by which one does."""

    rank: int
    route: ObjectKey
    gateway: NamespacedName


def hosts(q: Query, place: Place) -> Mapping[str, ir.Host]:
    """The hosts of an HTTP listener by domain, its own hostname always among them."""
    # Thousands are put together anew at every change of one: their names are not.
    return dict(zip(q.get(host_names, place), q.collect(host, host_keys, place).values(), strict=True))


def host_names(q: Query, place: Place) -> tuple[str, ...]:
    """The domains of `host_keys`, in the same order."""
    return tuple(key.domain for key in q.get(host_keys, place))


def host_keys(q: Query, place: Place) -> tuple[HostKey, ...]:
    """The domains of attached routes that no more specific listener of the port has, and the listener's own; sorted."""
    listener = q.get(listener_at, place)
    if listener is None:
        return ()
    owned = q.get(listener_domains, place.listener)
    names = q.get(port_names, place.gateway, listener.port)
    if any(name != listener.hostname and covers(listener.hostname, name) for name in names):
        owned = frozenset(domain for domain in owned if holder(names, domain) == place.listener)
    return tuple(HostKey(place, domain) for domain in sorted(owned | {listener.hostname}))


def holder(names: Mapping[str, ListenerKey], domain: str) -> ListenerKey | None:
    """The listener that a domain belongs to: of those whose hostname covers it, the one with the most specific."""
    return next((names[name] for name in (domain, *wildcards_over(domain)) if name in names), None)


def host(q: Query, key: HostKey) -> ir.Host:
    """All rules of the host; the first that matches wins."""
    ordered = [entry for rules in q.collect(ordered_rules, host_members, key).values() for entry in rules]
    ordered.sort(key=itemgetter(0))
    ranks = {order[0] for order, _ in ordered}
    if len(ranks) > 1:  # what comes after a hostname that takes every request is never reached
        last = min((order[0] for order, rule in ordered if rule.match == CATCH_ALL), default=max(ranks))
        ordered = [entry for entry in ordered if entry[0][0] <= last]
    return ir.Host(key.domain, tuple(rule for _, rule in ordered))


def host_members(q: Query, key: HostKey) -> tuple[_Ranked, ...]:
    """The routes that answer for the host. They are found by hostname, so that other hosts' routes do not matter."""
    owner = key.place.listener.owner
    candidates = (find(q, "host", (owner, key.domain)), *q.get(wider_candidates, owner, wildcards_over(key.domain)))
    # A crowded host is as good as always touched by a change; asking for its routes one by one would only cost more.
    crowd = q.get(members, key.place.listener) if sum(map(len, candidates)) > CROWD else None
    ranks: dict[ObjectKey, int] = {}
    for rank, routes in enumerate(candidates):
        for route in routes:
            domains = crowd.get(route, ()) if crowd is not None else domains_of(q, route, key.place.listener)
            if route not in ranks and any(covers(domain, key.domain) for domain in domains):
                ranks[route] = rank
    return tuple(_Ranked(rank, route, key.place.gateway) for route, rank in ranks.items())


def wider_candidates(q: Query, owner: ObjectKey, wildcards: tuple[str, ...]) -> tuple[tuple[ObjectKey, ...], ...]:
    """The routes that name each of these hostnames, and those that name none; the many hosts below one domain share it."""
    return tuple(find(q, "host", (owner, name)) for name in (*wildcards, ANY_HOSTNAME))


def ordered_rules(q: Query, member: _Ranked) -> Ordered:
    """The rules of an HTTPRoute or GRPCRoute with what they are ordered by."""
    head = q.get(route_head, member.route)
    created = head.created if head is not None else ""
    return tuple(
        ((member.rank, *rule_order(rule, created, member.route)), rule)
        for rule in q.get(resolved_http, member.route, member.gateway).rules
    )
